"""What a study works with: recordings to train on, held-out ones, and the tokenizers that are compared on them."""

import hashlib
import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from codec import Codec, CodecInfo, load_codec, save_codec
from codec.foundation import UserError
from codec.kmeans_codec.fitting import fit_kmeans, kmeans_codec, patches
from data import AudioError, Corpus, Utterance, audio_info, open_corpus, read_audio
from data.config import CorpusOptions
from data.decoding import AudioPart
from recipes.evaluation.inputs import spread
from recipes.study.cells import Cell, Stage, codec_hash, computed_by
from recipes.study.config import KMeansBaseline, StudyConfig

_READ_AT_ONCE = 2**20  # bytes


@dataclass(frozen=True)
class Material:
    """The corpus, cut down to what the study uses, and its parts."""

    corpus: Corpus  # training and held-out recordings, nothing else
    held_out: Sequence[Utterance]
    seconds: dict[str, float]  # of readable audio, by split
    hash: str  # 16 hex digits over what is listed and over the audio files' bytes

    @property
    def training(self) -> list[Utterance]:
        """The recordings to train on."""
        return self.corpus.split("train")

    @property
    def texts(self) -> list[str]:
        """What is said in them."""
        return [utterance.text for utterance in self.training if utterance.text]


def open_material(config: StudyConfig, reading: CorpusOptions | None = None) -> Material:
    """Read the corpus. Raises UserError where it lacks a split."""
    listing = open_corpus(config.corpus, config.format, options=reading)
    training, held_out = listing.split("train"), listing.split("validation")
    if not training or not held_out:
        there = ", ".join(f"{name} ({count})" for name, count in listing.splits.items())
        raise UserError(
            f"{config.corpus}: a study trains on the train split and measures on the validation split, it has {there}; "
            "list the ids of some recordings in dev.txt beside metadata.csv, or say `split` in a manifest"
        )
    chosen = sorted([*spread(training, config.limit), *held_out], key=lambda utterance: utterance.id)
    corpus = listing.part(chosen)
    seconds = {"train": 0.0, "validation": 0.0}
    for utterance in corpus.utterances:
        try:
            seconds[utterance.split] += audio_info(utterance.path).seconds
        except UserError:
            continue  # tokenizing names it, and counts it among the failures
    return Material(corpus, corpus.split("validation"), seconds, content_hash(corpus))


def content_hash(corpus: Corpus) -> str:
    """16 hex digits over what a corpus lists and over the bytes of its files."""
    digest = hashlib.blake2b(corpus.content_hash().encode(), digest_size=8)
    paths = (u.path.source if isinstance(u.path, AudioPart) else u.path for u in corpus.utterances)
    for source in dict.fromkeys(paths):
        if isinstance(source, str | os.PathLike):
            try:
                with open(source, "rb") as file:
                    while part := file.read(_READ_AT_ONCE):
                        digest.update(part)
            except OSError:
                continue  # missing: the rest is still named by what is there
    return digest.hexdigest()


# ---- tokenizers


Steps = Generator[Stage, Cell, "Tokenizer"]


@dataclass(frozen=True)
class Tokenizer:
    """A codec that is ready for use."""

    name: str  # in tables
    location: str  # for whoever loads it
    codec: Codec
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
    training = material.corpus.part(material.training)
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
