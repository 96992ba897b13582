"""The tokenizers of a study: codecs by name, and the k-means baseline that is fitted here."""

from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from codec import CodecInfo, UserError, load_codec, save_codec
from codec.kmeans_codec import fit_kmeans, kmeans_codec, patches
from data import AudioError, read_audio
from recipes.study.cells import Cell, Stage
from recipes.study.config import KMeansBaseline, StudyConfig
from recipes.study.environment import codec_hash, computed_by
from recipes.study.material import Material, content_hash, part_of

if TYPE_CHECKING:
    from codec import Codec

Steps = Generator[Stage, Cell, "Tokenizer"]


@dataclass(frozen=True)
class Tokenizer:
    """A codec that is ready for use."""

    name: str  # in tables
    location: str  # for whoever loads it
    codec: "Codec"
    info: CodecInfo
    hash: str  # over all that it does, its decoder included
    about: Mapping[str, Any]  # of a baseline: how it was fitted
    seconds: float | None = None  # that the fit took


def named_tokenizer(name: str, location: str, device: str) -> Tokenizer:
    """The codec of a bundled name, directory or hub id. Raises UserError when there is none."""
    codec = load_codec(location, device=device)
    return Tokenizer(name, location, codec, CodecInfo.of(codec), codec_hash(codec), {})


def fitted_tokenizer(config: StudyConfig, baseline: KMeansBaseline, material: Material, device: str) -> Steps:
    """The k-means baseline: one stage, which fits it, then the codec. Raises UserError for a vocoder it cannot use."""
    source = load_codec(baseline.vocoder)
    training = part_of(material.corpus, material.training)
    inputs = {
        "baseline": {key: value for key, value in asdict(baseline).items() if key != "vocoder"},
        "vocoder": codec_hash(source),
        "recordings": content_hash(training),
        "gain": config.gain,
        "seed": config.seed,
        "computed_by": computed_by(config, "cpu", "torchaudio", "soundfile"),
    }

    def fit(directory: Path) -> dict[str, Any]:
        model = kmeans_codec(source, baseline.codes, baseline.stride, baseline.name)
        wanted = material.seconds["train"] * model.config.frame_rate
        share = min(1.0, baseline.frames / max(wanted, 1.0))
        waveforms = _waveforms(material, model.config.sampling_rate, config.gain)
        rows = patches(model, waveforms, share, config.seed)
        found = fit_kmeans(rows, baseline.codes, baseline.iterations, config.seed)
        model.quantizer.codebook.copy_(found.centroids)
        exported = save_codec(model, directory / "codec")
        return {
            "fingerprint": exported.config.fingerprint,
            "frames": len(rows),
            "iterations": found.iterations,
            "mean_squared_distance": found.distance,
        }

    cell = yield Stage("fit", baseline.name, inputs, fit, version=2)
    location = str(cell.path / "codec")
    codec = load_codec(location, device=device)
    return Tokenizer(
        baseline.name,
        location,
        codec,
        CodecInfo.of(codec),
        codec_hash(codec),
        {**asdict(baseline), **cell.result},
        cell.seconds,
    )


def _waveforms(material: Material, rate: int, gain: float) -> Generator[torch.Tensor, None, None]:
    unreadable = 0
    for utterance in material.training:
        try:
            yield read_audio(utterance.path, rate) * gain
        except AudioError:
            unreadable += 1
    if unreadable == len(material.training):
        raise UserError(f"{material.corpus.location}: none of its recordings can be read")
