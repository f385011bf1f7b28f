"""The placements among which a model chooses, with their features and exact costs."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
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
from sharedattn.spaces.features import Features
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
        keys: (n,), their hashes, since to hash thousands of them at each trial takes long.
        features: (n, f).
        costs: (n, d), closed-form costs as shares of the largest that count.
    """

    placements: tuple[Placement, ...]
    keys: NDArray[np.int64]
    features: FloatArray
    costs: FloatArray

    def rows(self, chosen: NDArray[np.intp]) -> CandidateTable:
        """Some rows, by number."""
        return CandidateTable(
            tuple(self.placements[i] for i in chosen),
            self.keys[chosen],
            self.features[chosen],
            self.costs[chosen],
        )

    def without(self, keys: NDArray[np.int64]) -> CandidateTable:
        """The first row of each placement whose key is not among these."""
        _, first = np.unique(self.keys, return_index=True)
        chosen = np.sort(first)
        return self.rows(chosen[~np.isin(self.keys[chosen], keys)])


def joined(tables: Sequence[CandidateTable]) -> CandidateTable:
    """The rows of tables, one after the other; there is at least one table."""
    return CandidateTable(
        tuple(placement for table in tables for placement in table.placements),
        np.concatenate([table.keys for table in tables]),
        np.concatenate([table.features for table in tables]),
        np.concatenate([table.costs for table in tables]),
    )


class Candidates(ABC):
    """The candidates of each trial of a study.

    Args:
        space: the legal placements inside the budget.
        costs: the objectives in closed form.
        features: of the placements.

    Attributes:
        features: as given.
    """

    def __init__(
        self,
        space: BudgetedSpace,
        costs: Sequence[Objective],
        features: Features,
    ) -> None:
        self._space = space
        self._objectives = costs
        self._largest = [COST_FACTOR * space.largest(objective) for objective in costs]
        self._model = CostModel(space.space.backbone)
        self.features = features

    @abstractmethod
    def of(self, placements: Sequence[Placement]) -> CandidateTable:
        """The table of members that have been proposed."""

    @abstractmethod
    def unseen(
        self, number: int, seen: CandidateTable, front: Sequence[Placement]
    ) -> CandidateTable:
        """The candidates of a trial.

        Args:
            number: the trial's number.
            seen: placements that are none.
            front: the front so far, in the order of costs.
        """

    def near(self, placements: Sequence[Placement], known: NDArray[np.int64]) -> CandidateTable:
        """Members one edit away from these, but for those of known keys, if they are drawn."""
        del placements, known
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
        keys = np.array([hash(placement) for placement in placements], dtype=np.int64)
        return CandidateTable(tuple(placements), keys, self.features.of(placements), costs)


class WholeSpace(Candidates):
    """Every unseen member of a space that can be listed."""

    @cached_property
    def _all(self) -> CandidateTable:
        return self._computed(list(self._space.enumerate()))

    @cached_property
    def _place(self) -> dict[Placement, int]:
        return {placement: i for i, placement in enumerate(self._all.placements)}

    def of(self, placements: Sequence[Placement]) -> CandidateTable:
        return self._all.rows(np.array([self._place[p] for p in placements], dtype=int))

    def unseen(
        self, number: int, seen: CandidateTable, front: Sequence[Placement]
    ) -> CandidateTable:
        return self._all.without(seen.keys)


class DrawnCandidates(Candidates):
    """Exact draws from a large space, and the neighbours of the front.

    Args:
        space: the legal placements inside the budget.
        costs: the objectives in closed form.
        features: of the placements.
        encoding: the space's encoding.
        seed: the study's seed.
    """

    def __init__(
        self,
        space: BudgetedSpace,
        costs: Sequence[Objective],
        features: Features,
        encoding: Encoding,
        seed: int,
    ) -> None:
        super().__init__(space, costs, features)
        self._seed = seed
        self._strata = StratifiedSampler(space, NUM_BINS)
        self._block = lru_cache(NUM_BLOCKS)(self._drawn)
        self._neighbours = lru_cache(4 * MAX_NEIGHBOURHOODS)(self._neighbourhood)
        self._variation = Variation(encoding)
        self._known: dict[Placement, CandidateTable] = {}  # of each proposed placement, one row

    def of(self, placements: Sequence[Placement]) -> CandidateTable:
        for placement in placements:
            if placement not in self._known:
                self._known[placement] = self._computed([placement])
        return joined([self._computed(()), *(self._known[p] for p in placements)])

    def unseen(
        self, number: int, seen: CandidateTable, front: Sequence[Placement]
    ) -> CandidateTable:
        blocks = [self._block(i) for i in range(number, number + NUM_BLOCKS)]
        # Of a large front, other members' neighbours take turns.
        step = -(-len(front) // MAX_NEIGHBOURHOODS) or 1
        around = [self._neighbours(placement) for placement in front[number % step :: step]]
        return joined([*around, *blocks]).without(seen.keys)

    def near(self, placements: Sequence[Placement], known: NDArray[np.int64]) -> CandidateTable:
        return joined([self._neighbours(p) for p in placements]).without(known)

    def _neighbourhood(self, placement: Placement) -> CandidateTable:
        return self._computed(self._variation.neighbours(placement))

    def _drawn(self, block: int) -> CandidateTable:
        rng = random.Random(derived_seed(self._seed, block))
        drawn = [self._space.sample(rng) for _ in range(UNIFORM_PER_BLOCK)]
        drawn += [self._strata.sample(rng) for _ in range(DRAWS_PER_BLOCK - UNIFORM_PER_BLOCK)]
        return self._computed(drawn)


def candidates_of(
    space: BudgetedSpace,
    costs: Sequence[Objective],
    features: Features,
    encoding: Encoding,
    seed: int,
) -> Candidates:
    """All members of a space that can be listed, or else draws; the arguments as for both."""
    if space.in_budget <= MAX_LISTED:
        return WholeSpace(space, costs, features)
    return DrawnCandidates(space, costs, features, encoding, seed)
