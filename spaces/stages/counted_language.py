"""The members of a stage given by counts, as a deterministic automaton."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from functools import cache
from typing import Literal, NamedTuple

from sharedattn.mechanisms.interface import Options
from sharedattn.placement import GateCell, LayerChoice, gate_runs
from sharedattn.spaces.stages.language import StageLanguage, Symbol


class StageGroups(NamedTuple):
    """A gate and the number of contiguous groups that share one of its cells each.

    Attributes:
        gate: name of the gate.
        number: number of groups; >= 1.
    """

    gate: str
    number: int


class _Extent(NamedTuple):
    """Determines which positions of a stage exist, are gated, and broadcast.

    Integers only: the order of a set of extents decides the order of moves.

    Attributes:
        depth: number of layers.
        groups: code of a `StageGroups`, or 0 for no gate.
        with_cb: number of last layers with context broadcasting.
    """

    depth: int
    groups: int
    with_cb: int


class _CountedState(NamedTuple):
    """The state that determines how a counted stage can continue.

    Attributes:
        extents: the extents that agree with the layers so far.
        options: per kind, the options that its next layer may have: those of its layers so far,
            or all if it has none yet.
        left: per kind, the allowed numbers of further layers.
        last: index of the last kind; 0 where kinds come in any order.
    """

    extents: frozenset[_Extent]
    options: tuple[tuple[Options, ...], ...]
    left: tuple[tuple[int, ...], ...]
    last: int


_Gating = tuple[GateCell | None, bool]
"""The cell of a layer, and whether it broadcasts context."""


class CountedLanguage(StageLanguage):
    """The members of a stage given by counts."""

    def __init__(
        self,
        *,
        depths: tuple[int, ...],
        counts: Mapping[str, tuple[int, ...]],
        options: Mapping[str, tuple[Options, ...]],
        groups: tuple[StageGroups | None, ...],
        last_layers: tuple[int | Literal["all"], ...],
        ordered: bool,
    ) -> None:
        """Build the language of a `CountedStage`.

        Args:
            depths: allowed numbers of layers.
            counts: allowed numbers of layers by letter.
            options: by letter, the options that all layers of the kind may have.
            groups: gates of the whole stage, with None for no gate.
            last_layers: allowed numbers of last layers with context broadcasting.
            ordered: whether kinds stand in the order of `counts`.
        """
        self.max_depth = max(depths)
        self.kinds = frozenset(letter for letter, numbers in counts.items() if max(numbers))
        self._depths = depths
        self._letters = tuple(counts)
        self._counts = tuple(counts.values())
        self._options = tuple(options[letter] for letter in counts)
        self._last_layers = last_layers
        self._ordered = ordered
        # The first gate is coded by its number of groups, others by numbers beyond any of these.
        gates = list(dict.fromkeys(g.gate for g in groups if g is not None))
        self._groups = {
            0 if g is None else g.number + gates.index(g.gate) * (self.max_depth + 1): g
            for g in groups
            if g is None or g.number <= self.max_depth
        }
        self._split = cache(self._parts_at)
        self._choice = cache(LayerChoice)

    @property
    def start(self) -> Hashable:
        """The state before the first layer, with every extent."""
        extents = frozenset(
            _Extent(depth, groups, with_cb)
            for depth in self._depths
            for groups, said in self._groups.items()
            for with_cb in (depth if last == "all" else last for last in self._last_layers)
            if (said is None or said.number <= depth) and with_cb <= depth
        )
        left = tuple(_within(numbers, self.max_depth) for numbers in self._counts)
        return _CountedState(extents, self._options, left, 0)

    def moves(self, state: _CountedState | None, position: int) -> Mapping[Symbol, Hashable]:
        """The layers that counts, options and extents still allow."""
        if state is None:
            return {None: None}
        moves: dict[Symbol, Hashable] = {}
        remaining = self.max_depth - position - 1
        for gating, extents in self._split(state.extents, position).items():
            if gating is None:
                if all(0 in numbers for numbers in state.left):
                    moves[None] = None
                continue
            for place, kind in enumerate(self._letters):
                left = _within((number - 1 for number in state.left[place]), remaining)
                if place < state.last or not left:
                    continue
                after = tuple(
                    left if other == place else _within(numbers, remaining)
                    for other, numbers in enumerate(state.left)
                )
                last = place if self._ordered else 0
                for options in state.options[place]:
                    known = tuple(
                        # Options of a kind that cannot occur again do not matter.
                        ((options,) if other == place else others)
                        if other >= last and any(after[other])
                        else ()
                        for other, others in enumerate(state.options)
                    )
                    choice = self._choice(kind, options, *gating)
                    moves[choice] = _CountedState(extents, known, after, last)
        return moves

    def _parts_at(
        self, extents: frozenset[_Extent], position: int
    ) -> dict[_Gating | None, frozenset[_Extent]]:
        """The extents grouped by cell and cb at `position`, or by None past their end."""
        parts: dict[_Gating | None, set[_Extent]] = defaultdict(set)
        for extent in extents:
            if position >= extent.depth:
                parts[None].add(extent)
                continue
            cell, groups = None, self._groups[extent.groups]
            if groups is not None:
                runs = gate_runs(extent.depth, groups.number, groups.gate)
                cell = GateCell(groups.gate, runs[position])
            parts[cell, position >= extent.depth - extent.with_cb].add(extent)
        return {gating: frozenset(part) for gating, part in parts.items()}


def _within(numbers: Iterable[int], most: int) -> tuple[int, ...]:
    """The numbers that can still be reached; dropping the rest merges equal futures."""
    return tuple(number for number in numbers if 0 <= number <= most)
