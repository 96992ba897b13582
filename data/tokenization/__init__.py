"""The token dataset's making: plan, readers, encoder, shards."""

from data.tokenization.encoding import BatchEncoder, to_codes, to_stream
from data.tokenization.plan import TokenizeOptions
from data.tokenization.rows import TokenRow, parquet_bytes
from data.tokenization.tokenize import TokenizeResult, tokenize_corpus

__all__ = [
    "BatchEncoder",
    "TokenRow",
    "TokenizeOptions",
    "TokenizeResult",
    "parquet_bytes",
    "to_codes",
    "to_stream",
    "tokenize_corpus",
]
