"""The audio codecs of `transformers` behind the interface of this project's own: comparing codecs is one flag."""

from codec.adapters.base import AdapterConfig, CodecAdapter
from codec.adapters.dac import DacAdapter
from codec.adapters.encodec import EncodecAdapter
from codec.adapters.mimi import MimiAdapter
from codec.adapters.opening import ADAPTERS, adapt, read_adapter
from codec.adapters.xcodec2 import XCodec2Adapter

__all__ = [
    "ADAPTERS",
    "AdapterConfig",
    "CodecAdapter",
    "DacAdapter",
    "EncodecAdapter",
    "MimiAdapter",
    "XCodec2Adapter",
    "adapt",
    "read_adapter",
]
