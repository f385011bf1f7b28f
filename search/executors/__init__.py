"""Executors: where evaluations run."""

from __future__ import annotations

from search.executors.base import (
    DiskFull,
    EvaluationEndedError,
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
from search.executors.errors import ClusterLostError

__all__ = [
    "ClusterLostError",
    "DiskFull",
    "EvaluationEndedError",
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
