"""Sentences from books that Debian carries: the King James Bible, Jane Austen's novels, the Debian Handbook."""

import html
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from codec.foundation import UserError

MIN_WORDS, MAX_WORDS = 4, 16

_TITLES = ("Mr.", "Mrs.", "Dr.", "Messrs.", "Esq.", "St.", "Miss.")
_SPEAKABLE = re.compile(r"[A-Za-z][A-Za-z'-]*[,.;:?!]?(?: ['A-Za-z][A-Za-z'-]*[,.;:?!]?)*")
_UNSPEAKABLE = re.compile(
    r"\b(?-i:[A-Z]{2,})|-\W|\B'(?!tis\b|twas\b|em\b)[A-Za-z]|[^s]'(?=\W|$)", re.IGNORECASE
)
_DANGLING = re.compile(
    r"\b(?:a|an|and|as|at|but|by|for|from|if|in|my|nor|of|or|our|so|than|that|the|their|to|which|with|your)\.$"
)
# A full stop that ends a sentence: not one behind a title or a single initial.
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+(?=[A-Z])")
_CLAUSE_END = re.compile(r"(?<=[,;:])\s+")
_PARAGRAPH = re.compile(r'<div class="para">(.*?)</div>', re.DOTALL)
_CODE = re.compile(r"<code\b.*?</code>|<pre\b.*?</pre>|<strong class=\"userinput\">.*?</strong>", re.DOTALL)
_TAG = re.compile(r"<[^>]+>")


def read_bible() -> list[str]:
    """The King James Bible, one string a verse, in order, from Debian's `bible` command."""
    if shutil.which("bible") is None:
        raise UserError("the command `bible` is not here: apt-get install bible-kjv bible-kjv-text")
    lines = subprocess.run(
        ["bible", "-f", "gen1:1-rev22:21"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return [line.split(" ", 1)[1] for line in lines if " " in line]


def read_novels(rdata: Path) -> list[str]:
    """Jane Austen's six novels, one string a paragraph, from `data/Rdata.rdb` of Debian's `r-cran-janeaustenr`.

    The file is a row of chunks (four bytes of unpacked length, then zlib), each a vector of lines in R's XDR
    serialisation; a line is 0x00040009, its length, its bytes. That is all of R that is needed here.
    """
    try:
        packed = rdata.read_bytes()
    except OSError as error:
        raise UserError(f"{rdata}: {error.strerror}; it is part of Debian's r-cran-janeaustenr") from error
    paragraphs: list[str] = []
    while packed:
        unpacker = zlib.decompressobj()
        lines = _r_strings(unpacker.decompress(packed[4:]))
        packed = unpacker.unused_data
        blocks = "\n".join(lines).split("\n\n")
        paragraphs += [" ".join(block.split()) for block in blocks if block.strip()]
    return paragraphs


def _r_strings(data: bytes) -> Iterator[str]:
    """The strings of one serialised R character vector, in order."""
    mark = b"\x00\x04\x00\x09"
    position = data.find(mark)
    while position >= 0:
        (length,) = struct.unpack(">i", data[position + 4 : position + 8])
        end = position + 8 + max(length, 0)
        yield data[position + 8 : end].decode("latin-1")
        position = data.find(mark, end)


def read_handbook(directory: Path) -> list[str]:
    """The paragraphs of "The Debian Administrator's Handbook" (R. Hertzog, R. Mas; GPL-2+ or CC BY-SA 3.0).

    `directory` is html/en-US of the package debian-handbook. Code becomes "0", so that `clauses` drops its clause.
    """
    pages = sorted(directory.glob("*.html"))
    if not pages:
        raise UserError(f"{directory}: no *.html there; it is html/en-US of Debian's debian-handbook")
    paragraphs = []
    for page in pages:
        for found in _PARAGRAPH.findall(page.read_text(encoding="utf-8")):
            text = html.unescape(_TAG.sub("", _CODE.sub("0", found)))
            text = text.replace("\u2019", "'").replace("\u201c", '"').replace("\u201d", '"')
            text = re.sub(r"\s+[\u2014\u2013]\s+|\u2014", ", ", text).replace("\u2026", ".")
            paragraphs.append(" ".join(text.split()))
    return paragraphs


def clauses(passages: Iterable[str], min_words: int = MIN_WORDS, max_words: int = MAX_WORDS) -> Iterator[str]:
    """Cut passages into sentences, and long sentences into runs of clauses, of `min_words` to `max_words` words.

    A run that ended with a comma, semicolon or colon ends with a full stop, and begins with a capital. What
    cannot be read aloud as it stands (digits, brackets, words in capitals, headings) is left out.
    """
    for passage in passages:
        for sentence in _sentences(_plain(passage)):
            for piece in _fitting(sentence, min_words, max_words):
                piece = piece.rstrip(",;:")
                piece = piece[0].upper() + piece[1:]
                if piece[-1] not in ".?!":
                    piece += "."
                if _SPEAKABLE.fullmatch(piece) and not (
                    _UNSPEAKABLE.search(piece) or _DANGLING.search(piece)
                ):
                    yield piece


def _plain(passage: str) -> str:
    """Quotation marks, italics and double dashes out; Debian's Bible writes LORD, which is a word like others."""
    passage = passage.replace("--", ", ").replace("_", "").replace('"', "").replace("`", "'")
    passage = re.sub(r"[()\[\]]", ", ", passage)
    passage = re.sub(r"\b(LORD|GOD|JESUS|JEHOVAH)\b", lambda match: match[0].capitalize(), passage)
    passage = re.sub(r"[,\s]+(?=[,.;:?!])", "", passage)
    return " ".join(passage.split()).strip(" ,")


def _sentences(passage: str) -> Iterator[str]:
    begun = ""
    for piece in _SENTENCE_END.split(passage):
        begun = f"{begun} {piece}".strip()
        if begun.endswith(_TITLES) or re.search(r"\b[A-Z]\.$", begun):
            continue
        yield begun
        begun = ""
    if begun:
        yield begun


def _fitting(sentence: str, min_words: int, max_words: int) -> Iterator[str]:
    """Join neighbouring clauses for as long as they fit; runs that stay too short or too long are dropped."""
    run: list[str] = []
    for clause in [*_CLAUSE_END.split(sentence), ""]:
        words = clause.split()
        if words and len(run) + len(words) <= max_words:
            run += words
            continue
        if min_words <= len(run) <= max_words:
            yield " ".join(run)
        run = words
