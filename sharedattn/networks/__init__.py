"""Networks: blocks that run a placement by layer, their state, and legality of placements."""
