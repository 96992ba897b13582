"""What whole held-out recordings cost a language model, each by itself: never cut, and no two read as one."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codec.foundation import Progress
from data import TokenDataset
from recipes.study.training import ALONE, READ, read_format
from slm.documents import SPEECH, Document, DocumentConfig, Documents
from slm.evaluation.reading import token_log_probabilities
from slm.models.checkpoint import SpeakingHabits, load_checkpoint
from slm.vocabulary import Vocabulary

_BARE_SPEECH = {"speech", "asr", "interleaved"}  # documents that have speech with nothing before it
_ROWS_AT_ONCE = 256  # whose documents are held in memory


def predict(
    checkpoint: Path, dataset: Path, documents: DocumentConfig, block_length: int, device: str
) -> dict[str, Any]:
    """Bits of the speech of every validation row, in a document of its own: alone, and given its text.

    The end of the speech does not count, nor does anything but speech. None in place of bits: the row has no text (no
    word times, where the model speaks in `aligned` documents), or has more tokens than the model has positions.
    """
    rows = TokenDataset.open(dataset, "validation")
    vocabulary = Vocabulary.from_pretrained(checkpoint)
    model = load_checkpoint(checkpoint, device, torch.float32)
    longest = int(model.config.max_position_embeddings)
    words = SpeakingHabits.read(checkpoint).words_per_span
    taught = {name for name, weight in documents.formats.items() if weight > 0}
    formats = {ALONE: "speech"}
    if (name := read_format(documents.formats)) is not None:
        formats[READ] = name
    views: dict[str, Any] = {}
    with Progress(len(rows) * len(formats), unit="documents", label="predicting") as progress:
        for view, name in formats.items():
            config = replace(
                documents, formats={name: 1.0}, voice_tag_probability=1.0, prompt_probability=0.0,
                min_words=words, max_words=words,
            ).without_noise()  # fmt: skip
            made = _Made(Documents([rows], vocabulary, config, seed=0), name)
            fitting = [row for row in made.rows if made.length(row) <= longest]
            bits: list[float | None] = [None] * len(rows)
            progress.update(len(rows) - len(fitting))
            for part in _parts(fitting):
                built = [made.build(row) for row in part]
                told = token_log_probabilities(
                    model, [document.targets for document in built], vocabulary.pad_id, progress.update
                )
                for row, document, nats in zip(part, built, told, strict=True):
                    bits[row] = -float(nats[document.modality[1:] == SPEECH].sum()) / log(2)
            views[view] = {
                "document": name,
                "trained_on": bool(taught & ({name} if view == READ else _BARE_SPEECH)),
                "bits": bits,
                "too_long": len(made.rows) - len(fitting),
                "without_text": len(rows) - len(made.rows),
                "beyond_block": sum(made.length(row) > block_length for row in fitting),
            }
    return {
        "ids": [rows.id(row) for row in range(len(rows))],
        "seconds": [rows.seconds(row) for row in range(len(rows))],
        "positions": longest,
        "views": views,
    }


class _Made:
    """The documents of one format. A row that lacks what the format needs became another: it has none here."""

    def __init__(self, documents: Documents, name: str):
        self._documents = documents
        self._plan = documents.plan(0)
        wanted = np.flatnonzero(self._plan.formats == documents.format_names.index(name))
        self._places = {int(self._plan.rows[place]): int(place) for place in wanted}

    @property
    def rows(self) -> list[int]:
        """Of the dataset, in its order."""
        return sorted(self._places)

    def length(self, row: int) -> int:
        """Tokens of its document."""
        return int(self._plan.lengths[self._places[row]])

    def build(self, row: int) -> Document:
        return self._documents.build(0, self._places[row])


def _parts(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows[start : start + _ROWS_AT_ONCE]
