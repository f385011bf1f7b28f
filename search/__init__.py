"""Neural architecture search: evaluators, searchers, executors, study loop, command line."""
