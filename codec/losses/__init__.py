"""Losses of codec training, and the discriminators."""
