"""The members of a stage given by counts, as a deterministic automaton."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from functools import cache
from typing import Literal, NamedTuple

from sharedattn.mechanisms.interface import Options
from sharedattn.mechanisms.registry import branch_of
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
    """Determines which layers of a stage exist, are gated, and broadcast.

    Integers only: the order of a set of extents decides the order of moves.

    Attributes:
        depth: number of layers, without those that are left out.
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
        num_present: number of layers so far that are not left out.
    """

    extents: frozenset[_Extent]
    options: tuple[tuple[Options, ...], ...]
    left: tuple[tuple[int, ...], ...]
    last: int
    num_present: int


_Gating = tuple[GateCell | None, bool]
"""The cell of a layer, and whether it broadcasts context."""


class CountedLanguage(StageLanguage):
    """The members of a stage given by counts, in which left-out layers may stand last as well."""

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
        self._absent = [i for i, letter in enumerate(counts) if branch_of(letter).is_absent]
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
        left_out = {0}
        for place in self._absent:
            left_out = {before + n for before in left_out for n in self._counts[place]}
        extents = frozenset(
            _Extent(depth, groups, with_cb)
            for depth in sorted({total - n for total in self._depths for n in left_out})
            for groups, said in self._groups.items()
            for with_cb in (depth if last == "all" else last for last in self._last_layers)
            if (said is None or said.number <= depth) and with_cb <= depth
        )
        left = tuple(_within(numbers, self.max_depth) for numbers in self._counts)
        return _CountedState(extents, self._options, left, 0, 0)

    def moves(self, state: _CountedState | None, position: int) -> Mapping[Symbol, Hashable]:
        """The layers that counts, options and extents still allow."""
        if state is None:
            return {None: None}
        moves: dict[Symbol, Hashable] = {}
        present = [place for place in range(len(self._letters)) if place not in self._absent]
        for gating, extents in self._split(state.extents, state.num_present).items():
            if gating is not None:
                moves.update(self._layers(state, position, present, extents, gating))
            elif position in self._depths and all(0 in numbers for numbers in state.left):
                moves[None] = None
        # A layer that is left out does not tell which extents remain.
        moves.update(self._layers(state, position, self._absent, state.extents, (None, False)))
        return moves

    def _layers(
        self,
        state: _CountedState,
        position: int,
        places: Iterable[int],
        extents: frozenset[_Extent],
        gating: _Gating,
    ) -> Iterator[tuple[Symbol, Hashable]]:
        """Yield each layer of some kinds that counts and options allow, with the state after it.

        Args:
            state: before the layer.
            position: of the layer.
            places: indices of the kinds.
            extents: those that agree with the layer.
            gating: of the layer.
        """
        remaining = self.max_depth - position - 1
        for place in places:
            left = _within((number - 1 for number in state.left[place]), remaining)
            if place < state.last or not left:
                continue
            after = tuple(
                left if other == place else _within(numbers, remaining)
                for other, numbers in enumerate(state.left)
            )
            last = place if self._ordered else 0
            num_present = state.num_present + (place not in self._absent)
            for options in state.options[place]:
                known = tuple(
                    # Options of a kind that cannot occur again do not matter.
                    ((options,) if other == place else others)
                    if other >= last and any(after[other])
                    else ()
                    for other, others in enumerate(state.options)
                )
                choice = self._choice(self._letters[place], options, *gating)
                yield choice, _CountedState(extents, known, after, last, num_present)

    def _parts_at(
        self, extents: frozenset[_Extent], position: int
    ) -> dict[_Gating | None, frozenset[_Extent]]:
        """The extents grouped by cell and cb at `position`, or by None past their end.

        Args:
            extents: the extents.
            position: among the layers that are not left out.
        """
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
