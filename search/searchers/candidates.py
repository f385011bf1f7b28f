"""The placements among which a model chooses, with their features and exact costs."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from sharedattn.costs.model import CostModel
from sharedattn.hashing import derived_seed
from sharedattn.objectives import Objective
from sharedattn.placement import Placement
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.encoding import Encoding
from sharedattn.spaces.features import PlacementFeatures
from sharedattn.spaces.stratified import StratifiedSampler
from sharedattn.spaces.variation import Variation

FloatArray = NDArray[np.float64]

MAX_LISTED = 8192
"""Most members of a space whose candidates are all of them."""
NUM_BLOCKS = 64
"""Blocks of draws among the candidates of a larger space. Each trial draws one, and the oldest
one goes: a trial's candidates follow from its number alone, and a resumed study finds them."""
DRAWS_PER_BLOCK = 48
UNIFORM_PER_BLOCK = 8  # of these, the others are drawn by bins of MACs
NUM_BINS = 16
MAX_NEIGHBOURHOODS = 12  # members of the front whose neighbours are candidates
COST_FACTOR = 1.1
"""Times the space's largest cost: where the hypervolume's box ends."""


@dataclass(frozen=True, slots=True)
class CandidateTable:
    """Placements with what is known of them before they are trained.

    Attributes:
        placements: n placements.
        features: (n, f).
        costs: (n, d), closed-form costs as shares of the largest that count.
    """

    placements: tuple[Placement, ...]
    features: FloatArray
    costs: FloatArray


class Candidates(ABC):
    """The candidates of each trial of a study.

    Args:
        space: the legal placements inside the budget.
        costs: the objectives in closed form.

    Attributes:
        features: of the placements.
    """

    def __init__(self, space: BudgetedSpace, costs: Sequence[Objective]) -> None:
        self._space = space
        self._objectives = costs
        self._largest = [COST_FACTOR * space.largest(objective) for objective in costs]
        self._model = CostModel(space.space.backbone)
        self.features = PlacementFeatures(space)

    @abstractmethod
    def of(self, placements: Sequence[Placement]) -> CandidateTable:
        """The table of members of the space."""

    @abstractmethod
    def unseen(
        self, number: int, seen: Collection[Placement], front: Sequence[Placement]
    ) -> CandidateTable:
        """The candidates of a trial.

        Args:
            number: the trial's number.
            seen: placements that are none.
            front: the front so far, in the order of costs.
        """

    def near(self, placements: Sequence[Placement], seen: Collection[Placement]) -> CandidateTable:
        """Members one edit away from these that are not candidates yet; none if all are."""
        del placements, seen
        return self.of(())

    def _computed(self, placements: Sequence[Placement]) -> CandidateTable:
        rows = [
            [
                objective.value_of(self._model, placement) / largest
                for objective, largest in zip(self._objectives, self._largest, strict=True)
                if objective.value_of is not None
            ]
            for placement in placements
        ]
        costs = np.array(rows, dtype=float).reshape(len(placements), len(self._objectives))
        return CandidateTable(tuple(placements), self.features.of(placements), costs)


class WholeSpace(Candidates):
    """Every unseen member of a space that can be listed."""

    @cached_property
    def _all(self) -> CandidateTable:
        return self._computed(list(self._space.enumerate()))

    @cached_property
    def _place(self) -> dict[Placement, int]:
        return {placement: i for i, placement in enumerate(self._all.placements)}

    def of(self, placements: Sequence[Placement]) -> CandidateTable:
        found = [self._place[placement] for placement in placements]
        return self._at(found)

    def unseen(
        self, number: int, seen: Collection[Placement], front: Sequence[Placement]
    ) -> CandidateTable:
        return self._at([i for placement, i in self._place.items() if placement not in seen])

    def _at(self, places: Sequence[int]) -> CandidateTable:
        chosen = np.array(places, dtype=int)
        return CandidateTable(
            tuple(self._all.placements[i] for i in places),
            self._all.features[chosen],
            self._all.costs[chosen],
        )


class DrawnCandidates(Candidates):
    """Exact draws from a large space, and the neighbours of the front.

    Args:
        space: the legal placements inside the budget.
        costs: the objectives in closed form.
        encoding: the space's encoding.
        seed: the study's seed.
    """

    def __init__(
        self, space: BudgetedSpace, costs: Sequence[Objective], encoding: Encoding, seed: int
    ) -> None:
        super().__init__(space, costs)
        self._seed = seed
        self._strata = StratifiedSampler(space, NUM_BINS)
        self._block = lru_cache(NUM_BLOCKS)(self._drawn)
        self._neighbours = lru_cache(4 * MAX_NEIGHBOURHOODS)(self._neighbourhood)
        self._variation = Variation(encoding)

    def of(self, placements: Sequence[Placement]) -> CandidateTable:
        return self._computed(placements)

    def unseen(
        self, number: int, seen: Collection[Placement], front: Sequence[Placement]
    ) -> CandidateTable:
        blocks = [self._block(i) for i in range(number, number + NUM_BLOCKS)]
        # Of a large front, other members' neighbours take turns.
        step = -(-len(front) // MAX_NEIGHBOURHOODS) or 1
        around = [self._neighbours(placement) for placement in front[number % step :: step]]
        return _without_repeats([*around, *blocks], seen)

    def near(self, placements: Sequence[Placement], seen: Collection[Placement]) -> CandidateTable:
        return _without_repeats([self._neighbours(p) for p in placements], seen)

    def _neighbourhood(self, placement: Placement) -> CandidateTable:
        return self._computed(self._variation.neighbours(placement))

    def _drawn(self, block: int) -> CandidateTable:
        rng = random.Random(derived_seed(self._seed, block))
        drawn = [self._space.sample(rng) for _ in range(UNIFORM_PER_BLOCK)]
        drawn += [self._strata.sample(rng) for _ in range(DRAWS_PER_BLOCK - UNIFORM_PER_BLOCK)]
        return self._computed(drawn)


def candidates_of(
    space: BudgetedSpace, costs: Sequence[Objective], encoding: Encoding, seed: int
) -> Candidates:
    """All members of a space that can be listed, or else draws; the arguments as for both."""
    if space.in_budget <= MAX_LISTED:
        return WholeSpace(space, costs)
    return DrawnCandidates(space, costs, encoding, seed)


def _without_repeats(
    tables: Iterable[CandidateTable], seen: Collection[Placement]
) -> CandidateTable:
    """The rows of tables, the first of each placement that is not in `seen`."""
    tables = list(tables)
    placements = [placement for table in tables for placement in table.placements]
    place = {p: i for i, p in reversed(list(enumerate(placements))) if p not in seen}
    chosen = np.array(sorted(place.values()), dtype=int)
    return CandidateTable(
        tuple(placements[i] for i in chosen),
        np.concatenate([table.features for table in tables])[chosen],
        np.concatenate([table.costs for table in tables])[chosen],
    )
