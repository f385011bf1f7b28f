"""What a placement costs: parameters, MACs, attention memory, latency."""
