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
from slm.documents.rows import TokenRows
from slm.vocabulary import Vocabulary


@dataclass(frozen=True)
class RowSizes:
    """What lengths are computed from; all arrays are (rows,)."""

    keys: np.ndarray  # uint64, what the random streams of a row are named by
    text: np.ndarray  # int64, text tokens
    speech: np.ndarray  # int64, speech tokens
    units: np.ndarray  # int64, units of timed words


@dataclass(frozen=True)
class Row:
    """What a document is written from: a row of a dataset, its parts read when asked for."""

    dataset: TokenRows
    index: int
    key: np.ndarray  # (1,) uint64, the document's
    vocabulary: Vocabulary
    config: DocumentConfig
    draws: Draws

    @property
    def text(self) -> str:
        return self.dataset.text(self.index) or ""

    @property
    def text_ids(self) -> np.ndarray:  # (tokens,) int32
        return self.vocabulary.encode_text(self.text)

    @property
    def speech_ids(self) -> np.ndarray:  # (frames * vocabulary.num_quantizers,) int32
        return self.vocabulary.codes_to_ids(self.dataset.codes(self.index))

    @property
    def words(self) -> Sequence[tuple[str, float, float]]:
        return self.dataset.words(self.index) or []


@dataclass(frozen=True)
class Format:
    """A document format.

    Attributes:
        length: tokens of the documents of many rows, (rows,) int64, without what stands before (tag, prompt).
        write: appends a document to a writer.
        needs_text, needs_speech, needs_words: what a row must have.
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
    voiced: bool = False
    prompted: bool = False
    otherwise: tuple[str, ...] = ()


FORMATS: dict[str, Format] = {}


def register(format: Format) -> None:
    """Makes a format known by its name."""
    FORMATS[format.name] = format


# <|speech|> s… <|eos|>


def _speech_length(rows: RowSizes, config: DocumentConfig, draws: Draws) -> np.ndarray:
    return rows.speech + 2


def write_speech(out: DocumentWriter, row: Row) -> None:
    out.control(row.vocabulary.speech_id)
    out.speech(row.speech_ids, 1.0)
    out.control(row.vocabulary.eos_id, 1.0)


# <|text|> t… <|eos|>


def _text_length(rows: RowSizes, config: DocumentConfig, draws: Draws) -> np.ndarray:
    return rows.text + 2


def _write_text(out: DocumentWriter, row: Row) -> None:
    out.control(row.vocabulary.text_id)
    out.text(row.text_ids, 1.0)
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
