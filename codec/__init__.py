"""Speech to discrete tokens and back: HH-Codec (arXiv 2507.18897) and HybridCodec (arXiv 2606.06743)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codec.adapters import CodecAdapter
    from codec.base import CodecModel
    from codec.configuration import HHCodecConfig
    from codec.export import export_codec, save_codec
    from codec.hybrid import HybridCodecConfig, HybridCodecModel
    from codec.identity import CodecInfo, fingerprint
    from codec.loading import Codec, bundled_codecs, load_codec
    from codec.modeling import HHCodecModel
    from codec.outputs import CodecDecoderOutput, CodecEncoderOutput, CodecLatentOutput, CodecOutput
    from codec.presets import PRESETS, preset_config
    from codec.runs import UserError

# by module, imported when first asked for: torch and transformers take seconds that `--help` should not
_PUBLIC = {
    "codec.adapters": ["CodecAdapter"],
    "codec.base": ["CodecModel"],
    "codec.configuration": ["HHCodecConfig"],
    "codec.export": ["export_codec", "save_codec"],
    "codec.hybrid": ["HybridCodecConfig", "HybridCodecModel"],
    "codec.identity": ["CodecInfo", "fingerprint"],
    "codec.loading": ["Codec", "bundled_codecs", "load_codec"],
    "codec.modeling": ["HHCodecModel"],
    "codec.outputs": ["CodecDecoderOutput", "CodecEncoderOutput", "CodecLatentOutput", "CodecOutput"],
    "codec.presets": ["PRESETS", "preset_config"],
    "codec.runs": ["UserError"],
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = [
    "PRESETS",
    "Codec",
    "CodecAdapter",
    "CodecDecoderOutput",
    "CodecEncoderOutput",
    "CodecInfo",
    "CodecLatentOutput",
    "CodecModel",
    "CodecOutput",
    "HHCodecConfig",
    "HHCodecModel",
    "HybridCodecConfig",
    "HybridCodecModel",
    "UserError",
    "bundled_codecs",
    "export_codec",
    "fingerprint",
    "load_codec",
    "preset_config",
    "save_codec",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'codec' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
