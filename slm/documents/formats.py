"""The document formats: what each needs of a row, how long it gets, and how it is written.

A format is two small functions registered by name. `length` is vectorised over rows, so that an epoch can
be packed without building a document; `write` builds one. Both see the same random streams.

What starts a part (`<|text|>`, `<|speech|>` at the beginning, voice tags) is given when generating and has
no loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from slm.documents.alignment import cut_frames, match_words
from slm.documents.config import DocumentConfig
from slm.documents.document import DocumentWriter
from slm.documents.draws import Draws, below, numbers
from slm.documents.rows import RowTable, TextsNeeded, TokenRows
from slm.documents.text_rows import TextRows
from slm.vocabulary import Vocabulary


@dataclass(frozen=True)
class RowSizes:
    """What lengths are computed from; all arrays are (rows,)."""

    keys: np.ndarray  # uint64, what the random streams of a row are named by
    text: np.ndarray  # int64, text tokens
    speech: np.ndarray  # int64, speech tokens
    units: np.ndarray  # int64, units of timed words
    rows: np.ndarray  # int64, where in the table of all rows they are
    table: RowTable


@dataclass(frozen=True)
class Row:
    """What a document is written from: a row of a dataset, its parts read when asked for."""

    dataset: TokenRows | TextRows
    index: int
    key: np.ndarray  # (1,) uint64, the document's
    vocabulary: Vocabulary
    config: DocumentConfig
    draws: Draws

    @property
    def speech(self) -> TokenRows:
        """The dataset, of a row that has more than text."""
        assert not isinstance(self.dataset, TextRows), "a row of text alone is only given to the format text"
        return self.dataset

    @property
    def text(self) -> str:
        return self.speech.text(self.index) or ""

    @property
    def text_ids(self) -> np.ndarray:  # (tokens,) int32
        if isinstance(self.dataset, TextRows):
            return self.dataset.ids(self.index)
        return self.vocabulary.encode_text(self.text)

    @property
    def text_continues(self) -> bool:
        """Whether the text goes on in the next row."""
        return isinstance(self.dataset, TextRows) and bool(self.dataset.continues[self.index])

    @property
    def speech_ids(self) -> np.ndarray:  # (frames * vocabulary.num_quantizers,) int32
        return self.vocabulary.codes_to_ids(self.speech.codes(self.index))

    @property
    def words(self) -> Sequence[tuple[str, float | None, float | None]]:
        return self.speech.words(self.index) or []


@dataclass(frozen=True)
class Format:
    """A document format.

    Attributes:
        length: tokens of the documents of many rows, (rows,) int64, without what stands before (tag, prompt).
        write: appends a document to a writer.
        needs_text, needs_speech: what a row must have.
        needs_words: words that spell its text, no more than it has frames.
        needs_placed: words that spell its text, one of them at least with frames of its own.
        voiced: a voice tag may stand before it.
        prompted: a prompt utterance may stand before it.
        otherwise: formats to try, in this order, for a row that lacks something.
    """

    name: str
    length: Callable[[RowSizes, DocumentConfig, Draws], np.ndarray]
    write: Callable[[DocumentWriter, Row], None]
    needs_text: bool = False
    needs_speech: bool = False
    needs_words: bool = False
    needs_placed: bool = False
    voiced: bool = False
    prompted: bool = False
    otherwise: tuple[str, ...] = ()


FORMATS: dict[str, Format] = {}


def register(format: Format) -> None:
    """Makes a format known by its name."""
    FORMATS[format.name] = format


def texts_needed(config: DocumentConfig) -> TextsNeeded:
    """What the documents of a config need to know of texts."""
    wanted = [FORMATS[name] for name, weight in config.formats.items() if weight]
    return TextsNeeded(
        text=any(format.needs_text for format in wanted),
        words=any(format.needs_words for format in wanted),
        frames=any(format.needs_placed for format in wanted),
    )


# <|speech|> s… <|eos|>


def _speech_length(rows: RowSizes, config: DocumentConfig, draws: Draws) -> np.ndarray:
    return rows.speech + 2


def write_speech(out: DocumentWriter, row: Row) -> None:
    out.control(row.vocabulary.speech_id)
    out.speech(row.speech_ids, 1.0)
    out.control(row.vocabulary.eos_id, 1.0)


# <|text|> t… <|eos|>; a part of a long text that others follow has no <|eos|>


def _text_length(rows: RowSizes, config: DocumentConfig, draws: Draws) -> np.ndarray:
    return rows.text + 2 - rows.table.continues[rows.rows]


def _write_text(out: DocumentWriter, row: Row) -> None:
    out.control(row.vocabulary.text_id)
    out.text(row.text_ids, 1.0)
    if not row.text_continues:
        out.control(row.vocabulary.eos_id, 1.0)


# <|text|> t… <|speech|> s… <|eos|>


def _both_length(rows: RowSizes, config: DocumentConfig, draws: Draws) -> np.ndarray:
    return rows.text + rows.speech + 3


def write_tts(out: DocumentWriter, row: Row) -> None:
    weight = row.config.text_loss_weight
    out.control(row.vocabulary.text_id)
    out.text(row.text_ids, weight)
    out.control(row.vocabulary.speech_id, weight)  # says that the text ends here
    out.speech(row.speech_ids, 1.0)
    out.control(row.vocabulary.eos_id, 1.0)


# <|speech|> s… <|text|> t… <|eos|>


def _write_asr(out: DocumentWriter, row: Row) -> None:
    weight = row.config.speech_loss_weight
    out.control(row.vocabulary.speech_id)
    out.speech(row.speech_ids, weight)
    out.control(row.vocabulary.text_id, weight)
    out.text(row.text_ids, 1.0)
    out.control(row.vocabulary.eos_id, 1.0)


# <|text|> t… <|speech|> s… <|text|> t… <|speech|> s… … <|eos|>


def _aligned_length(rows: RowSizes, config: DocumentConfig, draws: Draws) -> np.ndarray:
    return rows.text + rows.speech + 2 * _count_spans(rows.keys, rows.units, config, draws) + 1


def _write_aligned(out: DocumentWriter, row: Row) -> None:
    vocabulary, weight = row.vocabulary, row.config.text_loss_weight
    text, speech_ids = row.text, row.speech_ids
    timed = match_words(text, row.words)
    assert timed is not None, "a row is only given to this format when its words match"
    firsts = _first_units(row.key, len(timed.seconds), row.config, row.draws)
    frames = len(speech_ids) // vocabulary.num_quantizers
    cuts = cut_frames(timed.seconds[firsts], frames, vocabulary.codec.frame_rate)
    speech_cuts = cuts * vocabulary.num_quantizers
    text_ids, piece_starts = vocabulary.encode_text_and_words(text)
    text_cuts = piece_starts[timed.first_piece[firsts[1:]]]
    spans = zip(_split(text_ids, text_cuts), _split(speech_ids, speech_cuts), strict=True)
    for span, (span_text, span_speech) in enumerate(spans):
        # The first <|text|> is given; a later one is the model's own word that a span's speech is over.
        out.control(vocabulary.text_id, 1.0 if span else 0.0)
        out.text(span_text, weight)
        out.control(vocabulary.speech_id, weight)
        out.speech(span_speech, 1.0)
    out.control(vocabulary.eos_id, 1.0)


def _split(ids: np.ndarray, cuts: np.ndarray) -> list[np.ndarray]:
    bounds = [0, *cuts.tolist(), len(ids)]
    return [ids[start:end] for start, end in pairwise(bounds)]


def _span_sizes(streams: np.ndarray, counters: int | np.ndarray, config: DocumentConfig) -> np.ndarray:
    return config.min_words + below(numbers(streams, counters), config.max_words - config.min_words + 1)


def _first_units(key: np.ndarray, units: int, config: DocumentConfig, draws: Draws) -> np.ndarray:
    """The first unit of each span of one row, (spans,) int64."""
    sizes = _span_sizes(draws.streams("spans", key), np.arange(units), config)
    firsts = np.concatenate([[0], np.cumsum(sizes)])
    return firsts[firsts < units]


def _count_spans(keys: np.ndarray, units: np.ndarray, config: DocumentConfig, draws: Draws) -> np.ndarray:
    """How many spans `_first_units` gives for each of many rows, (rows,) int64."""
    streams = draws.streams("spans", keys)
    left = np.array(units, dtype=np.int64)
    counts = np.zeros(len(left), dtype=np.int64)
    open_rows = np.flatnonzero(left > 0)
    counter = 0
    while open_rows.size:
        counts[open_rows] += 1
        left[open_rows] -= _span_sizes(streams[open_rows], counter, config)
        open_rows = open_rows[left[open_rows] > 0]
        counter += 1
    return counts


register(Format("speech", _speech_length, write_speech, needs_speech=True, voiced=True, otherwise=("text",)))
register(Format("text", _text_length, _write_text, needs_text=True, otherwise=("speech",)))
register(
    Format(
        "tts",
        _both_length,
        write_tts,
        needs_text=True,
        needs_speech=True,
        voiced=True,
        prompted=True,
        otherwise=("speech", "text"),
    )
)
register(
    Format("asr", _both_length, _write_asr, needs_text=True, needs_speech=True, otherwise=("speech", "text"))
)
register(
    Format(
        "aligned",
        _aligned_length,
        _write_aligned,
        needs_text=True,
        needs_speech=True,
        needs_words=True,
        voiced=True,
        prompted=True,
        otherwise=("tts", "speech", "text"),
    )
)
