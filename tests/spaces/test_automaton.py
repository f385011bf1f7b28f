from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sharedattn.errors import InputError
from sharedattn.placement import LayerChoice, Placement
from sharedattn.spaces import automaton as automaton_module
from sharedattn.spaces.automaton import build, of_paths, pad, stages_of
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.constraints import First
from sharedattn.spaces.space import Space
from sharedattn.spaces.stages import CountedStage, ListedStage

V, N = LayerChoice.of("V"), LayerChoice.of("N")


def test_no_two_states_of_a_level_have_the_same_future(
    small: tuple[Space, set[Placement]],
) -> None:
    futures: list[frozenset[Any]] = [frozenset({()})]
    for states in reversed(small[0].automaton.levels[:-1]):
        # The first use of a gate's cell costs more, so it is part of what follows.
        futures = [
            frozenset(
                ((edge.symbol, edge.new_cell), *rest)
                for edge in state
                for rest in futures[edge.target]
            )
            for state in states
        ]
        assert len(set(futures)) == len(futures)
        assert frozenset() not in futures


def test_a_closed_form_of_sizes(make_space: Callable[..., Space]) -> None:
    depths = tuple(range(1, 8))
    anything = tuple(range(8))
    stage = CountedStage(
        depth=depths, counts=dict.fromkeys("EVLN", anything), options={"slots": (5,)}
    )
    # Words over E, V, N of length n, plus those with an L somewhere after the first V: of a first
    # V at place i (from 0), 3 - 1 kinds before it and 4 after it.
    expected = sum(2**n + sum(2**i * 4 ** (n - 1 - i) for i in range(n)) for n in depths)
    assert make_space(stage).automaton.size == expected
    # Counts in order: C(n + 3, 3) sums of four, less those with an L and no V.
    ordered = sum((n + 3) * (n + 2) * (n + 1) // 6 - n * (n + 1) // 2 for n in depths)
    assert make_space(stage, order="EVLN").automaton.size == ordered


def test_a_path_and_its_placement_are_one(small: tuple[Space, set[Placement]]) -> None:
    space, members = small
    for placement in members:
        path = space.automaton.path(placement)
        assert path is not None
        assert space.automaton.accepts(path)
        assert space.automaton.placement(path) == placement


def test_a_placement_of_other_stages_has_no_path(small: tuple[Space, set[Placement]]) -> None:
    automaton = small[0].automaton
    assert automaton.path(Placement(((V,),) * (len(automaton.depths) + 1))) is None
    assert automaton.path(Placement(tuple((V,) * (n + 1) for n in automaton.depths))) is None


def test_stages_are_filled_up() -> None:
    assert pad([(V,), (N, V)], [2, 3]) == (V, None, N, V, None)
    assert list(stages_of((V, None, N, V, None), [2, 3])) == [(V,), (N, V)]


def test_alphabets_and_cover_have_every_symbol(small: tuple[Space, set[Placement]]) -> None:
    space, members = small
    automaton = space.automaton
    every = [automaton.path(placement) for placement in members]
    covering = list(automaton.cover())
    assert {automaton.placement(path) for path in covering} <= members
    for paths in (every, covering):
        by_position = [set(symbols) for symbols in zip(*(p for p in paths if p), strict=True)]
        assert by_position == [set(alphabet) for alphabet in automaton.alphabets]


def test_an_edge_tells_where_a_cell_is_new(
    choices: Callable[..., tuple[LayerChoice, ...]],
) -> None:
    # After V/d0 as after V,... the same symbols may follow, but only there V/d0 is a new cell.
    stage = ListedStage(layers=(choices("V", "V/d0"), choices("V/d0")), depth=(2,))
    levels = build([stage.language(False)], ()).levels
    assert [[edge.new_cell for edge in state] for state in levels[0]] == [[False, True]]
    assert sorted(edge.new_cell for state in levels[1] for edge in state) == [False, True]


def test_a_space_without_members_has_no_level(
    choices: Callable[..., tuple[LayerChoice, ...]],
) -> None:
    stage = ListedStage(layers=(choices("N"),), depth=(1,))
    vanilla = First(kinds=frozenset({"V"}), per="stage")
    automaton = build([stage.language(False)], (vanilla,))
    assert automaton.levels == ()
    assert automaton.size == 0


def test_too_many_states_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automaton_module, "MAX_STATES_PER_LEVEL", 3)
    stage = CountedStage(depth=(4,), counts=dict.fromkeys("EVLN", (0, 2)))
    with pytest.raises(InputError, match="layer 1 of stage 1 needs 4 states, and at most 3 can"):
        build([stage.language(False)], ())


def test_listed_members_make_the_minimal_automaton_of_the_space_itself() -> None:
    for name in ("digit-count-vit", "digit-pairs-cut"):
        space = Space.load(name)
        whole = space.automaton
        paths = [whole.path(placement) for placement in BudgetedSpace(space).enumerate()]
        assert of_paths(paths, whole.depths).size == len(paths) == whole.size
        again = of_paths(paths[::-1], whole.depths)
        assert [len(level) for level in again.levels] == [len(level) for level in whole.levels]
        assert all(again.accepts(path) for path in paths)
        few = of_paths(paths[::7], whole.depths)
        assert sum(map(few.accepts, paths)) == few.size == len(paths[::7])
