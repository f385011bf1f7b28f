"""Exact counting and unranking of a space's members inside a box of costs.

Costs add up layer by layer, so the members that pass through a state are all pairs of a prefix to
it and a suffix from it. Tables of (cost -> number of ways) grow from both ends until they meet at
one level. There, each prefix counts the suffixes that keep the sum inside the box: a count of
dominated points in two dimensions. The same counts give a bijection from 0 ... size - 1 to the
members, so a uniform number is a uniform member, and distinct numbers are distinct members.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sharedattn.spaces.automaton import Path
from sharedattn.spaces.pricing import PricedAutomaton, macs_of, params_of
from sharedattn.spaces.stages.language import Symbol


@dataclass(frozen=True, slots=True)
class CostBox:
    """Bounds on the cost of a whole network; each bound is inclusive.

    Attributes:
        max_macs: most MACs, or None for no bound.
        max_params: most params, or None for no bound.
        min_macs: fewest MACs.
    """

    max_macs: int | None = None
    max_params: int | None = None
    min_macs: int = 0

    def holds(self, cost: int) -> bool:
        """Whether a packed cost is inside the box."""
        min_macs, max_macs, max_params = self.left_after(cost)
        return min_macs <= 0 <= max_macs and max_params >= 0

    def left_after(self, cost: int) -> tuple[float, float, float]:
        """The bounds (min_macs, max_macs, max_params) that remain after a packed cost."""
        macs, params = macs_of(cost), params_of(cost)
        return (
            self.min_macs - macs,
            math.inf if self.max_macs is None else self.max_macs - macs,
            math.inf if self.max_params is None else self.max_params - params,
        )


class _Node(NamedTuple):
    """The points in a range of MACs, sorted by params.

    Attributes:
        params: params of each point.
        costs: packed cost of each point.
        ways: number of ways of all points before each one, then of all points.
    """

    params: list[int]
    costs: list[int]
    ways: list[int]


class CostPoints:
    """A multiset of packed costs that counts and selects inside a box.

    A segment tree over the costs by MACs, each node sorted by params with running counts: a query
    reads O(log n) nodes, each by bisection.
    """

    def __init__(self, ways: Mapping[int, int]) -> None:
        costs = sorted(ways)
        self._macs = [macs_of(cost) for cost in costs]
        size = len(costs)
        members: list[list[int]] = [[] for _ in range(size)] + [[cost] for cost in costs]
        for i in range(size - 1, 0, -1):
            members[i] = sorted(members[2 * i] + members[2 * i + 1], key=params_of)
        self._nodes = [
            _Node(
                [params_of(cost) for cost in node],
                node,
                list(itertools.accumulate((ways[cost] for cost in node), initial=0)),
            )
            for node in members
        ]

    def _inside(
        self, min_macs: float, max_macs: float, max_params: float
    ) -> Iterator[tuple[_Node, int]]:
        """Nodes that make up the range of MACs, each with the number of its points inside."""
        size = len(self._macs)
        low = bisect_left(self._macs, min_macs) + size
        high = bisect_right(self._macs, max_macs) + size
        while low < high:
            for odd, index in ((low & 1, low), (high & 1, high - 1)):
                if odd:
                    node = self._nodes[index]
                    yield node, bisect_right(node.params, max_params)
            low = (low + 1) >> 1
            high >>= 1

    def count(self, min_macs: float, max_macs: float, max_params: float) -> int:
        """Number of ways, over all costs with MACs and params inside the bounds."""
        return sum(
            node.ways[number] for node, number in self._inside(min_macs, max_macs, max_params)
        )

    @property
    def macs_range(self) -> tuple[int, int]:
        """Fewest and most MACs of any cost."""
        return self._macs[0], self._macs[-1]

    def extreme_macs(self, min_macs: float, max_macs: float, max_params: float, sign: int) -> int:
        """The most MACs of a cost inside the bounds, or the fewest if `sign` is -1.

        Args:
            min_macs: fewest MACs.
            max_macs: most MACs.
            max_params: most params; some cost is inside these bounds.
            sign: 1 or -1.
        """
        low, high = bisect_left(self._macs, min_macs), bisect_right(self._macs, max_macs)
        while high - low > 1:
            middle = (low + high) // 2
            halves = (
                ((middle, high), (low, middle)) if sign > 0 else ((low, middle), (middle, high))
            )
            preferred = halves[0]
            holds = self.count(self._macs[preferred[0]], self._macs[preferred[1] - 1], max_params)
            low, high = preferred if holds else halves[1]
        return self._macs[low]

    def select(
        self, min_macs: float, max_macs: float, max_params: float, rank: int
    ) -> tuple[int, int]:
        """The cost of way `rank` among those that `count` counts, and its rank at that cost.

        Raises:
            IndexError: `rank` is not below the count.
        """
        for node, number in self._inside(min_macs, max_macs, max_params):
            if rank < node.ways[number]:
                place = bisect_right(node.ways, rank) - 1
                return node.costs[place], rank - node.ways[place]
            rank -= node.ways[number]
        raise IndexError("rank is not below the count")


class CostTables:
    """Numbers of ways by exact cost, from both ends of a priced automaton to a middle level.

    The tables do not depend on a budget.

    Attributes:
        priced: the members with their costs.
        middle: the level at which the tables meet.
        prefixes: ways from the start by packed cost, per state of each level up to the middle.
        suffixes: ways to the end by packed cost, per state of each level from the middle on.
    """

    def __init__(self, priced: PricedAutomaton) -> None:
        self.priced = priced
        last = len(priced.arcs)
        self.prefixes: dict[int, list[Counter[int]]] = {0: [Counter({priced.fixed: 1})]}
        self.suffixes: dict[int, list[Counter[int]]] = {last: [Counter({0: 1})]}
        low, high = 0, last
        while low < high:
            # The smaller side grows: table sizes multiply from level to level.
            if _num_entries(self.prefixes[low]) <= _num_entries(self.suffixes[high]):
                self.prefixes[low + 1] = self._grow_prefixes(low)
                low += 1
            else:
                high -= 1
                self.suffixes[high] = self._grow_suffixes(high)
        self.middle = low
        self._into = [self._arcs_into(level) for level in range(1, low + 1)]
        self.points = [CostPoints(suffixes) for suffixes in self.suffixes[low]]

    def _grow_prefixes(self, level: int) -> list[Counter[int]]:
        num_targets = len(self.priced.automaton.levels[level + 1])
        grown: list[Counter[int]] = [Counter() for _ in range(num_targets)]
        for ways, state in zip(self.prefixes[level], self.priced.arcs[level], strict=True):
            for arc in state:
                target = grown[arc.target]
                for cost, number in ways.items():
                    target[cost + arc.cost] += number
        return grown

    def _grow_suffixes(self, level: int) -> list[Counter[int]]:
        following = self.suffixes[level + 1]
        grown: list[Counter[int]] = []
        for state in self.priced.arcs[level]:
            ways: Counter[int] = Counter()
            for arc in state:
                for cost, number in following[arc.target].items():
                    ways[cost + arc.cost] += number
            grown.append(ways)
        return grown

    def _arcs_into(self, level: int) -> dict[int, list[tuple[Symbol, int, int]]]:
        """The arcs into each state of `level`, as (symbol, source state, cost)."""
        into: dict[int, list[tuple[Symbol, int, int]]] = defaultdict(list)
        for source, state in enumerate(self.priced.arcs[level - 1]):
            for arc in state:
                into[arc.target].append((arc.symbol, source, arc.cost))
        return into

    def prefix_path(self, state: int, cost: int, rank: int) -> list[Symbol]:
        """Way `rank` among those from the start to `state` of the middle level at `cost`."""
        symbols: list[Symbol] = []
        for level in range(self.middle, 0, -1):
            before = self.prefixes[level - 1]
            for symbol, source, arc_cost in self._into[level - 1][state]:
                number = before[source].get(cost - arc_cost, 0)
                if rank < number:
                    symbols.append(symbol)
                    state, cost = source, cost - arc_cost
                    break
                rank -= number
        symbols.reverse()
        return symbols

    def suffix_path(self, state: int, cost: int, rank: int) -> list[Symbol]:
        """Way `rank` among those from `state` of the middle level to the end at `cost`."""
        symbols: list[Symbol] = []
        for level in range(self.middle, len(self.priced.arcs)):
            after = self.suffixes[level + 1]
            for arc in self.priced.arcs[level][state]:
                number = after[arc.target].get(cost - arc.cost, 0)
                if rank < number:
                    symbols.append(arc.symbol)
                    state, cost = arc.target, cost - arc.cost
                    break
                rank -= number
        return symbols


def _num_entries(tables: list[Counter[int]]) -> int:
    return sum(map(len, tables))


class RankedMembers:
    """The members inside a box of costs, numbered from 0.

    Attributes:
        size: number of members inside.
    """

    def __init__(self, tables: CostTables, box: CostBox) -> None:
        self._tables = tables
        self._box = box
        self._pairs: list[tuple[int, int, int]] = []
        ends: list[int] = []
        self.size = 0
        for state, (prefixes, points) in enumerate(
            zip(tables.prefixes[tables.middle], tables.points, strict=True)
        ):
            for cost, num_prefixes in prefixes.items():
                num_suffixes = points.count(*box.left_after(cost))
                if num_suffixes:
                    self.size += num_prefixes * num_suffixes
                    self._pairs.append((state, cost, num_suffixes))
                    ends.append(self.size)
        self._ends = ends

    def macs_range(self) -> tuple[int, int]:
        """Fewest and most MACs of the members inside, exact.

        Raises:
            ValueError: no member is inside.
        """
        if not self.size:
            raise ValueError("no member is inside the box")
        return self._extreme_macs(-1), self._extreme_macs(1)

    def _extreme_macs(self, sign: int) -> int:
        """The most MACs of a member inside, or the fewest if `sign` is -1.

        Prefixes are tried in the order of the best total that each could reach, and only for
        suffixes that beat the best so far: nearly all are skipped without a search.
        """
        points, box = self._tables.points, self._box
        best: int | None = None

        def bound(pair: tuple[int, int, int]) -> int:
            state, cost, _ = pair
            return macs_of(cost) + points[state].macs_range[sign > 0]

        for pair in sorted(self._pairs, key=lambda pair: sign * bound(pair), reverse=True):
            if best is not None and sign * bound(pair) <= sign * best:
                break
            state, cost, _ = pair
            low, high, max_params = box.left_after(cost)
            found = points[state].extreme_macs(low, high, max_params, sign)
            if best is None or sign * (macs_of(cost) + found) > sign * best:
                best = macs_of(cost) + found
        assert best is not None
        return best

    def path(self, number: int) -> Path:
        """The member with this number.

        Raises:
            IndexError: the number is not from 0 to `size` - 1.
        """
        if not 0 <= number < self.size:
            raise IndexError(
                f"`number` is {number}; members are numbered from 0 to {self.size - 1}"
            )
        tables = self._tables
        pair = bisect_right(self._ends, number)
        state, prefix_cost, num_suffixes = self._pairs[pair]
        rank = number - (self._ends[pair - 1] if pair else 0)
        prefix_rank, suffix_rank = divmod(rank, num_suffixes)
        suffix_cost, suffix_rank = tables.points[state].select(
            *self._box.left_after(prefix_cost), suffix_rank
        )
        return (
            *tables.prefix_path(state, prefix_cost, prefix_rank),
            *tables.suffix_path(state, suffix_cost, suffix_rank),
        )
