"""The study: several tokenizers, one corpus, one language model, one budget, one report."""
