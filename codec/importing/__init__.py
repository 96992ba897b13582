"""Weights that others published, in this project's form."""

from codec.importing.weights import KINDS, Imported, import_weights

__all__ = ["KINDS", "Imported", "import_weights"]
