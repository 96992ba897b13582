"""Building blocks that know no codec: layers over frames, mel, masks, streaming, windows, CPU kernels."""
