"""MO-ASHA: asynchronous successive halving by non-dominated rank.

Schmucker et al. 2021 (arXiv 2106.12639) proposed multi-objective asynchronous successive halving;
Syne Tune's MOASHA is their reference implementation. A trial continues from a rung if it is among
the best 1/eta there by non-dominated rank. Like Syne Tune's, this is the stopping variant: no
trial waits for promotion. A trial is judged once, when it reaches a rung, against those that
reached it before, and then trains on or ends. So the first trial at a rung always continues, and
more than 1/eta continue overall, especially with few trials.

It departs from Syne Tune in two ways: trials of one rank are ordered by crowding distance (Deb et
al. 2002, NSGA-II) rather than by an epsilon-net, and the most accurate and the cheapest trial come
first whatever their other objective, since the ends of a front make up most of its hypervolume.
docs/guide/early_stopping.md tells how the constants were chosen.
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
    """The rungs of a training: one ninth and one third of its epochs.

    Earlier rungs would save little more, and judge by noise.

    Args:
        epochs: epochs of a whole training.
        ratio: ratio of the epochs to the last rung, and of the last rung to the one before.

    Raises:
        InputError: `epochs` is too small for a rung.
    """
    rungs = tuple(sorted({round(epochs / ratio**power) for power in (1, 2)} - {0, epochs}))
    if not rungs:
        raise InputError(
            f"--early-stopping finds no epoch to judge trials at in {epochs} epochs; train for "
            f"more, or leave it out"
        )
    return rungs


@dataclass(frozen=True, slots=True, kw_only=True)
class MoAsha(Pruner):
    """Stops trials that are not among the best 1/eta at a rung.

    Attributes:
        rungs: epochs at which trials are judged, ascending.
        reduction_factor: eta; the best 1/eta continue from each rung.

    Raises:
        InputError: a value is out of its range.
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
        """Everything that a judgement depends on, for the study's fingerprint."""
        return {
            "name": self.name,
            "rungs": list(self.rungs),
            "reduction_factor": self.reduction_factor,
        }

    def should_prune(self, trial: RungPoint, epoch: int, peers: Sequence[RungPoint]) -> bool:
        return num_better(trial, peers) >= (1 + len(peers)) / self.reduction_factor


def num_better(trial: RungPoint, rivals: Sequence[RungPoint]) -> int:
    """Number of rivals ahead of a trial: of a better rank, or of its rank and less crowded.

    Trials of equal values tie, and so do the two ends of a front.
    """
    losses = np.array([(-point.top1, point.macs) for point in (trial, *rivals)], dtype=float)
    left = losses
    while not (in_front := non_dominated(left))[0]:
        # Row 0 is the trial itself.
        left = left[~in_front]
    distances = _crowding_distances(left[in_front])
    return len(losses) - len(left) + int((distances > distances[0]).sum())


def _crowding_distances(front: FloatArray) -> FloatArray:
    """Crowding distance of each member of a front in two objectives, (n, 2) to (n,).

    Equal members share the distance of a single one.
    """
    members, numbers = np.unique(front, axis=0, return_inverse=True)
    distances = np.full(len(members), np.inf)
    # A front sorted by the first objective descends in the second.
    spans = np.abs(members[2:] - members[:-2]) / np.ptp(members, axis=0)
    distances[1:-1] = spans.sum(axis=1)
    return distances[numbers.reshape(-1)]
