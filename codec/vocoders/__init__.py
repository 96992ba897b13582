"""Vocoders: mel to waveform (Vocos, BigVGAN v2)."""
