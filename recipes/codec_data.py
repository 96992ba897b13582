"""The corpora of a codec's recipe, opened for its training."""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from codec.foundation import UserError, rank
from codec.training.batches import TrainingData
from codec.training.initialization import model_config
from codec.training.validation import ValidationSet
from data import AudioError, SegmentDataset, Utterance, open_corpus, read_audio, with_alignment
from data.segments import Labeller, MixedSegments, alphabet_of
from data.waveforms import FileWaveforms, MemoryWaveforms, Waveforms
from recipes.codec_recipe import CodecCorpus, CodecRecipe

_REFERENCE_SECONDS = 2.0  # of the same recording, from which a voice vector is taken in training


@dataclass
class Source:
    """An open corpus of a recipe."""

    entry: CodecCorpus
    name: str
    ids: list[str]  # of all its utterances
    hash: str  # over what it lists, wherever it lies
    train: list[Utterance]
    held_out: list[Utterance]  # for validation
    waveforms: Waveforms  # of `train`


def open_sources(corpora: Sequence[CodecCorpus], sampling_rate: int, preload: bool) -> list[Source]:
    """Open the corpora of a recipe.

    Raises UserError when one cannot be opened or none is given.
    """
    if not corpora:
        raise UserError("no corpora to train on: give some as --corpora or in the config file")
    sources = []
    for entry in corpora:
        corpus = open_corpus(entry.path, entry.format, options=entry.reading)
        if entry.alignment is not None:
            corpus = with_alignment(corpus, entry.alignment)
        train = [utterance for utterance in corpus.utterances if utterance.split == "train"]
        if not train:
            raise UserError(f"{entry.path} has no training split")
        held_out = [utterance for utterance in corpus.utterances if utterance.split == "validation"]
        waveforms = (MemoryWaveforms.preload if preload else FileWaveforms)(train, sampling_rate)
        _say_what_is_broken(entry.path, waveforms.failures)
        ids = [utterance.id for utterance in corpus.utterances]
        sources.append(Source(entry, corpus.name, ids, corpus.content_hash(), train, held_out, waveforms))
    return sources


def known_alphabet(sources: Sequence[Source], reader: str) -> str:
    """The characters of the corpora's texts; says which corpora's segments have none because words have no times."""
    for source in sources:
        if not any(utterance.words for utterance in source.train) and rank() == 0:
            print(
                f"{reader} learns from whole recordings alone in {source.entry.path}, whose words have no times: make "
                "some with codec-slm align and give them as its alignment",
                file=sys.stderr,
            )
    return alphabet_of([utterance for source in sources for utterance in source.train])


def mixed_segments(
    sources: Sequence[Source],
    sampling_rate: int,
    seconds: float,
    seed: int,
    alphabet: str = "",
    reference_seconds: float = 0.0,
    frame_samples: int = 0,
) -> MixedSegments:
    """Training segments of all corpora by their weights; with an alphabet they tell what is said."""
    return MixedSegments(
        [
            SegmentDataset(
                source.waveforms,
                sampling_rate,
                round(seconds * sampling_rate),
                seed=seed,
                gain_db=source.entry.gain_db,
                speaker_balance=source.entry.speaker_balance,
                labeller=Labeller(source.train, sampling_rate, alphabet) if alphabet else None,
                augmentation=source.entry.augmentation,
                reference_samples=round(reference_seconds * sampling_rate),
                frame_samples=frame_samples,
            )
            for source in sources
        ],
        [source.entry.weight for source in sources],
        seed=seed,
    )


def training_data(config: CodecRecipe) -> TrainingData:
    """Open what a codec's recipe trains on. Raises UserError as `open_sources`."""
    codec = model_config(config)
    sources = open_sources(config.corpora, codec.sampling_rate, config.preload)
    names: list[list[str | list[str]]] = []
    validation = []
    for source in sources:
        if source.held_out and source.entry.validation_limit > 0:
            namesakes = sum(other[0] == source.name for other in names)
            name = f"{source.name}-{namesakes + 1}" if namesakes else source.name
            waveforms = _validation_waveforms(source.held_out, source.entry, codec.sampling_rate)
            validation.append(ValidationSet(name, waveforms))
        names.append([source.name, source.ids])
    alphabet = known_alphabet(sources, "losses.ctc") if config.reads_transcripts else ""
    if alphabet:
        names.append(["alphabet", list(alphabet)])
    return TrainingData(
        segments=lambda seconds: mixed_segments(
            sources,
            codec.sampling_rate,
            seconds,
            config.seed,
            alphabet,
            _REFERENCE_SECONDS if codec.voice_dim else 0.0,
        ),
        validation=validation,
        digest=_digest([source.hash for source in sources]),
        older_digest=_digest(names),
        alphabet=alphabet,
    )


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _validation_waveforms(
    utterances: Sequence[Utterance], entry: CodecCorpus, sampling_rate: int
) -> list[Tensor]:
    """Up to `validation_limit` recordings, spread evenly over the corpus: neighbours share a speaker or a chapter."""
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
