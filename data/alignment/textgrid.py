"""Word times from TextGrid files, Praat's format, which the Montreal Forced Aligner writes: long and short form.

The words of a file are matched to those of a transcript, whose spelling may differ.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cached_property
from itertools import islice
from pathlib import Path

from torch import Tensor

from codec.foundation import UserError
from data.alignment.aligner import Alignment, AlignmentError
from data.corpora.utterance import Utterance, Word

_SILENCE = {"", "sil", "sp", "<eps>", "<p>", "<sil>", "<silence>", "[noise]", "[silence]", "{sl}"}
_UNKNOWN = {"<unk>", "spn", "<spn>", "[unk]"}  # a word that the aligner's dictionary lacks
_UNSPOKEN = re.compile(r"[\W_]+")
# The long form differs from the short one in names around the values ("xmin = 0.0", "intervals [1]:"); what is left
# without them is the same row of numbers, quoted texts and flags. A quote in a text is doubled.
_VALUE = re.compile(r'"((?:[^"]|"")*)"|(<[a-z]+>)|(?<![\w\[.])(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?![\w\].])')


@dataclass(frozen=True)
class Interval:
    """A stretch of time with its label; seconds."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Tier:
    """A row of intervals."""

    name: str
    intervals: list[Interval]


def read_textgrid(path: Path) -> list[Tier]:
    """The interval tiers of a TextGrid file; tiers of points are skipped. Raises UserError."""
    try:
        return _tiers(_decoded(path.read_bytes()))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, StopIteration) as error:
        reason = str(error) or "it ends too early"
        raise UserError(f"{path}: not a TextGrid file, or a broken one ({reason})") from None


def word_intervals(path: Path) -> list[Interval]:
    """The intervals of the tier that is called `words` or, in files of several speakers, `<name> - words`.

    Raises UserError when there is none, or more than one.
    """
    tiers = read_textgrid(path)
    found = [tier for tier in tiers if tier.name.lower().split(" - ")[-1] == "words"]
    if len(found) != 1:
        names = ", ".join(repr(tier.name) for tier in tiers) or "none"
        raise UserError(f"{path}: expected one tier of words, found {len(found)} (its tiers: {names})")
    return found[0].intervals


def _decoded(content: bytes) -> str:
    # Praat writes UTF-16 where a text is not ASCII.
    utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    return content.decode("utf-16" if utf16 else "utf-8-sig")


def _tiers(text: str) -> list[Tier]:
    values = iter([_value(match) for match in _VALUE.finditer(text)])
    if not str(next(values)).startswith("ooTextFile") or next(values) != "TextGrid":
        raise ValueError('it does not begin with "ooTextFile" and "TextGrid"')
    _number(next(values)), _number(next(values))  # from when to when
    if next(values) != "<exists>":
        return []
    tiers = []
    for _ in range(int(_number(next(values)))):
        kind, name = next(values), next(values)
        _number(next(values)), _number(next(values))
        count = int(_number(next(values)))
        if kind == "IntervalTier":
            rows = [(next(values), next(values), next(values)) for _ in range(count)]
            tiers.append(Tier(str(name), [Interval(_number(s), _number(e), str(t)) for s, e, t in rows]))
        elif kind == "TextTier":
            list(islice(values, 2 * count))
        else:
            raise ValueError(f"unknown kind of tier {kind!r}")
    return tiers


def _value(match: re.Match[str]) -> str | float:
    quoted, flag, number = match.groups()
    if quoted is not None:
        return quoted.replace('""', '"')
    return flag if flag is not None else float(number)


def _number(value: str | float) -> float:
    if not isinstance(value, float):
        raise ValueError(f"a number was expected where {value!r} stands")
    return value


