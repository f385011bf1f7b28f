"""Costs of placements: parameters, MACs, attention memory, latency."""
