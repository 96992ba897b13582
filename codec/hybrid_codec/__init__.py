"""HybridCodec: a semantic and an acoustic stream of codes (arXiv 2606.06743)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codec.hybrid.configuration import HybridCodecConfig
    from codec.hybrid.modeling import HybridCodecModel
    from codec.hybrid.quantizer import HybridLatents

# by module, imported when first asked for: presets need configurations, and no torch modules
_MODULE_OF = {
    "HybridCodecConfig": "codec.hybrid.configuration",
    "HybridCodecModel": "codec.hybrid.modeling",
    "HybridLatents": "codec.hybrid.quantizer",
}

__all__ = ["HybridCodecConfig", "HybridCodecModel", "HybridLatents"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'codec.hybrid' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
