from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from sharedattn.placement import LayerChoice, Placement
from sharedattn.shape import StageShape
from sharedattn.spaces.automaton import Automaton, Path
from sharedattn.spaces.space import Space
from sharedattn.spaces.stages import symbol_key

Choices = Callable[..., tuple[LayerChoice, ...]]
ANY = (0, 1, 2, 3)


MakeShape = Callable[..., StageShape]


def texts(space: Space, paths: Callable[[Automaton], Iterator[Path]]) -> list[str]:
    return sorted(str(space.automaton.placement(path)) for path in paths(space.automaton))


def test_each_member_is_one_path(
    small: tuple[Space, set[Placement]], paths: Callable[[Automaton], Iterator[Path]]
) -> None:
    space, members = small
    found = [space.automaton.placement(path) for path in paths(space.automaton)]
    assert len(found) == len(set(found)) == space.automaton.size
    assert set(found) == members


def test_symbols_sort_by_kind_slots_form_cell_and_broadcasting(choices: Choices) -> None:
    less = ("L", "L/cb", "L/full", "L/keys", "L/lowrank3", "L/lowrank16", "L/reuse")
    external = ("E/s5", "E/s5/d0", "E/s5/mea", "E/s7")
    expected = [*choices(*external, "V", "V/cb", "V/d0", *less, "N"), None]
    assert sorted(reversed(expected), key=symbol_key) == expected


@pytest.mark.usefixtures("others_parts")
def test_symbols_of_others_sort_by_rank(choices: Choices) -> None:
    expected = [*choices("P", "E/s5", "M/w2/h1", "M/w2/h1/wide", "M/w2/h1/deep2", "M/w2/h3")]
    expected += choices("M/w5/h1", "V", "V/q0", "V/q1", "V/d0", "V/d0/cb", "L", "N", "K")
    assert sorted(reversed(expected), key=symbol_key) == expected
