"""`interleaved`: spans of words as text take turns with spans as their own speech.

    <|text|> t… <|speech|> s… <|text|> t… … <|eos|>, or <|speech|> s… <|text|> t… … <|eos|>

Every word is in exactly one modality and every frame is used at most once: a word that is speech brings its frames
(`word_frames` says which they are, pauses included) and no text, a word that is text leaves its frames out. A word
without known frames is always text.
"""

from dataclasses import dataclass

import numpy as np

from slm.documents.config import DocumentConfig
from slm.documents.document import DocumentWriter
from slm.documents.draws import Draws
from slm.documents.formats import Format, Row, RowSizes, register
from slm.documents.spans import spoken_words
from slm.documents.word_frames import assign_frames
from slm.text.words import split_words

_ROWS = 1 << 16  # rows at a time, for their words are several times as many


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


def _length(rows: RowSizes, config: DocumentConfig, draws: Draws) -> np.ndarray:
    assert rows.table.placed is not None, "read when a format asks for it"
    lengths = np.empty(len(rows.rows), dtype=np.int64)
    for start in range(0, len(lengths), _ROWS):
        part = slice(start, start + _ROWS)
        units = rows.table.placed.take(rows.rows[part])
        firsts, counts = units.starts[:-1], np.diff(units.starts)
        spoken = _spoken(draws, rows.keys[part], counts, units.speech > 0, config)
        begins = np.append(True, spoken[1:] != spoken[:-1])
        begins[firsts] = True
        tokens = np.where(spoken, units.speech, units.text) + begins
        lengths[part] = np.add.reduceat(tokens, firsts) + 1
    return lengths


def _write(out: DocumentWriter, row: Row) -> None:
    vocabulary = row.vocabulary
    for number, span in enumerate(interleaved_spans(row)):
        out.control(
            vocabulary.speech_id if span.spoken else vocabulary.text_id,
            row.config.interleaved.switch_loss_weight if number else 0.0,  # the first is given
        )
        (out.speech if span.spoken else out.text)(span.ids, 1.0)
    out.control(vocabulary.eos_id, 1.0)


register(
    Format(
        "interleaved",
        _length,
        _write,
        needs_text=True,
        needs_speech=True,
        needs_placed=True,
        voiced=True,
        otherwise=("tts", "speech", "text"),
    )
)
