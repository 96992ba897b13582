"""Corpora of recorded speech: what they list, whatever their layout."""

from data.corpora.opening import CorpusFormat, open_corpus
from data.corpora.utterance import Corpus, Utterance, Word

__all__ = ["Corpus", "CorpusFormat", "Utterance", "Word", "open_corpus"]
