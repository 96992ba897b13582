"""What the report's tables are made of."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from codec.metrics import Column, Interval
from recipes.reporting.page import Table


def filled(header: list[str], rows: list[list[str]]) -> Table:
    """A table without the columns that nobody fills."""
    kept = [0, *(i for i in range(1, len(header)) if any(row[i] != "–" for row in rows))]
    return Table([header[i] for i in kept], [[row[i] for i in kept] for row in rows])


def bits(value: float) -> str:
    """Bits a second; a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:,.1f}"


def bits_with_interval(value: Interval) -> str:
    """Bits a second: `223.4 (219.0–228.1)`; a dash for NaN."""
    around = f" ({value.low:,.1f}–{value.high:,.1f})" if value.bounded else ""
    return bits(value.value) + around


def columns_of(told: Iterable[Sequence[Mapping[str, Any]]]) -> list[Column]:
    """All columns that any of the tokenizers has, in the order of the first that has most."""
    each = sorted(([Column(**column) for column in columns] for columns in told), key=len, reverse=True)
    return list({column.key: column for columns in each for column in columns}.values())


def not_measured(told: Iterable[Mapping[str, str]]) -> list[str]:
    """What was not measured of any tokenizer, each thing once."""
    return list(
        dict.fromkeys(f"Not measured: {name} ({why})." for skipped in told for name, why in skipped.items())
    )
