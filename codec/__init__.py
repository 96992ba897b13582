"""Speech to discrete tokens and back: HH-Codec (arXiv 2507.18897) and HybridCodec (arXiv 2606.06743)."""

import lazy_loader

# The public names stand in __init__.pyi. Each is imported when first asked for: torch takes seconds.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
