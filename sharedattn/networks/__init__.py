"""Networks: blocks that run a placement layer by layer, their state, what a backbone admits."""