@dataclass
class TextGridAligner:
    """Takes the times from `<id>.TextGrid` below a directory.

    A file belongs to the utterance whose id is its path without extension. If there is none, its name without extension
    must be the utterance's id or the last part of it.
    """

    directory: str
    sampling_rate: int = field(default=16_000, init=False)
    in_processes: bool = field(default=True, init=False)
    rejects_low_scores: bool = field(default=False, init=False)

    @property
    def name(self) -> str:
        return f"TextGrid files in {Path(self.directory).name}"

    @cached_property
    def _files(self) -> dict[str, list[str]]:
        """Paths by relative path without extension, and by name without extension."""
        root = Path(self.directory)
        if not root.is_dir():
            raise UserError(f"{self.directory}: no such directory of TextGrid files")
        found: dict[str, list[str]] = {}
        for folder, _, names in os.walk(root):
            for name in names:
                stem, extension = os.path.splitext(name)
                if extension.lower() == ".textgrid":
                    whole = Path(folder, stem).relative_to(root).as_posix()
                    for key in {whole, stem}:
                        found.setdefault(key, []).append(os.path.join(folder, name))
        if not found:
            raise UserError(f"{self.directory}: no .TextGrid files in it")
        return found

    def check(self) -> None:
        """Look for the files. Raises UserError when there are none."""
        assert self._files

    def align(self, utterance: Utterance, blocks: Iterator[Tensor]) -> Alignment:
        """The times of the transcript's words, without a score; the recording is not read."""
        paths = self._files.get(utterance.id) or self._files.get(utterance.id.rpartition("/")[2]) or []
        if len(paths) != 1:
            several = (
                f"{len(paths)} TextGrid files have its name" if paths else "no TextGrid file has its name"
            )
            raise AlignmentError(several)
        try:
            intervals = word_intervals(Path(paths[0]))
        except UserError as error:
            raise AlignmentError(str(error)) from None
        spoken = [i for i in intervals if i.label.strip().lower() not in _SILENCE]
        words = match_intervals((utterance.text or "").split(), spoken)
        if not any(word.placed for word in words):
            raise AlignmentError(f"{paths[0]}: none of its words is in the transcript")
        return Alignment(tuple(words))


def match_intervals(written: Sequence[str], spoken: Sequence[Interval]) -> list[Word]:
    """Times for written words from intervals of spoken ones, where both have the same letters.

    One written word may be several intervals ("well-known"), or several words one interval. Where the two differ, words
    get no times, with one exception: unknown words take the intervals that are there if the numbers match.
    """
    mine, theirs = [_letters(word) for word in written], [_label(interval) for interval in spoken]
    times: dict[int, tuple[float, float]] = {}
    matcher = SequenceMatcher(None, mine, theirs, autojunk=False)
    for _, first, last, begin, end in matcher.get_opcodes():
        said = [index for index in range(first, last) if mine[index]]  # a dash takes no time
        heard = range(begin, end)
        if [mine[i] for i in said] == [theirs[j] for j in heard] or (
            len(said) == len(heard) and all(theirs[j] is None for j in heard)
        ):
            times |= {i: (spoken[j].start, spoken[j].end) for i, j in zip(said, heard, strict=True)}
        else:
            times |= _by_letters(said, mine, heard, theirs, spoken)
    return [Word(word, *times.get(index, (None, None))) for index, word in enumerate(written)]


def _by_letters(
    said: Sequence[int],
    mine: Sequence[str],
    heard: range,
    theirs: Sequence[str | None],
    spoken: Sequence[Interval],
) -> dict[int, tuple[float, float]]:
    """Times of words that begin and end where intervals do, if all words and all intervals have the same letters."""
    if any(theirs[j] is None for j in heard):
        return {}
    if "".join(mine[i] for i in said) != "".join(theirs[j] or "" for j in heard):
        return {}
    starts: dict[int, float] = {}
    ends: dict[int, float] = {}
    position = 0
    for j in heard:
        starts[position] = spoken[j].start
        position += len(theirs[j] or "")
        ends[position] = spoken[j].end
    times = {}
    position = 0
    for i in said:
        start, position = position, position + len(mine[i])
        if start in starts and position in ends:
            times[i] = (starts[start], ends[position])
    return times


def _letters(word: str) -> str:
    return _UNSPOKEN.sub("", word.casefold())


def _label(interval: Interval) -> str | None:
    """The letters of an interval's word; None for an unknown one."""
    label = interval.label.strip().lower()
    return None if label in _UNKNOWN else _letters(label)
