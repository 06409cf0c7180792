"""Causal questions of variational autoencoders."""
