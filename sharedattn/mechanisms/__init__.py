"""The mechanisms, one per file: each module with its parameters and MACs in closed form."""
