"""Training and evaluation of a network."""
