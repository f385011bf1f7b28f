"""The public Python API: searching under stable names, which `sharedattn` exports."""

from __future__ import annotations

from sharedattn.search.api.front import Front, Member
from sharedattn.search.api.networks import build, cost, load
from sharedattn.search.api.places import InProcess, RayCluster, WorkerProcesses
from sharedattn.search.api.space import Space
from sharedattn.search.api.study import Study

__all__ = [
    "Front",
    "InProcess",
    "Member",
    "RayCluster",
    "Space",
    "Study",
    "WorkerProcesses",
    "build",
    "cost",
    "load",
]
