"""HybridCodec: a semantic and an acoustic stream of codes (arXiv 2606.06743)."""
