"""Executors for a study's trials, with their options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class InProcess:
    """Runs one trial at a time in this process: nothing is spawned or pickled."""

    def options(self) -> dict[str, Any]:
        """The corresponding fields of `ComputeConfig`."""
        return {"executor": "in-process"}


@dataclass(frozen=True, slots=True)
class WorkerProcesses:
    """Runs trials in spawned processes of this machine, one for each worker.

    Attributes:
        cpus: cores and torch threads of each; defaults to an equal share of the machine's.
        gpus: GPUs of each, a fraction to share one; defaults to one if trials train on GPUs.
    """

    cpus: int | None = None
    gpus: float | None = None

    def options(self) -> dict[str, Any]:
        """The corresponding fields of `ComputeConfig`."""
        return {"executor": "local", "cpus_per_trial": self.cpus, "gpus_per_trial": self.gpus}


@dataclass(frozen=True, slots=True)
class RayCluster:
    """Runs trials in workers on a Ray cluster; needs the extra `ray`.

    Attributes:
        address: address of the cluster; by default one is started on this machine.
        cpus: cores and torch threads of each worker; defaults to one.
        gpus: as in `WorkerProcesses`.
        resources: amounts of the cluster's own resources for each worker, by name.
    """

    address: str | None = None
    cpus: int | None = None
    gpus: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """The corresponding fields of `ComputeConfig`."""
        return {
            "executor": "ray",
            "address": self.address,
            "cpus_per_trial": self.cpus,
            "gpus_per_trial": self.gpus,
            "resources_per_trial": self.resources,
        }


Place = InProcess | WorkerProcesses | RayCluster
