"""Documents and their formats: what each format needs of a row, how long it gets, and how it is written.

A format has two small functions. `length` is vectorised over rows, so that an epoch can be packed without building a
document; `write` builds one. Both see the same random streams. The token that starts a part (`<|text|>`, `<|speech|>`
at the beginning, voice tags) is given when generating and has no loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from slm.documents.config import DocumentConfig
from slm.documents.rows import RowTable, TextRows, TextsNeeded, TokenRows
from slm.documents.spans import Draws, count_spans, first_units, spoken_words
from slm.documents.word_frames import TimedWord, assign_frames, cut_points
from slm.vocabulary import Vocabulary, split_words

_ROWS_AT_ONCE = 1 << 16  # in `interleaved`, whose rows have several times as many words

CONTROL, TEXT, SPEECH = 0, 1, 2


@dataclass(frozen=True)
class Document:
    """A sequence of text and speech tokens; all arrays are (tokens,)."""

    input_ids: np.ndarray  # int32, what the model sees
    targets: np.ndarray  # int32, what it has to predict there: the same but for corrupted speech tokens
    loss_weights: np.ndarray  # float32, weight of predicting this token; 0 for the first
    modality: np.ndarray  # uint8, CONTROL, TEXT or SPEECH

    def __len__(self) -> int:
        return len(self.input_ids)


class DocumentWriter:
    """Puts a document together from pieces, each of one modality and one loss weight.

    `weight_scale` multiplies the weights of what is written from then on.
    """

    def __init__(self) -> None:
        self.weight_scale = 1.0
        self._ids: list[np.ndarray] = []
        self._modalities: list[int] = []
        self._weights: list[float] = []

    def control(self, token_id: int, weight: float = 0.0) -> None:
        self._write(np.array([token_id], dtype=np.int32), CONTROL, weight)

    def text(self, ids: np.ndarray, weight: float) -> None:
        self._write(ids, TEXT, weight)

    def speech(self, ids: np.ndarray, weight: float) -> None:
        self._write(ids, SPEECH, weight)

    def _write(self, ids: np.ndarray, modality: int, weight: float) -> None:
        self._ids.append(ids)
        self._modalities.append(modality)
        self._weights.append(weight * self.weight_scale)

    def finish(self) -> Document:
        lengths = [len(ids) for ids in self._ids]
        targets = np.concatenate(self._ids)
        weights = np.repeat(np.array(self._weights, dtype=np.float32), lengths)
        weights[0] = 0.0  # nothing stands before it to predict it from
        modality = np.repeat(np.array(self._modalities, dtype=np.uint8), lengths)
        return Document(targets, targets, weights, modality)


@dataclass(frozen=True)
class RowSizes:
    """What lengths are computed from; all arrays are (rows,)."""

    keys: np.ndarray  # uint64, what the random streams of a row are named by
    text: np.ndarray  # int64, text tokens
    speech: np.ndarray  # int64, speech tokens
    stretches: np.ndarray  # int64, of text and speech that can be cut together
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
    def words(self) -> Sequence[TimedWord]:
        return self.speech.words(self.index) or []


@dataclass(frozen=True)
class Format:
    """A document format.

    Attributes:
        length: tokens of the documents of many rows, (rows,) int64, without the tag and prompt before them.
        write: appends a document to a writer.
        needs_text, needs_speech: what a row must have.
        needs_words: words that spell its text, and where the two can be cut together.
        needs_placed: words that spell its text, at least one of them with frames of its own.
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

    @property
    def paired(self) -> bool:
        """Whether it has text and speech."""
        return self.needs_text and self.needs_speech


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
    return rows.text + rows.speech + 2 * count_spans(rows.keys, rows.stretches, config, draws) + 1


def _write_aligned(out: DocumentWriter, row: Row) -> None:
    vocabulary, weight = row.vocabulary, row.config.text_loss_weight
    text, speech_ids = row.text, row.speech_ids
    frames = len(speech_ids) // vocabulary.num_quantizers
    units = assign_frames(text, row.words, frames, vocabulary.codec.frame_rate)
    assert units is not None, "a row is only given to this format when its words match"
    points = cut_points(units, frames)
    firsts = first_units(row.key, len(points), row.config, row.draws)[1:]
    speech_cuts = points.frame[firsts] * vocabulary.num_quantizers
    text_ids, piece_starts = vocabulary.encode_text_and_words(text)
    text_cuts = piece_starts[points.piece[firsts]]
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


# <|text|> t… <|speech|> s… <|text|> t… … <|eos|>, or <|speech|> s… <|text|> t… … <|eos|>
#
# Every word is in one modality, and every frame is used once at most: a word that is speech brings its frames
# (`word_frames`, pauses included) and no text, a word that is text leaves its frames out. A word without known frames
# is always text.


