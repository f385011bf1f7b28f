"""The networks: placements, mechanisms, backbones, their cost, data and training."""
