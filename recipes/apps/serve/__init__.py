"""The HTTP service: speak, continue, transcribe, encode, decode."""
