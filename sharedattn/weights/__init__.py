"""Weights: reading them, and initialising networks from other networks."""
