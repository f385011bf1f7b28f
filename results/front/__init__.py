"""Pareto fronts: computation, confirmation and summaries."""
