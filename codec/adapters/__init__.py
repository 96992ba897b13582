"""The audio codecs of `transformers` behind the interface of this project's own: comparing codecs is one flag."""

from codec.adapters.base import CodecAdapter
from codec.adapters.codecs import ADAPTERS, adapt, read_adapter

__all__ = ["ADAPTERS", "CodecAdapter", "adapt", "read_adapter"]
