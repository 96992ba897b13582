"""HH-Codec: one codebook, 24 tokens a second, through mel (arXiv 2507.18897)."""
