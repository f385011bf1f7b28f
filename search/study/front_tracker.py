"""The search's own front, updated whenever a trial is complete."""

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
        number: the trial's number.
        evaluation_key: key of its evaluation.
        values: one value per objective.
    """

    number: int
    evaluation_key: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class FrontChange:
    """The effect of a complete trial on the front.

    Attributes:
        snapshot: the new front, or None if the trial is not on it.
        off: keys of evaluations off the front: the trial's own, or those that it dominates.
    """

    snapshot: FrontSnapshot | None
    off: tuple[str, ...]


class FrontTracker:
    """Tracks the non-dominated trials among the complete ones.

    Args:
        objectives: the objectives to compare by.
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
        """Start from the stored trials, ordered by number."""
        self._num_complete = len(trials)
        self._members = list(compress(trials, self._on_front(trials)))

    def add(self, trial: CompleteTrial) -> FrontChange:
        """Update the front with one more trial."""
        self._num_complete += 1
        candidates = [*self._members, trial]
        on_front = self._on_front(candidates)
        if not on_front[-1]:
            # A dominated trial leaves the front unchanged.
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
