"""A space under a budget: exact sizes, ranges of cost, and uniform legal sampling.

Everything is over distinct placements and exact: no rejection, no estimate.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate

from sharedattn.costs.model import CostModel, PartCost
from sharedattn.errors import InputError
from sharedattn.placement import Placement
from sharedattn.spaces.automaton import Path
from sharedattn.spaces.counting import CostBox, CostTables, RankedMembers
from sharedattn.spaces.pricing import LayerCosts, PricedAutomaton, macs_of, params_of
from sharedattn.spaces.space import Space

_BINS_KEPT = 64


@dataclass(frozen=True, slots=True)
class Budget:
    """The most a placement may cost.

    Attributes:
        max_macs: most MACs for one image; None: no bound.
        max_params: most params; None: no bound.

    Raises:
        InputError: a bound below 1.
    """

    max_macs: int | None = None
    max_params: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_macs", "max_params"):
            bound = getattr(self, name)
            if bound is not None and bound < 1:
                raise InputError(f"`{name} >= 1` must hold, but got {name}={bound}")

    def admits(self, cost: PartCost) -> bool:
        """Whether `cost`, of a whole network, is inside the budget."""
        return (self.max_macs is None or cost.macs <= self.max_macs) and (
            self.max_params is None or cost.params <= self.max_params
        )

    def __str__(self) -> str:
        bounds = {"macs": self.max_macs, "params": self.max_params}
        return (
            " and ".join(f"{name} <= {n}" for name, n in bounds.items() if n is not None)
            or "no bound"
        )


class BudgetedSpace:
    """A space with exact counts and uniform sampling of its members inside a budget.

    Members inside the budget are numbered from 0 to `in_budget` - 1, in an order that depends on
    the space and its costs alone.

    Args:
        space: what may be chosen.
        budget: what a placement may cost.
        costs: cost model of the space's backbone; None: `CostModel(space.backbone)`.

    Attributes:
        space: as given.
        budget: as given.
        box: the budget as bounds on packed costs.
        priced: the members with their costs.
        size: number of distinct placements of the whole space.
        in_budget: number of these inside the budget; at least 1.
        macs_range: fewest and most MACs over the whole space.
        params_range: fewest and most params over the whole space.

    Raises:
        InputError: a space without members, or a budget that no member meets; the message says
            the nearest budget that some member meets.
    """

    def __init__(
        self, space: Space, budget: Budget | None = None, *, costs: LayerCosts | None = None
    ) -> None:
        self.space = space
        self.budget = budget or Budget()
        self.priced = PricedAutomaton(space.automaton, costs or CostModel(space.backbone))
        self.size = space.automaton.size
        self.macs_range = self.priced.cost_range(macs_of)
        self.params_range = self.priced.cost_range(params_of)
        self._tables = CostTables(self.priced)
        self.box = CostBox(self.budget.max_macs, self.budget.max_params)
        self._members = RankedMembers(self._tables, self.box)
        self.in_budget = self._members.size
        # One bin is asked for again and again: its members are counted once.
        self._bin = lru_cache(_BINS_KEPT)(self._members_in_bin)
        if not self.in_budget:
            raise InputError(self._infeasible())

    def _members_in_bin(self, low: int, high: int) -> RankedMembers:
        max_macs = high if self.budget.max_macs is None else min(high, self.budget.max_macs)
        return RankedMembers(self._tables, CostBox(max_macs, self.budget.max_params, low))

    @property
    def cheapest(self) -> Placement:
        """The member of fewest MACs, then fewest params; of the whole space."""
        return self.placement(self.priced.cheapest())

    @property
    def dearest(self) -> Placement:
        """The member of most MACs, then most params; of the whole space."""
        return self.placement(self.priced.dearest())

    def __contains__(self, placement: Placement) -> bool:
        """Whether `placement` is a member inside the budget."""
        path = self.space.automaton.path(placement)
        return path is not None and self.admits(path)

    def admits(self, path: Path) -> bool:
        """Whether these symbols are a member inside the budget."""
        cost = self.priced.member_cost(path)
        return cost is not None and self.box.holds(cost)

    @cached_property
    def macs_range_in_budget(self) -> tuple[int, int]:
        """Fewest and most MACs of a member inside all bounds, exact."""
        return self._members.macs_range()

    @property
    def macs_span(self) -> tuple[int, int]:
        """The MACs that bins are laid over: `macs_range_in_budget`, as a rule.

        With a bound on MACs alone they go up to the bound itself, not to the member next below:
        the draws of stored studies depend on it.
        """
        bound = self.budget.max_macs
        if bound is not None and self.budget.max_params is None:
            return self.macs_range[0], min(self.macs_range[1], bound)
        return self.macs_range_in_budget

    def placement(self, path: Path) -> Placement:
        """The placement whose symbols are `path`."""
        return self.space.automaton.placement(path)

    def __getitem__(self, number: int) -> Placement:
        """The member inside the budget with this number.

        Raises:
            IndexError: the number is not from 0 to `in_budget` - 1.
        """
        return self.placement(self._members.path(number))

    def enumerate(self) -> Iterator[Placement]:
        """All members inside the budget, by number."""
        return map(self.__getitem__, range(self.in_budget))

    def sample(self, rng: random.Random) -> Placement:
        """A member, uniform over the distinct placements inside the budget."""
        return self[rng.randrange(self.in_budget)]

    def sample_many(self, rng: random.Random, count: int) -> list[Placement]:
        """`count` members that all differ, uniform without replacement.

        Raises:
            InputError: fewer than `count` members are inside the budget.
        """
        if not 0 <= count <= self.in_budget:
            raise InputError(
                f"`0 <= count <= members inside the budget` must hold, but got count={count} and "
                f"{self.in_budget} members"
            )
        return [self[number] for number in _distinct_numbers(rng, self.in_budget, count)]

    def sample_in_macs_bin(self, rng: random.Random, low: int, high: int) -> Placement:
        """A member, uniform over those inside the budget with low <= MACs <= high.

        Raises:
            InputError: no member inside the budget has MACs in the bin.
        """
        bin_ = self._bin(low, high)
        if not bin_.size:
            raise InputError(
                f"no member inside the budget ({self.budget}) has "
                f"{low} <= macs <= {high}; give another bin"
            )
        return self.placement(bin_.path(rng.randrange(bin_.size)))

    def sample_many_in_macs_bin(
        self, rng: random.Random, low: int, high: int, count: int
    ) -> list[Placement]:
        """`count` members that all differ, uniform over those of a bin of MACs.

        Raises:
            ValueError: fewer than `count` members inside the budget have MACs in the bin.
        """
        bin_ = self._bin(low, high)
        if not 0 <= count <= bin_.size:
            raise ValueError(
                f"`count` is {count}, but {bin_.size} members have {low} <= macs <= {high}; "
                f"ask for at most as many"
            )
        return [
            self.placement(bin_.path(number))
            for number in _distinct_numbers(rng, bin_.size, count)
        ]

    def num_in_macs_bin(self, low: int, high: int) -> int:
        """Members inside the budget with low <= MACs <= high."""
        return self._bin(low, high).size

    def _infeasible(self) -> str:
        """Says the nearest budget that some member meets."""
        budget = self.budget
        least = {"macs": self.macs_range[0], "params": self.params_range[0]}
        bounds = {"macs": budget.max_macs, "params": budget.max_params}
        beyond = [
            f"the fewest {name} of any member are {least[name]}"
            for name, bound in bounds.items()
            if bound is not None and bound < least[name]
        ]
        if not beyond:
            macs, params = self._fewest(budget)
            beyond = [
                f"each bound alone can be met, both together not: members within max_params have "
                f"at least {macs} macs, members within max_macs at least {params} params"
            ]
        return (
            f"`some member of the space lies inside the budget` must hold, but got {budget} for "
            f"{self.space.name}; {', '.join(beyond)}"
        )

    def _fewest(self, budget: Budget) -> tuple[int, int]:
        """Fewest MACs among members within max_params, fewest params among those within max_macs.

        Args:
            budget: both bounds given, each met by some member.
        """
        assert budget.max_macs is not None
        assert budget.max_params is not None
        tables = self._tables
        macs: list[int] = []
        params: list[int] = []
        for prefixes, suffixes in zip(
            tables.prefixes[tables.middle], tables.suffixes[tables.middle], strict=True
        ):
            by_macs, by_params = sorted(suffixes), sorted(suffixes, key=params_of)
            sorted_macs = [macs_of(cost) for cost in by_macs]
            sorted_params = [params_of(cost) for cost in by_params]
            least_params = list(accumulate(map(params_of, by_macs), min))
            least_macs = list(accumulate(map(macs_of, by_params), min))
            for cost in prefixes:
                number = bisect_right(sorted_macs, budget.max_macs - macs_of(cost))
                if number:
                    params.append(params_of(cost) + least_params[number - 1])
                number = bisect_right(sorted_params, budget.max_params - params_of(cost))
                if number:
                    macs.append(macs_of(cost) + least_macs[number - 1])
        return min(macs), min(params)


def _distinct_numbers(rng: random.Random, size: int, count: int) -> list[int]:
    """`count` distinct numbers below `size`, uniform, in random order.

    Floyd's algorithm: `random.sample` refuses ranges beyond the machine's word.
    """
    chosen: dict[int, None] = {}
    for most in range(size - count, size):
        number = rng.randrange(most + 1)
        chosen[most if number in chosen else number] = None
    numbers = list(chosen)
    rng.shuffle(numbers)
    return numbers
