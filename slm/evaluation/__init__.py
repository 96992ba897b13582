"""Evaluation of a trained model: likelihoods, and metrics of its speech."""
