"""The study loop: proposing, judging and confirming placements."""
