"""What a run trains on: datasets, vocabulary, and the documents of each phase."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from codec.runs import UserError
from slm.block_stream import BlockStream, StreamPosition
from slm.blocks import PackedBlocks
from slm.checkpoint import SpeakingHabits
from slm.documents import Documents, Source, TokenRows
from slm.training_config import SLMTrainingConfig
from slm.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

    from data import TokenDataset


@dataclass(frozen=True)
class TrainingData:
    """The datasets of a run, opened and checked against each other."""

    config: SLMTrainingConfig
    training: Sequence[TokenRows]
    hashes: list[str]  # one for each training dataset: what a checkpoint was trained on
    validation: Mapping[str, TokenRows]  # by path; datasets without a validation split are left out
    vocabulary: Vocabulary
    codebooks: "list[Tensor] | None" = None  # effective codebooks, where the config asks for them

    def stream(self, phase: int, position: StreamPosition, rank: int, num_processes: int) -> BlockStream:
        """The blocks of one phase: 0 before the decay, 1 in it if it has a mixture of its own."""
        config = self.config
        documents = Documents(
            _sources(config, self.training, config.weights(decay=phase == 1)),
            self.vocabulary,
            (config.decay_documents if phase == 1 else None) or config.documents,
            # Phases draw differently, or the second would begin with the documents of the first.
            seed=config.seed if phase == 0 else config.seed + 0x9E3779B9,
        )
        return BlockStream(
            lambda epoch: PackedBlocks(documents, config.batch.length, epoch),
            config.batch.blocks,
            position,
            rank,
            num_processes,
            config.workers,
        )

    def validation_blocks(self) -> dict[str, PackedBlocks]:
        """The blocks of each validation split: always the same ones, nothing corrupted."""
        config = self.config
        voices = {entry.path: entry.voice for entry in config.datasets}
        return {
            name: PackedBlocks(
                Documents(
                    [Source(dataset, voice=voices[name])],
                    self.vocabulary,
                    config.documents.without_noise(),
                    seed=config.seed,
                ),
                config.batch.length,
                epoch=0,
            )
            for name, dataset in self.validation.items()
        }


def open_training_data(config: SLMTrainingConfig) -> TrainingData:
    """Open what a config names.

    Raises UserError when something is missing or not of one codec.
    """
    from data import TokenDataset

    training = [TokenDataset.open(entry.path, split="train") for entry in config.datasets]
    info = training[0].info
    for dataset, entry in zip(training, config.datasets, strict=True):
        info.check_same(dataset.info, what=entry.path)
    validation = {}
    for entry, dataset in zip(config.datasets, training, strict=True):
        if "validation" in dataset.splits:
            validation[entry.path] = TokenDataset.open(entry.path, split="validation")
    codebooks = None
    if config.model.speech_embeddings == "codebook":
        codebooks = _codebooks(config, training[0])
    vocabulary = Vocabulary.build(
        config.text_model,
        info,
        voices=_speakers(config, training) if config.voices is None else config.voices,
        max_quantizers=config.max_quantizers,
        codec_location=config.codec,
    )
    return TrainingData(
        config, training, [dataset.content_hash for dataset in training], validation, vocabulary, codebooks
    )


def _codebooks(config: SLMTrainingConfig, dataset: "TokenDataset") -> "list[Tensor]":
    from codec import CodecInfo, load_codec

    location = config.codec or dataset.info.name
    codec = load_codec(location)
    CodecInfo.of(codec).check_same(dataset.info, what=config.datasets[0].path)
    count = min(config.max_quantizers or dataset.info.num_quantizers, dataset.info.num_quantizers)
    return [codec.effective_codebook(quantizer).detach().clone() for quantizer in range(count)]


_MOST_VOICES = 256
_TIMED_ROWS = 2000  # of each dataset, for how fast its speakers speak


def _speakers(config: SLMTrainingConfig, datasets: Sequence[TokenRows]) -> list[str]:
    """Everybody who speaks in the training datasets, by name."""
    names: set[str] = set()
    for entry, dataset in zip(config.datasets, datasets, strict=True):
        names.update(dataset.speaker(row) or entry.voice or "" for row in range(len(dataset)))
    names.discard("")
    if len(names) > _MOST_VOICES:
        raise UserError(
            f"the datasets have {len(names)} speakers, too many for a tag each: name those that shall have one in "
            "voices, or give an empty list and use prompts"
        )
    return sorted(names)


def speaking_habits(data: TrainingData) -> SpeakingHabits:
    """What generation has to know of the data: how speech was asked for, and how long a character lasts."""
    config = data.config
    documents = (config.decay_documents if config.decay_changes_data else None) or config.documents
    formats = [name for name, weight in documents.formats.items() if weight > 0]
    speeds: list[float] = []
    for dataset in data.training:
        seconds = dataset.lengths / (dataset.info.num_quantizers * dataset.info.frame_rate)
        for row in range(0, len(dataset), -(-len(dataset) // _TIMED_ROWS) or 1):
            text = dataset.text(row)
            if text and seconds[row]:
                speeds.append(float(seconds[row]) / len(text))
    return SpeakingHabits(
        formats=formats,
        words_per_span=max(1, (documents.min_words + documents.max_words) // 2),
        prompts=documents.prompt_probability > 0,
        seconds_per_character=np.quantile(speeds, [0.01, 0.5, 0.99]).tolist() if speeds else None,
    )


def _sources(
    config: SLMTrainingConfig, datasets: Sequence[TokenRows], weights: list[float | None]
) -> list[Source]:
    return [
        Source(dataset, weight, entry.voice)
        for dataset, weight, entry in zip(datasets, weights, config.datasets, strict=True)
    ]


def dataset_name(path: str) -> str:
    """How a dataset is called in logs: its directory's name."""
    return Path(path).name or path
