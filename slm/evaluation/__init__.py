"""How good a model is: likelihoods, and numbers over what it said."""
