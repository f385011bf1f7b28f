"""Records: what is stored, as values."""
