"""What is known: the database, the Pareto front, the report, export and verify."""
