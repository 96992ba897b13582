"""Tables of results: fields say what stands in a column and how it is shown; also as Parquet."""

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from codec.foundation import write_bytes
from codec.metrics import Column, Interval

NOTHING = "–"
_ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}
_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def show(value: Any, digits: int = 0, percent: bool = False, unit: str = "") -> str:
    """A value as a cell: `1,234.5`, `28.1 % (23.9–32.4)`, `9.0 ×`; a dash where there is none, or NaN.

    value: text, which stays as it is; a number; an Interval, or one as JSON has it.
    digits: behind the point, of the percentage where `percent` is set.
    """
    if isinstance(value, Mapping):
        value = Interval.from_dict(value)
    if isinstance(value, Interval):
        middle = show(value.value, digits, percent, unit)
        if middle == NOTHING or not value.bounded:
            return middle
        low, high = (show(100 * bound if percent else bound, digits) for bound in (value.low, value.high))
        return f"{middle} ({low}{' to ' if low.startswith('-') else '–'}{high})"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if isinstance(value, str):
        return value
    number = f"{value * 100 if percent else value:,.{digits}f}"
    return f"{number} %" if percent else number + unit


@dataclass(frozen=True)
class Field:
    """One column of a table.

    title: above it.
    value: the key of a row that is a mapping, or a function of a row; see `show` for what it may give.
    digits, percent, unit: how numbers are shown.
    better: which way; an arrow in the heading.
    words: it holds words and stands to the left; such a column stays even if it is empty.
    """

    title: str
    value: str | Callable[[Any], Any]
    digits: int = 0
    percent: bool = False
    unit: str = ""
    better: Literal["higher", "lower"] | None = None
    words: bool = False

    @classmethod
    def of(cls, column: Column, value: Callable[[Any], Any]) -> Self:
        """The field of a metric's column."""
        digits = 1 if column.percent else column.digits
        return cls(column.title, value, digits, column.percent, better=column.better)

    @property
    def heading(self) -> str:
        """The title, with an arrow towards what is better."""
        return self.title + _ARROWS[self.better]

    def cell(self, row: Any) -> str:
        """What stands in the row."""
        value = row.get(self.value) if isinstance(self.value, str) else self.value(row)
        return show(value, self.digits, self.percent, self.unit)


def words(title: str, value: str | Callable[[Any], Any]) -> Field:
    """A field of words."""
    return Field(title, value, words=True)


def rate(
    title: str, value: str | Callable[[Any], Any], better: Literal["higher", "lower"] | None = None
) -> Field:
    """A field of shares, in percent with one digit."""
    return Field(title, value, 1, percent=True, better=better)


@dataclass(frozen=True)
class Sound:
    """An audio file below the page's directory, in a cell of a table, and a note on it."""

    file: str
    note: str = ""

    def __str__(self) -> str:
        """As a link."""
        return f"[{Path(self.file).suffix[1:]}]({quote(self.file)}) {_escaped(self.note)}".strip()


@dataclass(frozen=True)
class Table:
    """Cells of text or sound; the first `words` columns stand to the left, the others hold numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Sound]]
    words: int = 1

    @classmethod
    def of(cls, rows: Iterable[Any], fields: Sequence[Field]) -> Self:
        """Rows as the fields show them, fields of words first; columns of numbers that hold none are left out."""
        cells = [[one.cell(row) for one in fields] for row in rows]
        kept = [
            place
            for place, one in enumerate(fields)
            if one.words or any(row[place] != NOTHING for row in cells)
        ]
        header = [fields[place].heading for place in kept]
        return cls(
            header, [[row[place] for place in kept] for row in cells], sum(one.words for one in fields)
        )

    def __str__(self) -> str:
        """As Markdown."""
        sides = ["---"] * self.words + ["---:"] * (len(self.header) - self.words)
        lines = [map(_escaped, self.header), sides, *(map(_escaped, row) for row in self.rows)]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _escaped(cell: str | Sound) -> str:
    """A cell that cannot be taken for two, nor for a link."""
    return str(cell) if isinstance(cell, Sound) else cell.replace("|", "\\|").replace("](", "]\\(")


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that have the same fields. Integers and floats in one field are floats; a field of None is text.

    Raises ValueError for a field of other mixtures.
    """
    schema = []
    for name in rows[0] if rows else ():
        types = {_type(row[name]) for row in rows if row[name] is not None}
        if len(types) > 1 and types != {int, float}:
            raise ValueError(f"{name} holds {' and '.join(sorted(found.__name__ for found in types))}")
        schema.append(pa.field(name, _TYPES[float if float in types else next(iter(types), str)]))
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=pa.schema(schema))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    write_bytes(path, buffer.getvalue())


def _type(value: Any) -> type:
    """bool, int, float or str: NumPy's numbers are numbers too."""
    for kind, base in ((bool, bool), (int, Integral), (float, Real), (str, str)):
        if isinstance(value, base):
            return kind
    raise ValueError(f"{value!r} is not to be written as a cell")


def without_nan(value: Any) -> Any:
    """As JSON can have it: NaN and infinities as null, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
