"""A space as a minimal deterministic automaton: a path per member, a symbol per position.

Every path has a symbol for each position at full depth; after a stage's last layer, the remaining
positions are None. Levels are the states between symbols, level 0 before the first, so forward and
backward passes over levels give sizes, ranges and tables of costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

from sharedattn.errors import InputError
from sharedattn.placement import GateCell, LayerChoice, Placement
from sharedattn.spaces.constraints import Constraint, State
from sharedattn.spaces.stages.language import StageLanguage, Symbol, symbol_key

MAX_STATES_PER_LEVEL = 200_000
"""Most states of a level that fit in memory with its tables; real spaces have hundreds."""

Path = tuple[Symbol, ...]


class Edge(NamedTuple):
    """A possible next symbol.

    Attributes:
        symbol: the choice at this position, or None after the stage's last layer.
        new_cell: whether the symbol is the first of its stage with its gate's cell.
        target: index of the following state, in the next level.
    """

    symbol: Symbol
    new_cell: bool
    target: int


@dataclass(frozen=True)
class Automaton:
    """The members of a space as paths from the only state of level 0 to that of the last level.

    Attributes:
        depths: number of positions in each stage.
        levels: states per level, each a tuple of edges sorted by symbol; every state is on some
            member's path. Without members there are no levels.
    """

    depths: tuple[int, ...]
    levels: tuple[tuple[tuple[Edge, ...], ...], ...]

    @cached_property
    def positions(self) -> tuple[tuple[int, int], ...]:
        """Stage and position within it, both from 0, of the symbol after each level."""
        return tuple(
            (stage, position)
            for stage, depth in enumerate(self.depths)
            for position in range(depth)
        )

    @cached_property
    def alphabets(self) -> tuple[tuple[Symbol, ...], ...]:
        """The symbols at each position over all members, sorted."""
        return tuple(
            tuple(sorted({edge.symbol for state in level for edge in state}, key=symbol_key))
            for level in self.levels[:-1]
        )

    @cached_property
    def size(self) -> int:
        """Number of members."""
        if not self.levels:
            return 0
        paths = [1]
        for level in reversed(self.levels[:-1]):
            paths = [sum(paths[edge.target] for edge in state) for state in level]
        return paths[0]

    def path(self, placement: Placement) -> Path | None:
        """The symbols of `placement`, or None if its stages do not fit."""
        if len(placement.stages) != len(self.depths) or any(
            len(stage) > depth for stage, depth in zip(placement.stages, self.depths, strict=True)
        ):
            return None
        return pad(placement.stages, self.depths)

    def accepts(self, path: Path) -> bool:
        """Whether `path` is a member."""
        state = 0
        for symbol, level in zip(path, self.levels[:-1], strict=True):
            edge = next((edge for edge in level[state] if edge.symbol == symbol), None)
            if edge is None:
                return False
            state = edge.target
        return True

    def placement(self, path: Sequence[Symbol]) -> Placement:
        """The placement of a path; the inverse of `path`."""
        return Placement(tuple(stages_of(path, self.depths)))

    def cover(self) -> Iterator[Path]:
        """Members that together have all of the space's symbols at every position."""
        ends: list[list[Path]] = [[()]]
        for level in reversed(self.levels[:-1]):
            ends.append([(state[0].symbol, *ends[-1][state[0].target]) for state in level])
        ends.reverse()
        begins: dict[int, Path] = {0: ()}
        for states, after in zip(self.levels[:-1], ends[1:], strict=True):
            following: dict[int, Path] = {}
            for index, begin in begins.items():
                for edge in states[index]:
                    yield (*begin, edge.symbol, *after[edge.target])
                    following.setdefault(edge.target, (*begin, edge.symbol))
            begins = following


def pad(stages: Sequence[Sequence[LayerChoice]], depths: Sequence[int]) -> Path:
    """The layers of all stages in sequence, each stage padded with None to its depth."""
    return tuple(
        symbol
        for stage, depth in zip(stages, depths, strict=True)
        for symbol in (*stage, *(None,) * (depth - len(stage)))
    )


def stages_of(path: Sequence[Symbol], depths: Sequence[int]) -> Iterator[tuple[LayerChoice, ...]]:
    """The layers of each stage of a padded path."""
    begin = 0
    for depth in depths:
        yield tuple(symbol for symbol in path[begin : begin + depth] if symbol is not None)
        begin += depth


Cells = tuple[GateCell, ...]
"""Number of cells of each gate used in a stage so far, by name."""


def count_cell(cells: Cells, symbol: Symbol) -> tuple[bool, Cells]:
    """Whether a symbol is the first of its stage with its gate's cell, and the cells so far.

    Args:
        cells: cells used in the stage before it.
        symbol: symbol with canonical cells.
    """
    gate = None if symbol is None else symbol.gate
    if gate is None:
        return False, cells
    numbers = dict(cells)
    if gate.cell != numbers.get(gate.gate, 0):
        return False, cells
    numbers[gate.gate] = gate.cell + 1
    return True, tuple(GateCell(*pair) for pair in sorted(numbers.items()))


