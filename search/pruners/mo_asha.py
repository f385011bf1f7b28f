"""MO-ASHA: asynchronous successive halving by non-dominated rank.

Schmucker et al. 2021 (arXiv 2106.12639) put multi-objective asynchronous successive halving
forward; Syne Tune's MOASHA is their reference. At each rung a trial goes on when it is among the
best 1/eta there by non-dominated rank. This is the stopping variant, as Syne Tune's is: no trial
waits for promotion. A trial is judged once, when it reaches a rung, by those that were there
before it, and then trains on or ends. So the first at a rung always goes on, and more than 1/eta
go on altogether, the fewer trials the more so.

Where it departs from Syne Tune's: trials of one rank are ordered by crowding distance (Deb et al.
2002, NSGA-II) rather than by an epsilon-net. The most accurate and the cheapest have no trial
before them, whatever they lack in the other objective: ends of a front are most of its
hypervolume. docs/guide/early_stopping.md has how the constants were chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sharedattn.errors import InputError
from sharedattn.results.front.pareto import FloatArray, non_dominated
from sharedattn.search.pruners.base import Pruner, RungPoint

REDUCTION_FACTOR = 2.25
RUNG_RATIO = 3


def default_rungs(epochs: int, ratio: float = RUNG_RATIO) -> tuple[int, ...]:
    """Epochs at which trials of `epochs` epochs are judged: a ninth and a third of them.

    Earlier rungs would save little more, and judge by noise.

    Args:
        epochs: of a whole training.
        ratio: of the epochs to the last rung, and of that to the one before.

    Raises:
        InputError: too few epochs for a rung.
    """
    rungs = tuple(sorted({round(epochs / ratio**power) for power in (1, 2)} - {0, epochs}))
    if not rungs:
        raise InputError(
            f"early stopping has no epoch to judge trials at in {epochs} epochs; train for more, "
            f"or leave --early-stopping out"
        )
    return rungs


@dataclass(frozen=True, slots=True, kw_only=True)
class MoAsha(Pruner):
    """Stops trials that are not among the best 1/eta at a rung.

    Attributes:
        rungs: epochs at which trials are judged; ascending.
        reduction_factor: eta; the best 1/eta go on from each rung.

    Raises:
        InputError: a value out of its range.
    """

    name: ClassVar[str] = "mo-asha"

    rungs: tuple[int, ...]
    reduction_factor: float = REDUCTION_FACTOR

    def __post_init__(self) -> None:
        if not self.rungs:
            raise InputError("`rungs` is empty; name the epochs to judge trials at")
        if self.reduction_factor <= 1:
            raise InputError(f"`reduction_factor` is {self.reduction_factor:g}; give one above 1")

    def document(self) -> dict[str, Any]:
        """All that a judgement depends on, for the study's fingerprint."""
        return {
            "name": self.name,
            "rungs": list(self.rungs),
            "reduction_factor": self.reduction_factor,
        }

    def should_prune(self, trial: RungPoint, epoch: int, peers: Sequence[RungPoint]) -> bool:
        return num_better(trial, peers) >= (1 + len(peers)) / self.reduction_factor


def num_better(trial: RungPoint, rivals: Sequence[RungPoint]) -> int:
    """How many rivals come before a trial: those of a better rank, and of its rank less crowded.

    Trials of equal values, and the two ends of a front, are as good as each other.
    """
    losses = np.array([(-point.top1, point.macs) for point in (trial, *rivals)], dtype=float)
    left = losses
    while not (in_front := non_dominated(left))[0]:
        # Row 0 is the trial's own.
        left = left[~in_front]
    distances = _crowding_distances(left[in_front])
    return len(losses) - len(left) + int((distances > distances[0]).sum())


def _crowding_distances(front: FloatArray) -> FloatArray:
    """Crowding distance of each member of a front in two objectives, (n, 2) to (n,).

    Of equal members all have the same, as if there was one.
    """
    members, numbers = np.unique(front, axis=0, return_inverse=True)
    distances = np.full(len(members), np.inf)
    # Sorted by the first objective, a front is sorted by the second as well, downwards.
    spans = np.abs(members[2:] - members[:-2]) / np.ptp(members, axis=0)
    distances[1:-1] = spans.sum(axis=1)
    return distances[numbers.reshape(-1)]
