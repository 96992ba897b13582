"""Generation of speech and text with a trained model: planning, sampling, results."""
