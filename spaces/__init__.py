"""Search spaces: declaration, exact counting, legal sampling, encodings, budgets."""
