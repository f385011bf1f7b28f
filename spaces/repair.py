"""The member nearest to a proposal that may break any rule of the space or its budget.

The distance between two layers at one position is the number of attributes that differ: the kind
or, within one kind, the form; each number option, such as slots; the gate's cell; broadcasting. A
layer against none counts 4. The distance between a proposal and a member is the sum over
positions, with stages padded at their ends. Ties between members inside the budget go to the one
whose MACs are closest to the proposal's, then to the first in symbol order, position by position.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sharedattn.mechanisms.interface import NumberOption, Options
from sharedattn.mechanisms.registry import branch_of, registry_cache
from sharedattn.spaces.automaton import Path
from sharedattn.spaces.counting import CostBox
from sharedattn.spaces.pricing import PricedAutomaton, macs_of, params_of
from sharedattn.spaces.stages.language import Symbol

NONE_DISTANCE = 4
# Above any cost of a network; the sum of two still fits.
_UNREACHABLE = 2**62


def difference(one: Symbol, other: Symbol) -> int:
    """Number of attributes in which two layers differ; `NONE_DISTANCE` if only one exists."""
    if one is None or other is None:
        return 0 if one is other else NONE_DISTANCE
    if one.kind != other.kind:
        branch = 1
    elif one.options == other.options:
        branch = 0
    else:
        branch = _option_difference(one.kind, one.options, other.options)
    return branch + (one.gate != other.gate) + (one.cb != other.cb)


@registry_cache(maxsize=4096)
def _option_difference(kind: str, one: Options, other: Options) -> int:
    said, others = dict(one), dict(other)
    changed = [
        isinstance(option, NumberOption)
        for option in branch_of(kind).options
        if said.get(option.name) != others.get(option.name)
    ]
    return sum(changed) + (False in changed)


def _farthest(alphabet: Iterable[Symbol]) -> int:
    """The largest difference between a symbol of an alphabet and any other symbol."""
    kinds = {symbol.kind for symbol in alphabet if symbol is not None}
    numbers = [
        sum(isinstance(option, NumberOption) for option in branch_of(kind).options)
        for kind in kinds
    ]
    # Besides the numbers: the form, the gate's cell, broadcasting.
    return max(NONE_DISTANCE, 3 + max(numbers, default=0))


class _Level(NamedTuple):
    """The arcs of one level, in rows ordered by state.

    Attributes:
        begins: row of each state's first arc, (states,).
        symbols: index of each arc's symbol in the alphabet, (arcs,).
        targets: state after each arc, (arcs,).
        macs: MACs of each arc, (arcs,).
        params: params of each arc, (arcs,).
    """

    begins: NDArray[np.int64]
    symbols: NDArray[np.int64]
    targets: NDArray[np.int64]
    macs: NDArray[np.int64]
    params: NDArray[np.int64]


class _LeastCosts(NamedTuple):
    """Lower bounds on the cost of the rest of a path, (states, allowance) each.

    Attributes:
        macs: fewest MACs to the end with at most as many differences as the column index.
        params: fewest params in the same sense; the paths may differ.
        minus_macs: the same of MACs below 0, so that its negative is the most MACs.
    """

    macs: NDArray[np.int64]
    params: NDArray[np.int64]
    minus_macs: NDArray[np.int64]


class Repair:
    """Finds nearest members exactly, by dynamic programming over the automaton.

    Args:
        priced: the members with their costs.
        box: bounds on the cost of the whole network; some member is inside.
    """

    def __init__(self, priced: PricedAutomaton, box: CostBox) -> None:
        self._priced = priced
        self._box = box
        self._levels: list[_Level] = []
        # Most repairs are small: try narrow tables first, and widen them when needed.
        self._widths = [2 * NONE_DISTANCE]
        farthest = sum(map(_farthest, priced.automaton.alphabets))
        while self._widths[-1] < farthest:
            self._widths.append(2 * self._widths[-1])
        for states, alphabet in zip(priced.arcs, priced.automaton.alphabets, strict=True):
            place = {symbol: i for i, symbol in enumerate(alphabet)}
            arcs = [arc for state in states for arc in state]
            self._levels.append(
                _Level(
                    np.cumsum([0] + [len(state) for state in states[:-1]]),
                    np.array([place[arc.symbol] for arc in arcs]),
                    np.array([arc.target for arc in arcs]),
                    np.array([macs_of(arc.cost) for arc in arcs]),
                    np.array([params_of(arc.cost) for arc in arcs]),
                )
            )

    def nearest(self, proposal: Path) -> Path:
        """The member nearest to `proposal`, by the distance of this module's head.

        Args:
            proposal: one symbol per position, each stage padded with None.
        """
        if self._admits(proposal):
            return proposal
        wanted = macs_of(self._priced.proposal_cost(proposal))
        off = [
            {symbol: difference(proposed, symbol) for symbol in alphabet}
            for proposed, alphabet in zip(proposal, self._priced.automaton.alphabets, strict=True)
        ]
        done = 0
        for width in self._widths:
            least = self._least_costs(off, width)
            for allowance in range(done + 1, width + 1):
                found = self._search(off, wanted, allowance, least)
                if found is not None:
                    return found
            done = width
        raise AssertionError("no member inside the box: the caller must ensure one")

    def _admits(self, path: Path) -> bool:
        cost = self._priced.member_cost(path)
        return cost is not None and self._box.holds(cost)

    def _least_costs(self, off: list[dict[Symbol, int]], width: int) -> list[_LeastCosts]:
        """Fewest MACs and, independently, fewest params and most MACs to the end.

        Args:
            off: per level, the difference of each symbol from the proposal's.
            width: most differences in the tables.
        """
        allowances = np.arange(width + 1)
        end = np.zeros((1, width + 1), dtype=np.int64)
        tables = [_LeastCosts(end, end, end)]
        for level, off_here in zip(reversed(self._levels), reversed(off), strict=True):
            arc_off = np.array(list(off_here.values()))[level.symbols]
            left = allowances - arc_off[:, None]  # (arcs, width + 1)
            least = []
            steps = (level.macs, level.params, -level.macs)
            for step, table in zip(steps, tables[-1], strict=True):
                after = np.where(
                    left < 0, _UNREACHABLE, table[level.targets[:, None], np.maximum(left, 0)]
                )
                through = np.minimum(step[:, None] + after, _UNREACHABLE)
                least.append(np.minimum.reduceat(through, level.begins, axis=0))
            tables.append(_LeastCosts(*least))
        tables.reverse()
        return tables

    def _search(
        self,
        off: list[dict[Symbol, int]],
        wanted: int,
        allowance: int,
        least: list[_LeastCosts],
    ) -> Path | None:
        """The best member within `allowance` differences, or None if none is in the box.

        Args:
            off: per level, the difference of each symbol from the proposal's.
            wanted: the proposal's MACs.
            allowance: most differences in total.
            least: per level, lower bounds on the cost of the rest.
        """
        arcs = self._priced.arcs

        @cache
        def macs_off(level: int, state: int, cost: int, left: int) -> float:
            """Smallest difference in MACs over all ways to the end; infinite if there is none."""
            if left < 0:
                return math.inf
            least_macs, least_params, least_minus_macs = least[level]
            min_macs, max_macs, max_params = self._box.left_after(cost)
            if least_macs[state, left] > max_macs or least_params[state, left] > max_params:
                return math.inf
            if least_minus_macs[state, left] > -min_macs:
                return math.inf
            if level == len(arcs):
                return abs(macs_of(cost) - wanted)
            return min(macs_off(level + 1, *after) for _, after in ways(level, state, cost, left))

        def ways(
            level: int, state: int, cost: int, left: int
        ) -> Iterator[tuple[Symbol, tuple[int, int, int]]]:
            for arc in arcs[level][state]:
                yield arc.symbol, (arc.target, cost + arc.cost, left - off[level][arc.symbol])

        position = (0, self._priced.fixed, allowance)
        best = macs_off(0, *position)
        if best == math.inf:
            return None
        path: list[Symbol] = []
        for level in range(len(arcs)):
            symbol, position = next(
                way for way in ways(level, *position) if macs_off(level + 1, *way[1]) == best
            )
            path.append(symbol)
        return tuple(path)
