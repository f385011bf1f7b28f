"""Where a study's trials run: each class is one kind of executor with its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class InProcess:
    """One trial at a time, in this process: nothing is spawned or pickled."""

    def options(self) -> dict[str, Any]:
        """The fields of `ComputeConfig` that say so."""
        return {"executor": "in-process"}


@dataclass(frozen=True, slots=True)
class WorkerProcesses:
    """Spawned processes of this machine, one for each worker.

    Attributes:
        cpus: cores and torch threads of each; None: the machine's shared among them.
        gpus: GPUs of each, a fraction to share one; None: one where it trains on GPUs.
    """

    cpus: int | None = None
    gpus: float | None = None

    def options(self) -> dict[str, Any]:
        """The fields of `ComputeConfig` that say so."""
        return {"executor": "local", "cpus_per_trial": self.cpus, "gpus_per_trial": self.gpus}


@dataclass(frozen=True, slots=True)
class RayCluster:
    """Workers on a Ray cluster; needs the extra `ray`.

    Attributes:
        address: of the cluster; None: one is started on this machine.
        cpus: as of `WorkerProcesses`, one where it is None.
        gpus: as of `WorkerProcesses`.
        resources: amounts of the cluster's own resources for each worker, by name.
    """

    address: str | None = None
    cpus: int | None = None
    gpus: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """The fields of `ComputeConfig` that say so."""
        return {
            "executor": "ray",
            "address": self.address,
            "cpus_per_trial": self.cpus,
            "gpus_per_trial": self.gpus,
            "resources_per_trial": self.resources,
        }


Place = InProcess | WorkerProcesses | RayCluster
