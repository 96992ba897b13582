"""Texts: their tokenizer, their words, and datasets of text alone."""
