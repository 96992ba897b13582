"""The data of a run: datasets, vocabulary, and the documents of each phase."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from codec import CodecInfo, load_codec
from codec.foundation import UserError
from data import TokenDataset
from data.token_dataset import TokenStream, is_address
from slm.array_cache import cache_root
from slm.documents.config import TextDatasetConfig, ValidationConfig
from slm.documents.documents import Documents
from slm.documents.rows import Source, TextRows, TokenRows, speaker_numbers
from slm.documents.text_dataset import open_texts
from slm.models.checkpoint import SpeechCapabilities
from slm.models.warm_start import Start
from slm.packing.blocks import BlockStream, PackedBlocks, StreamPosition
from slm.packing.shard_windows import BlocksAhead, ShardWindows, StreamedSource
from slm.training.config import DatasetConfig, SLMTrainingConfig
from slm.training.report import check_formats, report_epoch
from slm.vocabulary import Vocabulary


@dataclass(frozen=True)
class TrainingData:
    """The datasets of a run, opened and checked against each other."""

    config: SLMTrainingConfig
    training: Sequence[TokenRows]  # a streamed dataset: its first shard
    hashes: list[str]  # one for each of the config's sources: what a checkpoint was trained on
    validation: Mapping[str, TokenRows | TextRows]  # by name, or path; see `SLMTrainingConfig.validation`
    vocabulary: Vocabulary
    codebooks: list[Tensor] | None = None  # effective codebooks, where the config asks for them
    texts: Sequence[TextRows] = ()
    streams: Mapping[int, TokenStream] = field(default_factory=dict)  # by number in the config's datasets

    def stream(self, phase: int, position: StreamPosition, rank: int, num_processes: int) -> BlockStream:
        """The blocks of one phase: 0 before the decay, 1 in it if it has a mixture of its own."""
        config = self.config
        return BlockStream(
            self._blocks(decay=phase == 1),
            config.batch.blocks,
            position,
            rank,
            num_processes,
            config.workers,
        )

    def validation_blocks(self) -> dict[str, PackedBlocks]:
        """The blocks of each validation set: always the same, without corruption."""
        config = self.config
        entries = config.validation
        if entries is None:
            entries = {
                entry.path: ValidationConfig(entry.path, voice=entry.voice) for entry in config.datasets
            }
        sets = {}
        for name, dataset in self.validation.items():
            documents = config.documents.without_noise()
            if (formats := entries[name].formats) is not None:
                documents = replace(documents, formats=formats)
            source = Source(dataset, voice=entries[name].voice)
            sets[name] = PackedBlocks(
                Documents([source], self.vocabulary, documents, config.seed, longest=config.batch.length),
                config.batch.length,
                epoch=0,
            )
        return sets

    def report(self, phase: int, blocks: PackedBlocks) -> tuple[list[str], dict[str, float]]:
        """What is trained on in one phase, by the blocks of its first epoch; see `report_epoch`.

        Raises UserError for a format that no row can become.
        """
        config, decay = self.config, phase == 1
        counts = blocks.documents.counts(blocks.epoch)
        if self.streams:  # of a window; the next may hold what this one lacks
            names = [dataset_name(source.dataset.name) for source in blocks.documents.sources]
            return report_epoch(blocks, counts, names, [None] * len(names), None)
        check_formats(blocks.documents, counts)
        names = [dataset_name(entry.path) for entry in config.sources]
        names = [f"{name}-{n}" if names.count(name) > 1 else name for n, name in enumerate(names)]
        return report_epoch(blocks, counts, names, config.weights(decay), config.token_budget(decay))

    def _blocks(self, decay: bool) -> Callable[[int], PackedBlocks]:
        """A function that makes the blocks of an epoch, or of a window of a streamed dataset."""
        config = self.config
        sources = self._sources(decay)
        documents = (config.decay_documents if decay else None) or config.documents
        # Another seed, or the decay would begin with the documents of the first phase.
        seed = config.seed + 0x9E3779B9 if decay else config.seed
        if self.streams:
            streamed = [
                StreamedSource(self.streams[number], source.weight, source.voice)
                if number in self.streams
                else source
                for number, source in enumerate(sources)
            ]
            windows = ShardWindows(
                streamed, self.vocabulary, documents, seed, config.window_shards, config.batch.length
            )
            return BlocksAhead(windows, config.batch.length)
        built = Documents(
            sources, self.vocabulary, documents, seed, config.token_budget(decay), config.batch.length
        )
        return lambda epoch: PackedBlocks(built, config.batch.length, epoch)

    def _sources(self, decay: bool) -> list[Source]:
        config = self.config
        datasets: list[TokenRows | TextRows] = [*self.training, *self.texts]
        entries = zip(datasets, config.sources, config.weights(decay), strict=True)
        return [
            Source(
                dataset,
                weight,
                entry.voice if isinstance(entry, DatasetConfig) else None,
                self._epochs(entry, decay),
            )
            for dataset, entry, weight in entries
        ]

    def _epochs(self, entry: DatasetConfig | TextDatasetConfig, decay: bool) -> float | None:
        """How often a source's rows may come in one phase, in proportion to its length."""
        config = self.config
        if entry.max_epochs is None or not config.decay_changes_data:
            return entry.max_epochs
        weights = {
            False: entry.weight,
            True: entry.weight if entry.decay_weight is None else entry.decay_weight,
        }
        lengths = {phase: config.token_budget(phase) or 0 for phase, weight in weights.items() if weight != 0}
        return entry.max_epochs * lengths.get(decay, 0) / max(sum(lengths.values()), 1)


