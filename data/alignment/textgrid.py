"""TextGrid files, Praat's format, as the Montreal Forced Aligner writes them: long and short."""

import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from codec.foundation import UserError

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
    """The interval tiers of a TextGrid file; tiers of points are passed over. Raises UserError."""
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
