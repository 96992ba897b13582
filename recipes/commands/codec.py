"""Commands that make codecs: train-codec, export."""

import hashlib
import json
from dataclasses import dataclass, field

from codec.training import CodecTrainingConfig, TrainingData, ValidationSet, train_codec


@dataclass
class CodecCorpus:
    """A corpus that a codec learns from."""

    path: str
    weight: float = 1.0  # share of the training segments, relative to the other corpora's
    format: str = "auto"
    gain_db: tuple[float, float] | None = (-6.0, -1.0)  # peak level drawn for training, dB of full scale
    validation_gain: float = 1.0  # factor on the validation recordings
    validation_limit: int = 60  # recordings
    speaker_balance: float = 1.0  # 0: as often as they speak, 1: all equally often


@dataclass
class CodecRecipe(CodecTrainingConfig):
    """A codec training run and its corpora.

    preload: decode all audio into memory first (16 bits a sample: 170 MB an hour).
    """

    corpora: list[CodecCorpus] = field(default_factory=list)
    preload: bool = True


def train_codec_command(config: CodecRecipe) -> int:
    """Train a codec: waveform -> codes -> mel -> waveform.

    Args:
        config: the run; see recipes/hh_codec/ for examples.
    """
    result = train_codec(config, training_data(config))
    if result.final is not None:
        print(f"trained {result.step} steps: {result.final}")
    return 0


def training_data(config: CodecRecipe) -> TrainingData:
    """Open the corpora of a recipe.

    Raises UserError when one cannot be opened or none is given.
    """
    from codec.runs import UserError
    from codec.training.start import build_model
    from data import SegmentDataset, open_corpus, read_audio
    from data.mixed_segments import MixedSegments
    from data.waveforms import FileWaveforms, MemoryWaveforms

    if not config.corpora:
        raise UserError("no corpora to train on: give some as --corpora or in the config file")
    sampling_rate = build_model(config).config.sampling_rate
    sources, validation, names = [], [], []
    for entry in config.corpora:
        corpus = open_corpus(entry.path, format=entry.format)
        train = [utterance for utterance in corpus.utterances if utterance.split == "train"]
        if not train:
            raise UserError(f"{entry.path} has no training split")
        names.append([corpus.name, [utterance.id for utterance in corpus.utterances]])
        reader = MemoryWaveforms.preload if config.preload else FileWaveforms
        sources.append((entry, reader(train, sampling_rate)))
        held_out = [utterance for utterance in corpus.utterances if utterance.split == "validation"]
        if held_out:
            waveforms = [
                read_audio(utterance.path, sampling_rate) * entry.validation_gain
                for utterance in held_out[: entry.validation_limit]
            ]
            validation.append(ValidationSet(corpus.name, waveforms))

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
                )
                for entry, waveforms in sources
            ],
            [entry.weight for entry in config.corpora],
            seed=config.seed,
        )

    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]
    return TrainingData(segments=segments, validation=validation, digest=digest)
