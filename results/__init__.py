"""The study database, its Pareto front, the report, exports and their verification."""
