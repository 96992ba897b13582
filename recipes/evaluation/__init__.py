"""Evaluation of codecs and speech language models: what the two `evaluate` commands run."""