def of_paths(paths: Iterable[Path], depths: tuple[int, ...]) -> Automaton:
    """The minimal automaton of listed members.

    Args:
        paths: the members, with canonical cells.
        depths: number of positions in each stage.
    """
    positions = [position for depth in depths for position in range(depth)]
    levels: list[list[list[Edge]]] = []
    states: list[list[tuple[Cells, Path]]] = [[((), path) for path in dict.fromkeys(paths)]]
    for level, position in enumerate(positions):
        following: list[list[tuple[Cells, Path]]] = []
        levels.append([])
        for members in states:
            begun: dict[tuple[Symbol, bool], list[tuple[Cells, Path]]] = {}
            for cells, path in members:
                symbol = path[level]
                new_cell, after = count_cell(cells if position else (), symbol)
                begun.setdefault((symbol, new_cell), []).append((after, path))
            levels[-1].append([Edge(*move, len(following) + i) for i, move in enumerate(begun)])
            following += begun.values()
        states = following
    return Automaton(depths, _minimal(levels, len(states)))


class _State(NamedTuple):
    """The state that determines a member's continuations.

    Attributes:
        stage: state of the stage's language.
        cells: gates' cells used in the stage so far.
        constraints: states of all constraints.
    """

    stage: State
    cells: Cells
    constraints: tuple[State, ...]


def build(languages: Sequence[StageLanguage], constraints: Sequence[Constraint]) -> Automaton:
    """Build the minimal automaton of all placements that the stages and constraints allow.

    Args:
        languages: the legal members of each stage.
        constraints: rules over the layers of each stage or of the network.

    Raises:
        InputError: the constraints need too many states.
    """
    product = _Product(languages, constraints)
    states = [product.start]
    levels: list[list[list[Edge]]] = []
    for stage, language in enumerate(languages):
        for position in range(language.max_depth):
            index: dict[_State, int] = {}
            levels.append(
                [
                    [
                        Edge(symbol, new_cell, index.setdefault(target, len(index)))
                        for symbol, new_cell, target in product.moves(stage, state, position)
                    ]
                    for state in states
                ]
            )
            if len(index) > MAX_STATES_PER_LEVEL:
                raise InputError(
                    f"layer {position + 1} of stage {stage + 1} needs {len(index)} states, and at "
                    f"most {MAX_STATES_PER_LEVEL} can be held; use fewer constraints, or fewer "
                    f"labels of gates in a list of layers"
                )
            states = list(index)
    depths = tuple(language.max_depth for language in languages)
    return Automaton(depths, _minimal(levels, len(states)))


class _Product:
    """The product of all stages' languages and the constraints.

    Attributes:
        start: the state before the first symbol.
    """

    def __init__(
        self, languages: Sequence[StageLanguage], constraints: Sequence[Constraint]
    ) -> None:
        self._languages, self._constraints = languages, constraints
        # Many constraint states share one state of a language.
        self._moves = [cache(language.moves) for language in languages]
        self.start = _State(languages[0].start, (), tuple(c.start for c in constraints))

    def moves(
        self, stage: int, state: _State, position: int
    ) -> Iterator[tuple[Symbol, bool, _State]]:
        """Each possible next symbol, whether its cell is new, and the state after it."""
        is_last = position + 1 == self._languages[stage].max_depth
        for symbol, stage_state in self._moves[stage](state.stage, position).items():
            new_cell, target = False, _State(None, (), state.constraints)
            if symbol is not None:
                pairs = zip(self._constraints, state.constraints, strict=True)
                after = tuple(
                    constraint.step(before, symbol) if constraint.reads(symbol) else before
                    for constraint, before in pairs
                )
                if None in after:
                    continue
                new_cell, cells = count_cell(state.cells, symbol)
                target = _State(stage_state, cells, after)
            ended = self._end_stage(target, stage) if is_last else target
            if ended is not None:
                yield symbol, new_cell, ended

    def _end_stage(self, state: _State, stage: int) -> _State | None:
        """The state before the next stage, or None if the stage or network cannot end here."""
        is_last = stage + 1 == len(self._languages)
        if None not in self._moves[stage](state.stage, self._languages[stage].max_depth):
            return None
        after: list[State] = []
        for constraint, before in zip(self._constraints, state.constraints, strict=True):
            ends = is_last or constraint.per == "stage"
            if ends and not constraint.accepts(before):
                return None
            after.append(constraint.start if ends else before)
        return _State(None if is_last else self._languages[stage + 1].start, (), tuple(after))


def _minimal(
    levels: list[list[list[Edge]]], num_ends: int
) -> tuple[tuple[tuple[Edge, ...], ...], ...]:
    """Remove dead states and merge equivalent ones, last level first."""
    merged: list[tuple[tuple[Edge, ...], ...]] = [((),)] if num_ends else [()]
    # New indices of the states one level up; all states after the last symbol are the end.
    place: dict[int, int] = dict.fromkeys(range(num_ends), 0)
    for level in reversed(levels):
        index: dict[tuple[Edge, ...], int] = {}
        new_place: dict[int, int] = {}
        for number, edges in enumerate(level):
            alive = [
                Edge(edge.symbol, edge.new_cell, place[edge.target])
                for edge in edges
                if edge.target in place
            ]
            if alive:
                alive.sort(key=lambda edge: symbol_key(edge.symbol))
                new_place[number] = index.setdefault(tuple(alive), len(index))
        merged.append(tuple(index))
        place = new_place
    merged.reverse()
    return tuple(merged) if merged[0] else ()
