"""Corpora of recorded speech: what they list, whatever their layout."""

from data.corpora.opening import open_corpus
from data.corpora.utterance import Corpus, Prompt, Utterance, Word

__all__ = ["Corpus", "Prompt", "Utterance", "Word", "open_corpus"]
