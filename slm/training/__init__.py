"""Training: data, losses, one update, the loop around it, and what is watched on the way."""
