"""k-means on patches of log-mel: the plain baseline among tokenizers."""
