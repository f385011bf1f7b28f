"""The interface of searchers: ask for a proposal, tell the outcome.

A searcher keeps no state beyond what the database holds: fed the same trials in the same order, a
new one makes the same proposals. Each proposal draws from generators seeded by (study seed, trial
number, attempt), so a resumed study continues as if it had not been interrupted.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sharedattn.hashing import derived_seed
from sharedattn.objectives import Objective
from sharedattn.placement import Placement
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.encoding import Encoding


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A placement that a searcher proposes for one trial.

    Attributes:
        placement: a member of the space inside its budget.
        proposed: the sampler's parameters before repair; empty if it drew the placement itself.
        attributes: the sampler's notes on this trial.
        study_attributes: the sampler's current notes on the whole study.
    """

    placement: Placement
    proposed: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    study_attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastTrial:
    """A trial as a searcher sees it.

    Attributes:
        number: its number in the study.
        placement: the evaluated placement.
        attributes: the sampler's notes on it.
        values: one value per objective, or None while the trial runs.
        failed: whether it ended without values.
        accuracies: with early stopping, those at the rungs that it reached, and the final one if
            it is complete; the first of them is among `values`.
    """

    number: int
    placement: Placement
    attributes: Mapping[str, Any]
    values: tuple[float, ...] | None = None
    failed: bool = False
    accuracies: tuple[float, ...] = ()


class Searcher(ABC):
    """Proposes placements of a space inside its budget.

    The caller numbers trials from 0. For each it calls `ask` at least once, then `accept` with the
    placement it took, and `tell` when the trial has ended. On a resumed study it calls `accept`
    and `tell` for the stored trials, in the order of their numbers.

    Args:
        space: the legal placements.
        objectives: the objectives to optimise.
        seed: the study's seed.
        num_trials: requested number of search trials; sizes populations and start-up phases.
        study_attributes: notes on the study from an earlier run.

    Attributes:
        uses_prior: whether it begins with the note of an earlier study's accuracies.
        num_trials: as given.
        encoding: the flat parameters of placements, as the database stores them.
    """

    name: ClassVar[str]
    uses_prior: ClassVar[bool] = False

    def __init__(
        self,
        space: BudgetedSpace,
        objectives: Sequence[Objective],
        *,
        seed: int,
        num_trials: int,
        study_attributes: Mapping[str, Any],
    ) -> None:
        self.space = space
        self.objectives = tuple(objectives)
        self.seed = seed
        self.num_trials = num_trials
        self.encoding = Encoding(space)

    @abstractmethod
    def ask(self, number: int, attempt: int) -> Proposal:
        """Propose a placement for trial `number`, which follows all accepted trials.

        Args:
            number: the trial's number.
            attempt: number of proposals for this trial that were refused before.
        """

    @abstractmethod
    def accept(self, trial: PastTrial, parameters: Mapping[str, Any] | None = None) -> None:
        """Record that a trial runs; `tell` delivers its values, if it has any.

        Args:
            trial: the trial.
            parameters: its placement's parameters by `encoding`, or None to encode it if needed.
        """

    @abstractmethod
    def tell(self, trial: PastTrial) -> None:
        """Record the outcome of an accepted trial that has ended."""

    def instead_of(self, refused: Placement) -> Iterable[Placement]:
        """Members to try in turn, after too many proposals for a trial have been refused.

        Args:
            refused: the last of these proposals.

        Returns:
            Members inside the budget; none, unless a searcher knows better than the uniform draw
            of an untried member that follows.
        """
        del refused
        return ()

    def generator(self, number: int, attempt: int) -> random.Random:
        """The generator of one proposal."""
        return random.Random(self.seed_of(number, attempt))

    def seed_of(self, number: int, attempt: int) -> int:
        """A 32-bit seed for one proposal, hashed from study seed, number and attempt."""
        return derived_seed(self.seed, number, attempt)
