"""Token datasets as a speech language model sees them: speech and text, each with the other in view and without."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codec.foundation import Progress, UserError
from data import TokenDataset
from slm.evaluation.cross_modal import (
    VIEWS,
    CrossModalBits,
    CrossModalRow,
    View,
    cross_modal_rows,
    formats_of,
    unfamiliar_views,
)
from slm.evaluation.retrieval import (
    READERS,
    Direction,
    Reader,
    RetrievalAccuracy,
    RetrievalTrial,
    readers_of,
    retrieve,
)
from slm.generation.speech_lm import SpeechLM

SPLIT = "validation"
_DIRECTIONS: tuple[Direction, ...] = ("text for speech", "speech for text")


@dataclass(frozen=True)
class CrossModalResult:
    """What a model made of one token dataset."""

    name: str
    rows: list[CrossModalRow]
    ids: list[str]  # of the rows
    left_out: int  # rows without text, speech or word times, or longer than the model reads
    trials: list[RetrievalTrial]
    candidates: int
    formats: dict[View, str]  # the documents that were read
    unfamiliar: list[View]  # of which the model was trained on none

    @property
    def bits(self) -> CrossModalBits:
        """All rows together."""
        return CrossModalBits.of(self.rows)

    @property
    def retrieval(self) -> dict[tuple[Reader, Direction], RetrievalAccuracy]:
        """By the documents that were read and what was looked for."""
        found = {}
        for reader in READERS:
            for direction in _DIRECTIONS:
                own = [t for t in self.trials if (t.reader, t.direction) == (reader, direction)]
                if own:
                    found[reader, direction] = RetrievalAccuracy.of(own, self.candidates)
        return found

    @property
    def skipped(self) -> dict[str, str]:
        """What could not be asked, and why."""
        reasons = {}
        if missing := [view for view in VIEWS if view not in self.formats]:
            kinds = " and ".join("tts or aligned" if view.startswith("speech") else "asr" for view in missing)
            reasons[f"{' and '.join(missing)} of {self.name}"] = (
                f"the model was not trained on {kinds} documents"
            )
        elif not self.trials:
            reasons[f"retrieval in {self.name}"] = (
                f"fewer than {self.candidates} rows of different texts that the model can read"
            )
        return reasons


def open_rows(path: str, language_model: SpeechLM) -> TokenDataset:
    """The validation rows of a token dataset in the model's codes; of a single Parquet file, all.

    Raises UserError for what is no such dataset, and for one of another codec.
    """
    dataset = TokenDataset.open(path, SPLIT)
    language_model.vocabulary.codec.check_same(dataset.info, what=f"the token dataset {path}", as_many=True)
    return dataset


def evaluate_cross_modal(
    language_model: SpeechLM,
    dataset: TokenDataset,
    candidates: int = 10,
    limit: int | None = None,
    name: str | None = None,
) -> CrossModalResult:
    """Bits, and retrieval among `candidates` of about one length, over the rows or `limit` of them, evenly spread.

    `name` is what the dataset is called in tables, that of its directory unless set.
    Raises UserError when no row is left.
    """
    count = len(dataset) if limit is None else min(limit, len(dataset))
    indices = [number * len(dataset) // count for number in range(count)]
    formats, readers = formats_of(language_model), readers_of(language_model)
    total = len(indices) * (len(formats) + len(readers) * candidates)
    with Progress(total, unit="documents", label=f"reading {dataset.name}") as progress:
        rows = cross_modal_rows(language_model, dataset, indices, progress.update)
        if not rows:
            raise UserError(
                f"{dataset.name}: none of its {SPLIT} rows has a text and speech that the model can read"
                + ("; this model needs word times too" if "aligned" in formats.values() else "")
            )
        trials = retrieve(language_model, dataset, [row.index for row in rows], candidates, progress.update)
    return CrossModalResult(
        name=name or Path(dataset.name).name,
        rows=rows,
        ids=[dataset.id(row.index) for row in rows],
        left_out=len(indices) - len(rows),
        trials=trials,
        candidates=candidates,
        formats=formats,
        unfamiliar=unfamiliar_views(language_model),
    )


def cross_modal_table_rows(results: Sequence[CrossModalResult]) -> list[dict[str, Any]]:
    """One flat row a row of a dataset, for a table file."""
    table = []
    for result in results:
        scores = {(t.index, t.reader, t.direction): t.score for t in result.trials}
        groups = {trial.index: trial.group for trial in result.trials}
        for row, identity in zip(result.rows, result.ids, strict=True):
            table.append(
                {
                    "dataset": result.name,
                    "id": identity,
                    "speech_tokens": row.speech_tokens,
                    "characters": row.characters,
                    **{f"nats_{_key(view)}": row.nats.get(view) for view in VIEWS},
                    "group": groups.get(row.index),
                    **{
                        f"{_key(direction)}_reading_{_key(reader)}": scores.get(
                            (row.index, reader, direction)
                        )
                        for reader in READERS
                        for direction in _DIRECTIONS
                    },
                }
            )
    return table


def _key(name: str) -> str:
    """Of a column."""
    return name.replace(" ", "_")
