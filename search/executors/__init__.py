"""Executors: where evaluations run."""

from __future__ import annotations

from search.executors.base import Executor, Finished, Lost, Outcome, Raised

__all__ = ["Executor", "Finished", "Lost", "Outcome", "Raised"]
