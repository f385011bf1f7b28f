"""Executors: where evaluations run."""

from __future__ import annotations

from search.executors.base import DiskFull, Executor, Finished, Lost, Outcome, Raised

__all__ = ["DiskFull", "Executor", "Finished", "Lost", "Outcome", "Raised"]
