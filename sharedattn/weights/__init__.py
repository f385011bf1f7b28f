"""Weights: reading them, and starting networks from those of others."""
