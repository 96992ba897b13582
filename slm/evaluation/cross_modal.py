"""How much text tells a model about its speech, and speech about its text, in bits.

Four documents are read of every row: speech alone (`speech`), speech after its text (`tts`, or `aligned` where the
model was trained on that), text alone (`text`), and text after its speech (`asr`). The bits that the other modality
saves are the mutual information that the model uses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from codec.foundation import Progress, UserError
from codec.metrics import Interval, bootstrap_ratio
from data import TokenDataset
from slm.documents.config import DocumentConfig
from slm.documents.documents import Documents
from slm.documents.formats import SPEECH, TEXT, Document
from slm.documents.rows import TokenRows
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
from slm.models.likelihood import token_log_probabilities
from slm.vocabulary import Vocabulary

View = Literal["speech alone", "speech after its text", "text alone", "text after its speech"]
VIEWS: tuple[View, ...] = get_args(View)
SPLIT = "validation"
_DIRECTIONS: tuple[Direction, ...] = ("text for speech", "speech for text")


@dataclass(frozen=True)
class CrossModalRow:
    """A row of a token dataset as a model sees it."""

    index: int  # in the dataset
    speech_tokens: int
    characters: int  # of the text
    nats: dict[View, float]  # -log p of all speech tokens, or of all text tokens, their end not counted


@dataclass(frozen=True)
class CrossModalBits:
    """All rows together, with 95 % bootstrap intervals over rows; NaN for a view that the model does not have."""

    bits: dict[View, Interval]  # a speech token, or a character of text
    speech_saved: Interval  # bits a speech token that the text saves
    text_saved: Interval  # bits a character that the speech saves

    @classmethod
    def of(cls, rows: Sequence[CrossModalRow]) -> "CrossModalBits":
        """Of rows that have the same views."""
        return cls(
            {view: _bits(rows, {view: 1.0}) for view in VIEWS},
            _bits(rows, {"speech alone": 1.0, "speech after its text": -1.0}),
            _bits(rows, {"text alone": 1.0, "text after its speech": -1.0}),
        )


def formats_of(language_model: SpeechLM) -> dict[View, str]:
    """The document format of each view that this model has. Views of two modalities need training on their format."""
    capabilities = language_model.capabilities
    formats: dict[View, str] = {"speech alone": "speech"}
    if capabilities.speak_format is not None:
        formats["speech after its text"] = capabilities.speak_format
    formats["text alone"] = "text"
    if "asr" in capabilities.formats:
        formats["text after its speech"] = "asr"
    return formats


def unfamiliar_views(language_model: SpeechLM) -> list[View]:
    """Views of one modality that the model never saw in training. Their bits do not measure what it learned."""
    seen = set(language_model.capabilities.formats)
    # the text of a `tts` document stands before anything else, and so does the speech of an `asr` document
    familiar = {
        "speech alone": {"speech", "asr", "interleaved"},
        "text alone": {"text", "tts", "interleaved"},
    }
    return [view for view in VIEWS if view in familiar and not seen & familiar[view]]


def cross_modal_rows(
    language_model: SpeechLM,
    dataset: TokenRows,
    indices: Sequence[int],
    on_progress: Callable[[int], object] | None = None,
) -> list[CrossModalRow]:
    """Read some rows of a dataset in every view that the model has.

    These rows are skipped: without text or speech, longer than the model reads, and without word times where the model
    speaks in `aligned` documents. `on_progress` is called with the number of documents just read.
    """
    formats = formats_of(language_model)
    words = language_model.capabilities.words_per_span
    documents = {
        view: DocumentsByRow(dataset, language_model.vocabulary, format, words)
        for view, format in formats.items()
    }
    longest = language_model.model.config.max_position_embeddings
    kept = [
        index
        for index in indices
        if all(index in made and made.length(index) <= longest for made in documents.values())
    ]
    nats: dict[View, dict[int, float]] = {}
    for view, made in documents.items():
        told = token_log_probabilities(
            language_model.model,
            [made[index].targets for index in kept],
            language_model.vocabulary.pad_id,
            on_progress,
        )
        modality = SPEECH if view.startswith("speech") else TEXT
        nats[view] = {
            index: -float(values[made[index].modality[1:] == modality].sum())
            for index, values in zip(kept, told, strict=True)
        }
    speech = documents["speech alone"]
    return [
        CrossModalRow(
            index,
            int((speech[index].modality == SPEECH).sum()),
            len(dataset.text(index) or ""),
            {view: of_rows[index] for view, of_rows in nats.items()},
        )
        for index in kept
    ]


class DocumentsByRow:
    """The documents of one format by row, each made when it is asked for."""

    def __init__(
        self,
        dataset: TokenRows,
        vocabulary: Vocabulary,
        format: str,
        words_per_span: int,
        config: DocumentConfig | None = None,
    ):
        """`config` has what is not said here; every document has a voice tag where the model knows the voice."""
        config = replace(
            config or DocumentConfig(), formats={format: 1.0}, voice_tag_probability=1.0, prompt_probability=0.0,
            min_words=words_per_span, max_words=words_per_span,
        ).without_noise()  # fmt: skip
        self._documents = Documents([dataset], vocabulary, config, seed=0)
        self._plan = self._documents.plan(0)
        # a row that lacks what the format needs has become another
        own = np.flatnonzero(self._plan.formats == self._documents.format_names.index(format))
        self._places = {int(self._plan.rows[place]): int(place) for place in own}

    @property
    def rows(self) -> list[int]:
        """Of the dataset, in its order: those that have what the format needs."""
        return sorted(self._places)

    def __contains__(self, row: int) -> bool:
        return row in self._places

    def __getitem__(self, row: int) -> Document:
        return self._documents.build(0, self._places[row])

    def length(self, row: int) -> int:
        """Tokens of its document."""
        return int(self._plan.lengths[self._places[row]])


def _bits(rows: Sequence[CrossModalRow], signs: dict[View, float]) -> Interval:
    if not rows or any(view not in rows[0].nats for view in signs):
        return bootstrap_ratio(np.zeros(0), np.zeros(0))
    of_speech = next(iter(signs)).startswith("speech")
    bits = [sum(sign * row.nats[view] for view, sign in signs.items()) / log(2) for row in rows]
    units = [row.speech_tokens if of_speech else row.characters for row in rows]
    return bootstrap_ratio(np.array(bits), np.array(units))


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
    """Bits of a dataset's rows, and retrieval among `candidates` rows of about the same length.

    limit: read this many rows, evenly spread; all unless set. name: of the dataset in tables; that of its directory
    unless set. Raises UserError when no row is left.
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
