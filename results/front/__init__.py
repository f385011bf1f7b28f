"""Pareto fronts and what they are made of."""