def open_training_data(config: SLMTrainingConfig) -> TrainingData:
    """Open the datasets that a config names.

    Raises UserError when something is missing, or when the datasets come from different codecs.
    """
    streams = {
        number: TokenStream(entry.path, cache_root() / "shards")
        for number, entry in enumerate(config.datasets)
        if is_address(entry.path)
    }
    training = [
        streams[number].open("train", [0]) if number in streams else _open_tokens(entry.path, "train")
        for number, entry in enumerate(config.datasets)
    ]
    info = training[0].info
    for dataset, entry in zip(training, config.datasets, strict=True):
        info.check_same(dataset.info, what=entry.path, as_many=True)
    start = None if config.start_from is None else Start.open(config.start_from)
    embeddings = config.model.speech_embeddings if start is None else start.speech_embeddings(info)
    codebooks = _codebooks(config, training[0]) if embeddings == "codebook" else None
    voices = config.voices
    if voices is None:
        known = [] if start is None else start.known_voices()
        voices = list(dict.fromkeys([*known, *_speakers(config, training)]))
    if start is None:
        assert config.text_model is not None  # the config has one of the two
        vocabulary = Vocabulary.build(config.text_model, info, voices, config.max_quantizers, config.codec)
    else:
        vocabulary = start.extended_vocabulary(info, voices, config.max_quantizers, config.codec)
    vocabulary.voice_vectors |= _voice_vectors(config, training, voices)
    longest = config.batch.length - 2  # <|text|> and <|eos|>
    texts = [open_texts(entry, vocabulary, longest) for entry in config.texts]
    return TrainingData(
        config,
        training,
        [*(dataset.content_hash for dataset in training), *(rows.content_hash for rows in texts)],
        _open_validation(config, training, vocabulary, longest),
        vocabulary,
        codebooks,
        texts,
        streams,
    )


def _open_tokens(path: str, split: str) -> TokenDataset:
    if is_address(path):
        return TokenStream(path, cache_root() / "shards").open(split)
    return TokenDataset.open(path, split)


