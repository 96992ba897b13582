"""Speech to discrete tokens and back: HH-Codec (arXiv 2507.18897)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codec.configuration import HHCodecConfig
    from codec.export import export_codec, save_codec
    from codec.identity import CodecInfo, fingerprint
    from codec.loading import bundled_codecs, load_codec
    from codec.modeling import (
        HHCodecDecoderOutput,
        HHCodecEncoderOutput,
        HHCodecLatentOutput,
        HHCodecModel,
        HHCodecOutput,
    )
    from codec.presets import PRESETS, preset_config
    from codec.runs import UserError

# by module, imported when first asked for: torch and transformers take seconds that `--help` should not
_PUBLIC = {
    "codec.configuration": ["HHCodecConfig"],
    "codec.export": ["export_codec", "save_codec"],
    "codec.identity": ["CodecInfo", "fingerprint"],
    "codec.loading": ["bundled_codecs", "load_codec"],
    "codec.modeling": [
        "HHCodecDecoderOutput",
        "HHCodecEncoderOutput",
        "HHCodecLatentOutput",
        "HHCodecModel",
        "HHCodecOutput",
    ],
    "codec.presets": ["PRESETS", "preset_config"],
    "codec.runs": ["UserError"],
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = [
    "PRESETS",
    "CodecInfo",
    "HHCodecConfig",
    "HHCodecDecoderOutput",
    "HHCodecEncoderOutput",
    "HHCodecLatentOutput",
    "HHCodecModel",
    "HHCodecOutput",
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
