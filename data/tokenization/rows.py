"""A token dataset's rows and their Parquet form."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from codec import CodecInfo
from codec.foundation import UserError
from data.corpora import Word

if TYPE_CHECKING:
    import pyarrow as pa

_CODEC_KEY = b"codec"  # in the Parquet file's own metadata: a shard alone says what its codes mean
_ROWS_PER_GROUP = 10_000


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One utterance as tokens."""

    id: str
    codes: np.ndarray  # (frames * num_quantizers,) uint16, frame-major
    seconds: float  # of the audio that was encoded
    text: str | None = None
    speaker: str | None = None
    language: str | None = None
    words: Sequence[Word] | None = None


def token_schema(info: CodecInfo) -> "pa.Schema":
    """Explicit, for a column of nulls in one shard must have the type that it has in the next."""
    import pyarrow as pa

    word = pa.struct([("word", pa.string()), ("start", pa.float32()), ("end", pa.float32())])
    return pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("codes", pa.list_(pa.uint16())),
            pa.field("text", pa.string()),
            pa.field("speaker", pa.string()),
            pa.field("language", pa.string()),
            pa.field("words", pa.list_(word)),
            pa.field("seconds", pa.float32()),
        ],
        metadata={_CODEC_KEY: json.dumps(info.to_dict(), sort_keys=True)},
    )


def parquet_bytes(rows: Sequence[TokenRow], info: CodecInfo) -> bytes:
    """The rows as a Parquet file; the same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = token_schema(info)
    offsets = np.cumsum([0, *(len(row.codes) for row in rows)], dtype=np.int64)
    if offsets[-1] >= 2**31:
        raise UserError(
            f"a shard of {offsets[-1]:,} codes is too large for Parquet lists: ask for more shards"
        )
    values = np.concatenate([row.codes for row in rows]) if rows else np.zeros(0, np.uint16)
    words = [
        [{"word": w, "start": s, "end": e} for w, s, e in row.words] if row.words is not None else None
        for row in rows
    ]
    columns = {
        "id": [row.id for row in rows],
        "codes": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, pa.uint16())),
        "text": [row.text for row in rows],
        "speaker": [row.speaker for row in rows],
        "language": [row.language for row in rows],
        "words": words,
        "seconds": np.array([row.seconds for row in rows], dtype=np.float32),
    }
    table = pa.Table.from_arrays(
        [
            column if isinstance(column, pa.Array) else pa.array(column, schema.field(name).type)
            for name, column in columns.items()
        ],
        schema=schema,
    )
    sink = pa.BufferOutputStream()
    # The dictionary of at most a few thousand codes packs a code into as many bits as it has.
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        if rows:  # `datasets` stumbles over a group of no rows, not over no group
            writer.write_table(table, row_group_size=_ROWS_PER_GROUP)
    return sink.getvalue().to_pybytes()


def codec_of_schema(schema: "pa.Schema", name: str) -> CodecInfo:
    """The codec that a Parquet file's codes belong to. Raises UserError when the file does not say."""
    about = (schema.metadata or {}).get(_CODEC_KEY)
    if about is None or "codes" not in schema.names:
        raise UserError(
            f"{name}: not a file of speech tokens (it names no codec): make one with codec-slm encode"
        )
    return CodecInfo.from_dict(json.loads(about))
