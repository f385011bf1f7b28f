"""A space under a budget: exact sizes, cost ranges, and uniform sampling of legal members.

All counts are over distinct placements and exact; nothing is rejected or estimated.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.objectives import (
    OBJECTIVES,
    Objective,
    cost_objective,
    cost_objectives,
    costs_of,
)
from sharedattn.placement import BackboneSpec, Placement
from sharedattn.spaces.automaton import Automaton, Path, of_paths
from sharedattn.spaces.counting import CostBox, CostTables, RankedMembers
from sharedattn.spaces.pricing import LayerCosts, PricedAutomaton, macs_of, params_of
from sharedattn.spaces.space import Space
from sharedattn.units import Share

_BINS_KEPT = 64


@dataclass(frozen=True, slots=True, init=False)
class Budget:
    """Bounds on what a placement may cost; every bound is inclusive.

    A bound may be a share of what the backbone costs as published. Classes are the data's, so that
    it is a number only on the backbone that is evaluated: `BudgetedSpace` has it `resolved`.

    Attributes:
        bounds: the upper bound on each cost, by name in the order of the registry.
        min_macs: the lower bound on MACs per image, or None.
        shares: the upper bounds that are shares, by name in the same order; of a cost either this
            or a number is given.
        min_share: the lower bound on MACs as a share, or None.

    Raises:
        InputError: a bound on a cost without a closed form, one that is not above 0, or a lower
            bound above the upper one.
    """

    bounds: tuple[tuple[str, float], ...]
    min_macs: int | None
    shares: tuple[tuple[str, Share], ...]
    min_share: Share | None

    def __init__(
        self,
        max_macs: int | Share | None = None,
        max_params: int | Share | None = None,
        bounds: Mapping[str, float | Share] | None = None,
        *,
        min_macs: int | Share | None = None,
    ) -> None:
        """Take bounds by name; `max_macs` and `max_params` are shorthands for two of them."""
        given = {"macs": max_macs, "params": max_params, **(bounds or {})}
        for name, bound in given.items():
            if bound is None:
                continue
            if cost_objective(name).value_of is None:
                raise InputError(f"{name} is measured: no space can bound it")
            if isinstance(bound, Share):
                if not OBJECTIVES[name].is_counted:
                    raise InputError(f"the bound on {name} is {bound}; give a number")
            elif bound < 1 if OBJECTIVES[name].unit.scaled else bound <= 0:
                raise InputError(f"the bound on {name} is {bound:g}; give at least 1")
        ordered = [(o.name, b) for o in cost_objectives() if (b := given.get(o.name)) is not None]
        numbers = tuple((name, b) for name, b in ordered if not isinstance(b, Share))
        shares = tuple((name, b) for name, b in ordered if isinstance(b, Share))
        least = None if isinstance(min_macs, Share) else min_macs
        least_share = min_macs if isinstance(min_macs, Share) else None
        _check_order(least, dict(numbers).get("macs"))
        _check_order(least_share, dict(shares).get("macs"))
        object.__setattr__(self, "bounds", numbers)
        object.__setattr__(self, "min_macs", least)
        object.__setattr__(self, "shares", shares)
        object.__setattr__(self, "min_share", least_share)

    def resolved(self, published: Mapping[str, float]) -> Budget:
        """The budget with numbers where it has shares.

        Args:
            published: what the backbone costs as published, by name; all costs that are shares.

        Raises:
            InputError: a share is less than 1, or the lower bound is above the upper one.
        """
        of_shares = {name: int(share.of(published[name])) for name, share in self.shares}
        least: int | None = self.min_macs
        if self.min_share is not None:
            least = math.ceil(self.min_share.of(published["macs"]))
        return Budget(bounds={**dict(self.bounds), **of_shares}, min_macs=least)

    @property
    def is_empty(self) -> bool:
        """Whether there is no bound."""
        return self == Budget()

    @property
    def max_macs(self) -> int | None:
        """The bound on MACs per image, or None."""
        return self._of("macs")

    @property
    def max_params(self) -> int | None:
        """The bound on params, or None."""
        return self._of("params")

    def _of(self, name: str) -> int | None:
        bound = dict(self.bounds).get(name)
        return None if bound is None else int(bound)

    @property
    def stage_rules(self) -> tuple[tuple[Objective, float], ...]:
        """The bounds that a space enforces by leaving out layers."""
        found = ((OBJECTIVES[name], bound) for name, bound in self.bounds)
        return tuple((o, bound) for o, bound in found if o.stage_rule is not None)

    @property
    def uncounted(self) -> tuple[tuple[Objective, float], ...]:
        """The bounds that counting cannot include; placements are checked after the draw."""
        found = ((OBJECTIVES[name], bound) for name, bound in self.bounds)
        return tuple((o, bound) for o, bound in found if not o.is_counted)

    def admits(self, costs: Mapping[str, float]) -> bool:
        """Whether the named costs keep their bounds; bounds on other costs are ignored."""
        least = self.min_macs or 0
        return costs.get("macs", least) >= least and all(
            costs.get(name, bound) <= bound for name, bound in self.bounds
        )

    def is_inside(self, other: Budget) -> bool:
        """Whether whatever keeps these bounds keeps another budget's too."""
        bounds = dict(self.bounds)
        return (self.min_macs or 0) >= (other.min_macs or 0) and all(
            bounds.get(name, math.inf) <= bound for name, bound in other.bounds
        )

    def to_document(self) -> dict[str, Any]:
        """The form in fingerprints: `max_macs`, `max_params`, and any other bounds by name."""
        others = {name: b for name, b in self.bounds if name not in ("macs", "params")}
        return {
            "max_macs": self.max_macs,
            "max_params": self.max_params,
            **({"bounds": others} if others else {}),
            # Only then, so that studies from before it keep their fingerprints.
            **({"min_macs": self.min_macs} if self.min_macs is not None else {}),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Budget:
        """Invert `to_document`; other keys are ignored."""
        return cls(
            document["max_macs"],
            document["max_params"],
            document.get("bounds"),
            min_macs=document.get("min_macs"),
        )

    def __str__(self) -> str:
        least = [] if self.min_macs is None else [f"macs >= {self.min_macs}"]
        if self.min_share is not None:
            least = [f"macs >= {self.min_share} of the backbone's"]
        texts = [
            *least,
            *(f"{name} <= {bound}" for name, bound in self.bounds),
            *(f"{name} <= {share} of the backbone's" for name, share in self.shares),
        ]
        return " and ".join(texts) or "no bound"


def _check_order(least: int | Share | None, most: float | Share | None) -> None:
    """Raise InputError unless a lower bound on MACs is at least 1 and at most the upper one.

    Bounds of which one alone is a share are compared once both are numbers.
    """
    low = least.percent if isinstance(least, Share) else least
    high = most.percent if isinstance(most, Share) else most
    if low is None:
        return
    if not isinstance(least, Share) and low < 1:
        raise InputError(f"min_macs is {least}; give at least 1, or leave it out")
    if high is not None and high < low:
        raise InputError(
            f"min_macs is {least}, more than max_macs, {most}; lower it or raise max_macs"
        )


def published_costs(backbone: BackboneSpec) -> dict[str, float]:
    """What a backbone costs with its own branch in every layer, by name."""
    model = CostModel(backbone)
    published = Placement.all_vanilla(model.shape.depths)
    return costs_of(model, published, cost_objectives())


class BudgetedSpace:
    """A space with exact counts and uniform sampling of its members inside a budget.

    Members inside the budget are numbered from 0 to `in_budget` - 1, in an order that depends on
    the space and its costs alone.

    Args:
        space: the placements to choose from.
        budget: what a placement may cost; defaults to no bound.
        costs: cost model of the space's backbone; defaults to `CostModel(space.backbone)`.
        among: the only members to choose from, or None for all; the ranges below stay those of the
            whole space, and so do reference points.

    Attributes:
        space: as given.
        budget: as given, with numbers for shares; the caller checks its `uncounted` bounds.
        box: the bounds on MACs and params, on packed costs.
        priced: the members with their costs, without those that a `stage_rule` excludes.
        size: number of distinct placements of the whole space.
        in_budget: number of these inside the budget; at least 1.
        macs_range: fewest and most MACs over the whole space.
        params_range: fewest and most params over the whole space.

    Raises:
        InputError: the space has no members, or none meets the budget; the message gives the
            nearest budget that some member meets. Or one of `among` is not a member.
    """

    def __init__(
        self,
        space: Space,
        budget: Budget | None = None,
        *,
        costs: LayerCosts | None = None,
        among: Iterable[Placement] | None = None,
    ) -> None:
        self.space = space
        self.budget = budget or Budget()
        if self.budget.shares or self.budget.min_share is not None:
            self.budget = self.budget.resolved(published_costs(space.backbone))
        costs = costs or CostModel(space.backbone)
        self._whole = PricedAutomaton(space.automaton, costs)
        self.size = space.automaton.size
        self.macs_range = self._whole.cost_range(macs_of)
        self.params_range = self._whole.cost_range(params_of)
        self.priced = self._whole
        if self.budget.stage_rules:
            self.priced = PricedAutomaton(_within_stage_rules(space, self.budget), costs)
        if among is not None:
            listed = _listed(space, self.priced.automaton, among, self.budget)
            self.priced = PricedAutomaton(listed, costs)
        self._tables = CostTables(self.priced)
        self.box = CostBox(self.budget.max_macs, self.budget.max_params, self.budget.min_macs or 0)
        self._members = RankedMembers(self._tables, self.box)
        self.in_budget = self._members.size
        # Callers ask for the same bin many times: its members are counted once.
        self._bin = lru_cache(_BINS_KEPT)(self._members_in_bin)
        if not self.in_budget:
            raise InputError(self._infeasible())

    def _members_in_bin(self, low: int, high: int) -> RankedMembers:
        max_macs = high if self.budget.max_macs is None else min(high, self.budget.max_macs)
        min_macs = max(low, self.budget.min_macs or 0)
        return RankedMembers(self._tables, CostBox(max_macs, self.budget.max_params, min_macs))

    @property
    def cheapest(self) -> Placement:
        """The member of the whole space with the fewest MACs, then the fewest params."""
        return self.placement(self._whole.cheapest())

    @property
    def most_expensive(self) -> Placement:
        """The member of the whole space with the most MACs, then the most params."""
        return self.placement(self._whole.most_expensive())

    def largest(self, cost: Objective) -> float:
        """The highest value of a cost over the whole space.

        Exact for costs that add up over layers. Other costs are taken at the member of most MACs
        and at a set of members that covers every choice of every layer.

        Args:
            cost: a cost with a closed form.
        """
        if cost.adds_up:
            return {"macs": self.macs_range, "params": self.params_range}[cost.name][1]
        assert cost.value_of is not None
        model = CostModel(self.space.backbone)
        cover = map(self.placement, self.space.automaton.cover())
        return max(cost.value_of(model, placement) for placement in (self.most_expensive, *cover))

    def __contains__(self, placement: Placement) -> bool:
        """Whether `placement` is a member inside the budget."""
        path = self.space.automaton.path(placement)
        return path is not None and self.admits(path)

    def admits(self, path: Path) -> bool:
        """Whether these symbols spell a member inside the budget."""
        cost = self.priced.member_cost(path)
        return cost is not None and self.box.holds(cost)

    @cached_property
    def macs_range_in_budget(self) -> tuple[int, int]:
        """Fewest and most MACs of the members inside all bounds, exact."""
        return self._members.macs_range()

    @property
    def macs_span(self) -> tuple[int, int]:
        """The range of MACs that is divided into bins, in general `macs_range_in_budget`.

        With a bound on MACs alone, the range ends at the bound rather than at the largest member
        below it: the draws of stored studies depend on it.
        """
        bound = self.budget.max_macs
        is_alone = len(self.budget.bounds) == 1 and self.budget.min_macs is None
        if bound is not None and is_alone:
            return self.macs_range[0], min(self.macs_range[1], bound)
        return self.macs_range_in_budget

    def placement(self, path: Path) -> Placement:
        """The placement that `path` spells."""
        return self.space.automaton.placement(path)

    def __getitem__(self, number: int) -> Placement:
        """The member inside the budget with this number.

        Raises:
            IndexError: the number is not from 0 to `in_budget` - 1.
        """
        return self.placement(self._members.path(number))

    def enumerate(self) -> Iterator[Placement]:
        """Yield all members inside the budget, by number."""
        return map(self.__getitem__, range(self.in_budget))

    def sample(self, rng: random.Random) -> Placement:
        """Draw a member uniformly from the distinct placements inside the budget."""
        return self[rng.randrange(self.in_budget)]

    def sample_many(self, rng: random.Random, count: int) -> list[Placement]:
        """Draw `count` distinct members uniformly, without replacement.

        Raises:
            InputError: fewer than `count` members are inside the budget.
        """
        if not 0 <= count <= self.in_budget:
            raise InputError(
                f"`count` is {count}, but only {self.in_budget} members are inside the budget; "
                f"ask for at most as many"
            )
        return [self[number] for number in _distinct_numbers(rng, self.in_budget, count)]

    def sample_in_macs_bin(self, rng: random.Random, low: int, high: int) -> Placement:
        """Draw a member uniformly from those inside the budget with low <= MACs <= high.

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
        """Draw `count` distinct members uniformly from a bin of MACs.

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
        """Number of members inside the budget with low <= MACs <= high."""
        return self._bin(low, high).size

    def _infeasible(self) -> str:
        """The error message, with the nearest budget that some member meets."""
        budget = self.budget
        if budget.min_macs is not None:
            upper = RankedMembers(self._tables, CostBox(budget.max_macs, budget.max_params))
            if upper.size:
                return self._too_cheap(upper.macs_range()[1])
        ranges = {part: self.priced.cost_range(part) for part in (macs_of, params_of)}
        least = {"macs": ranges[macs_of][0], "params": ranges[params_of][0]}
        bounds = {"macs": budget.max_macs, "params": budget.max_params}
        beyond = [
            f"the fewest {name} of any member are {least[name]}"
            for name, bound in bounds.items()
            if bound is not None and bound < least[name]
        ]
        if not beyond:
            macs, params = self._fewest(budget)
            beyond = [
                f"each bound can be met alone, but not both together: members within max_params "
                f"have at least {macs} macs, members within max_macs at least {params} params"
            ]
        return (
            f"no member of {self.space.name} lies inside the budget {budget}; {', '.join(beyond)}"
        )

    def _too_cheap(self, most_macs: int) -> str:
        """The error message where members meet all bounds but the lower one.

        Args:
            most_macs: of the members within the upper bounds.
        """
        budget = self.budget
        advice = f"lower min_macs to {most_macs}"
        if budget.max_macs is not None:
            beyond = CostBox(None, budget.max_params, budget.max_macs + 1)
            dearer = RankedMembers(self._tables, beyond)
            if dearer.size:
                advice += f", or raise max_macs to {dearer.macs_range()[0]}"
        return f"no member of {self.space.name} lies inside the budget {budget}; {advice}"

    def _fewest(self, budget: Budget) -> tuple[int, int]:
        """Fewest MACs of members within max_params, fewest params of those within max_macs.

        Args:
            budget: has both bounds, and some member meets each.
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


def _within_stage_rules(space: Space, budget: Budget) -> Automaton:
    """The members of a space that meet a budget's stage rules.

    Raises:
        InputError: no member does; the message gives the lowest bound that some member meets.
    """
    costs = CostModel(space.backbone)
    num_stages = len(costs.shape.stages)

    def members(bounds: Iterable[tuple[Objective, float]]) -> Automaton:
        rules = [
            [o.stage_rule(costs, stage, bound) for o, bound in bounds if o.stage_rule is not None]
            for stage in range(num_stages)
        ]
        return space.automaton_within(rules)

    automaton = members(budget.stage_rules)
    if automaton.size:
        return automaton
    least = []
    for objective, bound in budget.stage_rules:
        # Bisect between a bound that no member meets and one that some member does.
        low, high = 0, int(bound)
        while not members([(objective, high)]).size:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if members([(objective, middle)]).size else (middle, high)
        least.append(f"the least {objective.name} of any member is {high}")
    raise InputError(
        f"no member of {space.name} lies inside the budget {budget}: {', '.join(least)}; "
        f"raise the bound"
    )


def _listed(
    space: Space, automaton: Automaton, among: Iterable[Placement], budget: Budget
) -> Automaton:
    """Those of `among` that an automaton of the space has.

    Raises:
        InputError: one is not of the space, or the automaton has none.
    """
    paths = []
    for placement in among:
        path = space.automaton.path(placement)
        if path is None or not space.automaton.accepts(path):
            raise InputError(
                f"{placement} is not a member of {space.name}, from whose members alone one can "
                f"choose; leave it out"
            )
        if automaton.accepts(path):
            paths.append(path)
    if not paths:
        raise InputError(
            f"none of the members of {space.name} to choose from lies inside the budget "
            f"({budget}); raise it"
        )
    return of_paths(paths, automaton.depths)


def _distinct_numbers(rng: random.Random, size: int, count: int) -> list[int]:
    """`count` distinct numbers below `size`, uniform, in random order.

    Floyd's algorithm, since `random.sample` rejects ranges beyond the machine's word.
    """
    chosen: dict[int, None] = {}
    for most in range(size - count, size):
        number = rng.randrange(most + 1)
        chosen[most if number in chosen else number] = None
    numbers = list(chosen)
    rng.shuffle(numbers)
    return numbers
