"""Commands that make codecs: train-codec, export."""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from codec import save_codec
from codec.export import with_vocoder
from codec.foundation import UserError, rank
from codec.loading import load_trained
from codec.training.batches import TrainingData
from codec.training.config import CodecTrainingConfig
from codec.training.initialization import model_config
from codec.training.loop import train_codec
from codec.training.validation import ValidationSet
from codec.vocoders.directories import load_vocoder
from data.config import CorpusFormat
from data.corpora import Utterance


@dataclass
class CodecCorpus:
    """A corpus that a codec learns from."""

    path: str
    """Where the recordings are."""
    weight: float = 1.0
    """Share of the training segments, relative to the other corpora's."""
    format: CorpusFormat = "auto"
    """Layout of the corpus."""
    alignment: str | None = None
    """Word times that `codec-slm align` made, for losses.ctc."""
    gain_db: tuple[float, float] | None = (-6.0, -1.0)
    """Range of the peak level drawn for training, in dB of full scale."""
    validation_gain: float = 1.0
    """Factor on the validation recordings."""
    validation_limit: int = 60
    """Most validation recordings."""
    speaker_balance: float = 1.0
    """0: speakers come as often as they speak; 1: all equally often."""


@dataclass
class CodecRecipe(CodecTrainingConfig):
    """A codec training run and its corpora."""

    corpora: list[CodecCorpus] = field(default_factory=list)
    """What to train and validate on."""
    preload: bool = True
    """Decode all audio into memory first (16 bits a sample: 170 MB an hour)."""


def train_codec_command(config: CodecRecipe) -> int:
    """Train a codec: waveform -> codes -> waveform.

    Started again with the same arguments, it goes on where it was stopped. Under `accelerate launch -m recipes` it runs
    on several devices.

    Args:
        config: the run; see recipes/hh_codec/ and recipes/hybrid_codec/ for examples.
    """
    result = train_codec(config, training_data(config))
    if result.final is not None and rank() == 0:
        print(f"trained {result.step} steps: {result.final}")
    return 0


def export_codec_command(
    run: Path,
    output: Path,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    checkpoint: Literal["final", "best", "latest"] | None = None,
    vocoder: Path | None = None,
) -> int:
    """Turn a codec's training run into a model directory for use: folded, rounded once, with its fingerprint.

    Args:
        run: the run directory; also one of its checkpoints, or a model directory.
        output: where the model directory goes; an exported codec that is there is replaced.
        dtype: what the weights are stored in. They are computed with in float32 wherever they are loaded.
        checkpoint: which of the run's; its result when unset, or without one the latest. The best has the lowest
            validation score.
        vocoder: a vocoder by itself, as import-weights writes it, in the place of the codec's own. It has to hear the
            same mel. The fingerprint stays: codes mean what they meant.
    """
    model = load_trained(run, checkpoint)
    if vocoder is not None:
        model = with_vocoder(model, load_vocoder(vocoder))
    exported = save_codec(model, output, dtype)
    print(f"exported {exported.config.name}, fingerprint {exported.config.fingerprint}: {output}")
    return 0


def import_weights_command(
    file: Path,
    output: Path,
    kind: Literal["auto", "hh-codec", "bigvgan", "vocos"] = "auto",
    weights: Literal["average", "raw"] = "average",
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    trainable: bool = False,
) -> int:
    """Turn a published file of weights into a directory of this project's form. Nothing in the file is run.

    The original HH-Codec's Lightning checkpoint becomes a codec, exported, with its fingerprint. NVIDIA's BigVGAN v2
    (bigvgan_generator.pt, with its config.json beside it) and charactr/vocos-mel-24khz (pytorch_model.bin) become
    vocoders: `train-codec --initialize.vocoder DIR` starts from one, `export --vocoder DIR` puts one into a codec.

    Args:
        file: the file of weights.
        output: where the directory goes; a codec or vocoder that is there is replaced.
        kind: what the file is; by its names unless given.
        weights: of an HH-Codec the average over training steps, which its authors evaluate, or the raw ones.
        dtype: what a codec's weights are stored in; vocoders by themselves stay in float32.
        trainable: keep of a codec what only training needs, in float32: `train-codec --model DIR --initialize.all DIR`
            goes on from it, for its codes may still change; `export` makes a codec to use of it.
    """
    from codec.importing import import_weights

    print(import_weights(file, output, kind, weights, dtype, trainable))
    return 0


