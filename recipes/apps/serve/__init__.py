"""The HTTP service: encode, decode, speak."""
