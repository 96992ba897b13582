"""What the commands that measure have in common: what is taken of a corpus, judges, and what is said at the end."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec.foundation import UserError

if TYPE_CHECKING:
    from codec.metrics import Judge
    from data import Corpus, Utterance

MEASURED_WITH = ("pystoi", "pesq", "pyworld", "jiwer", "pocketsphinx", "speechmos", "onnxruntime")
NO_SPEAKER_MODEL = "no model: --speaker_model, such as microsoft/wavlm-base-plus-sv"


def utmos_judge(weights: Path | None, device: str) -> "tuple[list[Judge], dict[str, str]]":
    """UTMOS where its weights were given, and what it takes where they were not."""
    from codec.metrics import UTMOS

    if weights is not None:
        return [UTMOS(weights, device)], {}
    return [], {"UTMOS": "no weights: --utmos utmos22_strong_step7459_v1.pt of github.com/tarepan/SpeechMOS"}


def say_what_is_missing(skipped: dict[str, str]) -> None:
    """A line for each."""
    for name, reason in skipped.items():
        print(f"not measured: {name} ({reason})")


def of_split(listing: "Corpus", location: str, split: str, flag: str) -> "list[Utterance]":
    """The utterances of a split. Raises UserError where there are none; `flag` chooses another."""
    utterances = listing.split(split)
    if not utterances:
        there = ", ".join(f"{name} ({count})" for name, count in listing.splits.items())
        raise UserError(f"{location} has no {split} split: it has {there}; choose one with {flag}")
    return utterances


def spread(items: list[Any], limit: int | None) -> list[Any]:
    """`limit` of the items, evenly over the list: corpora are sorted by speaker or book."""
    if limit is None or limit >= len(items):
        return items
    if limit < 1:
        raise UserError(f"limit is {limit}: it must be at least 1")
    return [items[i * len(items) // limit] for i in range(limit)]
