"""What all tokenizers of a study are given: recordings to train on, held-out ones, and what identifies them."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from codec.foundation import UserError
from data import Corpus, Utterance, audio_info, open_corpus
from recipes.study.config import StudyConfig

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


def open_material(config: StudyConfig) -> Material:
    """Read the corpus. Raises UserError where it lacks a split."""
    listing = open_corpus(config.corpus, format=config.format)
    training, held_out = listing.split("train"), listing.split("validation")
    if not training or not held_out:
        there = ", ".join(f"{name} ({count})" for name, count in listing.splits.items())
        raise UserError(
            f"{config.corpus}: a study trains on the train split and measures on the validation split, it has {there}; "
            "list the ids of some recordings in dev.txt beside metadata.csv, or say `split` in a manifest"
        )
    chosen = sorted([*spread(training, config.limit), *held_out], key=lambda utterance: utterance.id)
    corpus = replace(listing, utterances=chosen)
    seconds = {"train": 0.0, "validation": 0.0}
    for utterance in corpus.utterances:
        try:
            seconds[utterance.split] += audio_info(utterance.path).seconds
        except UserError:
            continue  # tokenizing names it, and counts it among the failures
    return Material(corpus, corpus.split("validation"), seconds, content_hash(corpus))


def spread(items: Sequence[Utterance], limit: int | None) -> list[Utterance]:
    """`limit` of the items, evenly over the list: corpora are sorted by speaker or book."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[number * len(items) // limit] for number in range(limit)]


def content_hash(corpus: Corpus) -> str:
    """16 hex digits over what a corpus lists and over the bytes of its files."""
    digest = hashlib.blake2b(corpus.content_hash().encode(), digest_size=8)
    for utterance in corpus.utterances:
        if isinstance(utterance.path, str | os.PathLike):
            try:
                with open(utterance.path, "rb") as file:
                    while part := file.read(_READ_AT_ONCE):
                        digest.update(part)
            except OSError:
                continue  # missing: the rest is still named by what is there
    return digest.hexdigest()


def part_of(corpus: Corpus, utterances: Sequence[Utterance]) -> Corpus:
    """A corpus of some of its utterances."""
    return replace(corpus, utterances=list(utterances))
