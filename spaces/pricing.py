"""An automaton whose edges carry exact costs, and the passes that need no budget.

A cost is one integer with MACs in the high bits and params in the low bits: costs add as integers
and compare by MACs first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from sharedattn.mechanisms.interface import PartCost
from sharedattn.placement import LayerChoice
from sharedattn.spaces.automaton import Automaton, Cells, Path, count_cell
from sharedattn.spaces.stages.language import Symbol

_PARAMS_BITS = 44
_PARAMS_MASK = (1 << _PARAMS_BITS) - 1
# What a stage's first block saves beside the others, in its frame, may be less than nothing.
_NEGATIVE = 1 << _PARAMS_BITS - 1


def pack(macs: int, params: int) -> int:
    """Pack MACs and params into one integer that adds and compares; params within 2^43 of 0."""
    return (macs << _PARAMS_BITS) + params


def macs_of(cost: int) -> int:
    """The MACs of a packed cost."""
    return (cost + _NEGATIVE) >> _PARAMS_BITS


def params_of(cost: int) -> int:
    """The params of a packed cost."""
    return (cost + _NEGATIVE & _PARAMS_MASK) - _NEGATIVE


class LayerCosts(Protocol):
    """The part of a cost model that counting uses, such as `CostModel`."""

    @property
    def fixed(self) -> PartCost:
        """Stem and head."""

    def layer(self, stage: int, choice: LayerChoice) -> PartCost:
        """Cost of a whole block, without the params of its gate's cell."""

    def cell_params(self, stage: int, gate: str) -> int:
        """Params of one cell of a gate in a stage."""


class Arc(NamedTuple):
    """An edge with its cost.

    Attributes:
        symbol: the choice at this position, or None if the stage has ended.
        target: index of the state after it, in the next level.
        cost: packed MACs and params.
    """

    symbol: Symbol
    target: int
    cost: int


class PricedAutomaton:
    """The members of a space with their exact costs.

    Attributes:
        automaton: the members.
        fixed: packed cost of everything outside the layers.
        arcs: per level and state, the edges with their costs, in the automaton's order.
    """

    def __init__(self, automaton: Automaton, costs: LayerCosts) -> None:
        self.automaton = automaton
        self.fixed = pack(costs.fixed.macs, costs.fixed.params)
        self._costs = costs
        self._known: dict[tuple[int, LayerChoice, bool], int] = {}
        self.arcs: tuple[tuple[tuple[Arc, ...], ...], ...] = tuple(
            tuple(
                tuple(
                    Arc(edge.symbol, edge.target, self._price(stage, edge.symbol, edge.new_cell))
                    for edge in state
                )
                for state in level
            )
            for level, (stage, _) in zip(automaton.levels[:-1], automaton.positions, strict=True)
        )
        self._by_symbol = tuple(
            tuple({arc.symbol: arc for arc in state} for state in level) for level in self.arcs
        )

    def _price(self, stage: int, symbol: Symbol, new_cell: bool) -> int:
        if symbol is None:
            return 0
        key = (stage, symbol, new_cell)
        if key not in self._known:
            layer = self._costs.layer(stage, symbol)
            params = layer.params
            if new_cell:
                assert symbol.gate is not None
                params += self._costs.cell_params(stage, symbol.gate.gate)
            self._known[key] = pack(layer.macs, params)
        return self._known[key]

    def member_cost(self, path: Path) -> int | None:
        """Packed cost of the whole network, or None if `path` is not a member."""
        state, cost = 0, self.fixed
        for symbol, level in zip(path, self._by_symbol, strict=True):
            arc = level[state].get(symbol)
            if arc is None:
                return None
            state = arc.target
            cost += arc.cost
        return cost

    def proposal_cost(self, path: Path) -> int:
        """Packed cost of any layers, members or not; gate cells are numbered by first use."""
        cost = self.fixed
        cells: Cells = ()
        for symbol, (stage, position) in zip(path, self.automaton.positions, strict=True):
            new_cell, cells = count_cell(cells if position else (), symbol)
            cost += self._price(stage, symbol, new_cell)
        return cost

    def cost_range(self, part: Callable[[int], int]) -> tuple[int, int]:
        """Least and most of `part`, which is `macs_of` or `params_of`, over all members."""
        ends = [(0, 0)]
        for level in reversed(self.arcs):
            ends = [
                (
                    min(part(arc.cost) + ends[arc.target][0] for arc in state),
                    max(part(arc.cost) + ends[arc.target][1] for arc in state),
                )
                for state in level
            ]
        return part(self.fixed) + ends[0][0], part(self.fixed) + ends[0][1]

    def cheapest(self) -> Path:
        """The member of fewest MACs, then fewest params, then first in symbol order."""
        return self._extreme(min)

    def most_expensive(self) -> Path:
        """The member of most MACs, then most params, then first in symbol order."""
        return self._extreme(max)

    def _extreme(self, choose: Callable[[Iterable[int]], int]) -> Path:
        ends: list[Sequence[int]] = [[0]]
        for level in reversed(self.arcs):
            ends.append(
                [choose(arc.cost + ends[-1][arc.target] for arc in state) for state in level]
            )
        ends.reverse()
        path: list[Symbol] = []
        state = 0
        for states, here, after in zip(self.arcs, ends, ends[1:], strict=False):
            best = next(
                arc for arc in states[state] if arc.cost + after[arc.target] == here[state]
            )
            path.append(best.symbol)
            state = best.target
        return tuple(path)