def _open_validation(
    config: SLMTrainingConfig, training: Sequence[TokenDataset], vocabulary: Vocabulary, longest: int
) -> dict[str, TokenRows | TextRows]:
    if config.validation is None:
        return {
            entry.path: _open_tokens(entry.path, "validation")
            for entry, dataset in zip(config.datasets, training, strict=True)
            if "validation" in dataset.splits
        }
    opened: dict[str, TokenRows | TextRows] = {}
    for name, entry in config.validation.items():
        if entry.column is None:
            rows = _open_tokens(entry.path, entry.split)
            vocabulary.codec.check_same(rows.info, what=entry.path, as_many=True)
            opened[name] = rows
        else:
            texts = TextDatasetConfig(entry.path, entry.name, split=entry.split, column=entry.column)
            opened[name] = open_texts(texts, vocabulary, longest)
    return opened


def _codebooks(config: SLMTrainingConfig, dataset: TokenDataset) -> list[Tensor]:
    location = config.codec or dataset.info.name
    codec = load_codec(location)
    CodecInfo.of(codec).check_same(dataset.info, what=config.datasets[0].path)
    count = min(config.max_quantizers or dataset.info.num_quantizers, dataset.info.num_quantizers)
    return [codec.effective_codebook(quantizer).detach().clone() for quantizer in range(count)]


_MOST_VOICES = 256
_VOICED_ROWS = 200  # of each speaker, for the mean of their voice vectors
_TIMED_ROWS = 2000  # of each dataset, to measure how fast its speakers speak


def _voice_vectors(
    config: SLMTrainingConfig, datasets: Sequence[TokenRows], voices: Collection[str]
) -> dict[str, list[float]]:
    """The mean voice vector of each voice, over some of its rows; of none without a column for it."""
    found: dict[str, list[np.ndarray]] = {}
    for entry, dataset in zip(config.datasets, datasets, strict=True):
        if isinstance(dataset, TokenDataset) and dataset.info.voice_dim:
            numbers, names = speaker_numbers(dataset, entry.voice)
            for number, name in enumerate(names):
                if name in voices:
                    vectors = [dataset.voice(row) for row in np.flatnonzero(numbers == number)[:_VOICED_ROWS]]
                    found.setdefault(name, []).extend(vector for vector in vectors if vector is not None)
    return {
        name: [round(float(number), 4) for number in np.mean(vectors, axis=0)]
        for name, vectors in found.items()
        if vectors
    }


def _speakers(config: SLMTrainingConfig, datasets: Sequence[TokenRows]) -> list[str]:
    """The speakers of the training datasets, by name."""
    names: set[str] = set()
    for entry, dataset in zip(config.datasets, datasets, strict=True):
        numbers, of_dataset = speaker_numbers(dataset, entry.voice)
        names.update(of_dataset[number] for number in np.unique(numbers).tolist() if number >= 0)
    if len(names) > _MOST_VOICES:
        raise UserError(
            f"the datasets have {len(names)} speakers, too many for a tag each: name those that get one in "
            "voices, or give an empty list and use prompts"
        )
    return sorted(names)


def speech_capabilities(data: TrainingData) -> SpeechCapabilities:
    """What generation must know of the data: the prompt formats, and how long a character takes to say."""
    config = data.config
    documents = (config.decay_documents if config.decay_changes_data else None) or config.documents
    formats = [name for name, weight in documents.formats.items() if weight > 0]
    speeds: list[float] = []
    languages: Counter[str] = Counter()
    for dataset in data.training:
        seconds = dataset.lengths / (dataset.info.num_quantizers * dataset.info.frame_rate)
        for row in range(0, len(dataset), -(-len(dataset) // _TIMED_ROWS) or 1):
            text = dataset.text(row)
            if text and seconds[row]:
                speeds.append(float(seconds[row]) / len(text))
                languages[(dataset.language(row) or "en").partition("-")[0].lower()] += 1
    return SpeechCapabilities(
        formats=formats,
        words_per_span=max(1, (documents.min_words + documents.max_words) // 2),
        prompts=documents.prompt_probability > 0,
        seconds_per_character=np.quantile(speeds, [0.01, 0.5, 0.99]).tolist() if speeds else None,
        language=languages.most_common(1)[0][0] if languages else "en",
    )


def dataset_name(path: str) -> str:
    """Name of a dataset in logs: that of its directory."""
    return Path(path).name or path
