"""Executors: where evaluations run."""

from __future__ import annotations

from search.executors.base import (
    DiskFull,
    Event,
    Executor,
    Finished,
    Lost,
    Preempted,
    Raised,
    Reported,
    TrialResources,
    advance,
)

__all__ = [
    "DiskFull",
    "Event",
    "Executor",
    "Finished",
    "Lost",
    "Preempted",
    "Raised",
    "Reported",
    "TrialResources",
    "advance",
]
