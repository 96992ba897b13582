"""HybridCodec: a semantic and an acoustic stream of codes (arXiv 2606.06743)."""

from codec.hybrid_codec.configuration import HybridCodecConfig
from codec.hybrid_codec.modeling import HybridCodecModel
from codec.hybrid_codec.quantizer import HybridLatents

__all__ = ["HybridCodecConfig", "HybridCodecModel", "HybridLatents"]
