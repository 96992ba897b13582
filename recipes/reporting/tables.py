"""Rows of results as Parquet."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from codec.foundation import write_bytes


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that have the same fields; a field's type is that of its first value, text where all are None."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    names = list(rows[0]) if rows else []
    fields = []
    for name in names:
        value = next((row[name] for row in rows if row[name] is not None), "")
        fields.append(pa.field(name, types[type(value)]))
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=pa.schema(fields))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    write_bytes(path, buffer.getvalue())
