"""The language model itself: fresh or from a pretrained one, whole or by adapters, and on disk."""
