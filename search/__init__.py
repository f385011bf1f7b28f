"""What to try next: evaluators, searchers, executors, the study loop, the command line."""
