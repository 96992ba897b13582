"""Making token datasets: plan, pipeline of reading and encoding, files."""

from data.config import TokenizeOptions
from data.tokenization.directory import TokenRow, parquet_bytes
from data.tokenization.pipeline import BLOCK_SECONDS, BatchEncoder, to_codes
from data.tokenization.summary import left_out, lost_texts, understood
from data.tokenization.tokenize import tokenize_corpus

__all__ = [
    "BLOCK_SECONDS",
    "BatchEncoder",
    "TokenRow",
    "TokenizeOptions",
    "left_out",
    "lost_texts",
    "parquet_bytes",
    "to_codes",
    "tokenize_corpus",
    "understood",
]