def training_data(config: CodecRecipe) -> TrainingData:
    """Open the corpora of a recipe.

    Raises UserError when one cannot be opened or none is given.
    """
    from data import SegmentDataset, open_corpus, with_alignment
    from data.segments import Labeller, MixedSegments, alphabet_of
    from data.waveforms import FileWaveforms, MemoryWaveforms

    if not config.corpora:
        raise UserError("no corpora to train on: give some as --corpora or in the config file")
    sampling_rate = model_config(config).sampling_rate
    sources, validation, names = [], [], []
    texts: list[Utterance] = []
    for entry in config.corpora:
        corpus = open_corpus(entry.path, format=entry.format)
        if entry.alignment is not None:
            corpus = with_alignment(corpus, entry.alignment)
        train = [utterance for utterance in corpus.utterances if utterance.split == "train"]
        if not train:
            raise UserError(f"{entry.path} has no training split")
        names.append([corpus.name, [utterance.id for utterance in corpus.utterances]])
        reader = MemoryWaveforms.preload if config.preload else FileWaveforms
        waveforms = reader(train, sampling_rate)
        _say_what_is_broken(entry.path, waveforms.failures)
        sources.append((entry, waveforms, train))
        texts += train
        held_out = [utterance for utterance in corpus.utterances if utterance.split == "validation"]
        if held_out and entry.validation_limit > 0:
            namesakes = sum(other[0] == corpus.name for other in names[:-1])
            name = f"{corpus.name}-{namesakes + 1}" if namesakes else corpus.name
            validation.append(ValidationSet(name, _validation_waveforms(held_out, entry, sampling_rate)))

    alphabet = alphabet_of(texts) if config.reads_transcripts else ""
    if alphabet:
        names.append(["alphabet", list(alphabet)])
        labelled = [any(u.words for u in train) for _, _, train in sources]
        for (entry, _, _), known in zip(sources, labelled, strict=True):
            if not known and rank() == 0:
                print(
                    f"train-codec: {entry.path} has no word times, so losses.ctc learns from whole recordings alone: "
                    "make some with codec-slm align and give them as its alignment",
                    file=sys.stderr,
                )

    def segments(seconds: float) -> MixedSegments:
        return MixedSegments(
            [
                SegmentDataset(
                    waveforms,
                    sampling_rate,
                    round(seconds * sampling_rate),
                    seed=config.seed,
                    gain_db=entry.gain_db,
                    speaker_balance=entry.speaker_balance,
                    labeller=Labeller(train, sampling_rate, alphabet) if alphabet else None,
                )
                for entry, waveforms, train in sources
            ],
            [entry.weight for entry in config.corpora],
            seed=config.seed,
        )

    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]
    return TrainingData(segments=segments, validation=validation, digest=digest, alphabet=alphabet)


def _validation_waveforms(
    utterances: Sequence[Utterance], entry: CodecCorpus, sampling_rate: int
) -> list[Tensor]:
    """Up to `validation_limit` recordings, spread evenly over the corpus: neighbours share a speaker or a chapter."""
    from data import AudioError, read_audio

    count = min(entry.validation_limit, len(utterances))
    waveforms, failures = [], []
    for number in range(count):
        utterance = utterances[number * len(utterances) // count]
        try:
            waveforms.append(read_audio(utterance.path, sampling_rate) * entry.validation_gain)
        except AudioError as error:
            failures.append((utterance.id, str(error)))
    _say_what_is_broken(entry.path, failures)
    return waveforms


def _say_what_is_broken(corpus: str, failures: Sequence[tuple[str, str]]) -> None:
    if failures and rank() == 0:
        print(
            f"train-codec: {len(failures)} recordings of {corpus} cannot be read and are left out; the first: "
            f"{failures[0][1]}",
            file=sys.stderr,
        )
