"""Executors, which run evaluations."""

from __future__ import annotations

from sharedattn.search.errors import ClusterLostError
from sharedattn.search.executors.base import (
    DiskFull,
    EvaluationEndedError,
    Event,
    Executor,
    Finished,
    Lost,
    Message,
    Preempted,
    Progressed,
    Raised,
    Reported,
    StartChanged,
    TrialResources,
    advance,
)

__all__ = [
    "ClusterLostError",
    "DiskFull",
    "EvaluationEndedError",
    "Event",
    "Executor",
    "Finished",
    "Lost",
    "Message",
    "Preempted",
    "Progressed",
    "Raised",
    "Reported",
    "StartChanged",
    "TrialResources",
    "advance",
]
