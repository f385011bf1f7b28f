"""The search's own front, taken anew whenever a trial is complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np

from sharedattn.objectives import Objective
from sharedattn.results.front.pareto import hypervolume, non_dominated, to_losses
from sharedattn.results.records import FrontSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteTrial:
    """A complete search trial.

    Attributes:
        number: its number.
        evaluation_key: of its evaluation.
        values: one value an objective.
    """

    number: int
    evaluation_key: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class FrontChange:
    """What a complete trial does to the front.

    Attributes:
        snapshot: the front as it stands now; None where the trial is not on it.
        off: keys of evaluations off the front: the trial's own, or those that it dominates.
    """

    snapshot: FrontSnapshot | None
    off: tuple[str, ...]


class FrontTracker:
    """The non-dominated ones of the trials that are complete.

    Args:
        objectives: what is compared.
        reference_point: the worst value of each objective, by name.
    """

    def __init__(
        self, objectives: Sequence[Objective], reference_point: Mapping[str, float]
    ) -> None:
        self._objectives = tuple(objectives)
        self._reference_point = reference_point
        self._members: list[CompleteTrial] = []
        self._num_complete = 0

    def restore(self, trials: Sequence[CompleteTrial]) -> None:
        """Begin with the stored trials, which stand in the order of their numbers."""
        self._num_complete = len(trials)
        self._members = list(compress(trials, self._on_front(trials)))

    def add(self, trial: CompleteTrial) -> FrontChange:
        """Take the front anew with one more trial."""
        self._num_complete += 1
        candidates = [*self._members, trial]
        on_front = self._on_front(candidates)
        if not on_front[-1]:
            # What it is dominated by stays: the front is as it was.
            return FrontChange(snapshot=None, off=(trial.evaluation_key,))
        self._members = list(compress(candidates, on_front))
        left = [not stays for stays in on_front]
        return FrontChange(
            snapshot=self._snapshot(),
            off=tuple(member.evaluation_key for member in compress(candidates, left)),
        )

    def _on_front(self, trials: Sequence[CompleteTrial]) -> list[bool]:
        if not trials:
            return []
        values = np.array([trial.values for trial in trials])
        on_front: list[bool] = non_dominated(to_losses(values, self._objectives)).tolist()
        return on_front

    def _snapshot(self) -> FrontSnapshot:
        points = np.array([member.values for member in self._members])
        return FrontSnapshot(
            num_complete=self._num_complete,
            members=tuple(member.number for member in self._members),
            hypervolume=hypervolume(points, self._objectives, self._reference_point),
        )
