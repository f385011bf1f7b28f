"""What a searcher is: it is asked for proposals, and told what became of them.

A searcher holds nothing that the database does not: fed the same trials in the same order, a new
one proposes what the old one would have. Each proposal draws from generators made anew from (study
seed, trial number, attempt), so that a resumed study goes on as if nothing had happened.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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
        proposed: the parameters as the sampler drew them, before repair; empty where the
            placement was drawn as such.
        attributes: the sampler's notes on this trial.
        study_attributes: the sampler's notes on the whole study, as they stand now.
    """

    placement: Placement
    proposed: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    study_attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastTrial:
    """A trial as a searcher may see it.

    Attributes:
        number: its number in the study.
        placement: what was evaluated.
        attributes: the sampler's notes on it.
        values: one value per objective; None while it runs.
        failed: it ended without values.
    """

    number: int
    placement: Placement
    attributes: Mapping[str, Any]
    values: tuple[float, ...] | None = None
    failed: bool = False


class Searcher(ABC):
    """Proposes placements of a space inside its budget.

    The caller numbers trials from 0. For each it calls `ask` once or more, then `accept` with the
    placement it took, and `tell` when the trial has ended. On a resumed study it calls `accept`
    and `tell` for what the database holds, in the order of numbers.

    Args:
        space: the legal placements.
        objectives: what is optimised.
        seed: the study's seed.
        num_trials: search trials asked for; sizes populations and start-up phases.
        study_attributes: notes on the study from an earlier run.

    Attributes:
        encoding: the flat parameters of placements, as the database keeps them.
    """

    name: ClassVar[str]

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
        self.encoding = Encoding(space)

    @abstractmethod
    def ask(self, number: int, attempt: int) -> Proposal:
        """A proposal for trial `number`, which comes after all accepted trials.

        Args:
            number: the trial's number.
            attempt: how often a proposal for this trial was refused before.
        """

    @abstractmethod
    def accept(self, trial: PastTrial, parameters: Mapping[str, Any] | None = None) -> None:
        """Take note that a trial runs; its values, if it has any, are for `tell`.

        Args:
            trial: the trial.
            parameters: of its placement, by `encoding`; None: the searcher encodes it if need be.
        """

    @abstractmethod
    def tell(self, trial: PastTrial) -> None:
        """Take note that an accepted trial has ended as `trial` says."""

    def generator(self, number: int, attempt: int) -> random.Random:
        """The generator of one proposal."""
        return random.Random(self.seed_of(number, attempt))

    def seed_of(self, number: int, attempt: int) -> int:
        """The seed of one proposal, 32 bits, well mixed from study seed, number and attempt."""
        return derived_seed(self.seed, number, attempt)
