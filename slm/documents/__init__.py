"""Documents: the training sequences of text and speech tokens."""