@dataclass(frozen=True)
class Span:
    """Words that follow each other in one modality."""

    spoken: bool
    text: str  # of its words, whatever the modality
    begin: int  # the first frame of speech; 0 for text
    end: int  # the frame after the last; 0 for text
    ids: np.ndarray  # (tokens,) int32


def interleaved_spans(row: Row) -> list[Span]:
    """The spans of one document, in order; their texts join to the text of the row.

    Raises ValueError for a row without a placed word.
    """
    vocabulary = row.vocabulary
    text, speech_ids = row.text, row.speech_ids
    frames = len(speech_ids) // vocabulary.num_quantizers
    units = assign_frames(text, row.words, frames, vocabulary.codec.frame_rate)
    if units is None:
        raise ValueError("no word of this row has a place in its frames")
    spoken = _spoken(row.draws, row.key, np.array([len(units)]), units.placed, row.config)
    pieces = split_words(text)
    text_ids, piece_starts = vocabulary.encode_text_and_words(text)
    spans = []
    firsts = np.flatnonzero(np.append(True, spoken[1:] != spoken[:-1]))
    for first, last in zip(firsts.tolist(), [*firsts[1:].tolist(), len(units)], strict=True):
        piece = int(units.first_piece[first])
        next_piece = int(units.first_piece[last]) if last < len(units) else len(pieces)
        words = "".join(pieces[piece:next_piece])
        if spoken[first]:
            begin, end = int(units.begin[first]), int(units.end[last - 1])
            size = vocabulary.num_quantizers
            spans.append(Span(True, words, begin, end, speech_ids[begin * size : end * size]))
        else:
            stop = int(piece_starts[next_piece]) if next_piece < len(pieces) else len(text_ids)
            spans.append(Span(False, words, 0, 0, text_ids[int(piece_starts[piece]) : stop]))
    return spans


def _spoken(
    draws: Draws, keys: np.ndarray, counts: np.ndarray, placed: np.ndarray, config: DocumentConfig
) -> np.ndarray:
    """Which units are speech, (units,) bool, document after document."""
    return spoken_words(draws.streams("interleaved", keys), counts, config.interleaved) & placed


def _interleaved_length(rows: RowSizes, config: DocumentConfig, draws: Draws) -> np.ndarray:
    assert rows.table.placed is not None, "read when a format asks for it"
    lengths = np.empty(len(rows.rows), dtype=np.int64)
    for start in range(0, len(lengths), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        units = rows.table.placed.take(rows.rows[part])
        firsts, counts = units.starts[:-1], np.diff(units.starts)
        spoken = _spoken(draws, rows.keys[part], counts, units.speech > 0, config)
        begins = np.append(True, spoken[1:] != spoken[:-1])
        begins[firsts] = True
        tokens = np.where(spoken, units.speech, units.text) + begins
        lengths[part] = np.add.reduceat(tokens, firsts) + 1
    return lengths


def _write_interleaved(out: DocumentWriter, row: Row) -> None:
    vocabulary = row.vocabulary
    for number, span in enumerate(interleaved_spans(row)):
        out.control(
            vocabulary.speech_id if span.spoken else vocabulary.text_id,
            row.config.interleaved.switch_loss_weight if number else 0.0,  # the first is given
        )
        (out.speech if span.spoken else out.text)(span.ids, 1.0)
    out.control(vocabulary.eos_id, 1.0)


FORMATS = {
    format.name: format
    for format in (
        Format("speech", _speech_length, write_speech, needs_speech=True, voiced=True, otherwise=("text",)),
        Format("text", _text_length, _write_text, needs_text=True, otherwise=("speech",)),
        Format(
            "tts",
            _both_length,
            write_tts,
            needs_text=True,
            needs_speech=True,
            voiced=True,
            prompted=True,
            otherwise=("speech", "text"),
        ),
        Format(
            "asr",
            _both_length,
            _write_asr,
            needs_text=True,
            needs_speech=True,
            otherwise=("speech", "text"),
        ),
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
        ),
        Format(
            "interleaved",
            _interleaved_length,
            _write_interleaved,
            needs_text=True,
            needs_speech=True,
            needs_placed=True,
            voiced=True,
            otherwise=("tts", "speech", "text"),
        ),
    )
}


def texts_needed(config: DocumentConfig) -> TextsNeeded:
    """What the documents of a config need to know of texts."""
    wanted = [FORMATS[name] for name, weight in config.formats.items() if weight]
    return TextsNeeded(
        text=any(format.needs_text for format in wanted),
        words=any(format.needs_words for format in wanted),
        frames=any(format.needs_placed for format in wanted),
    )
