"""What may be chosen: declarative spaces, counting, legal sampling, encodings, budgets."""
