from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sharedattn.errors import InputError
from sharedattn.placement import LayerChoice
from sharedattn.shape import StageShape
from sharedattn.spaces.automaton import Automaton, Path, build
from sharedattn.spaces.space import Space
from sharedattn.spaces.stages import ListedStage

Choices = Callable[..., tuple[LayerChoice, ...]]
ANY = (0, 1, 2, 3)


MakeShape = Callable[..., StageShape]


def texts(space: Space, paths: Callable[[Automaton], Iterator[Path]]) -> list[str]:
    return sorted(str(space.automaton.placement(path)) for path in paths(space.automaton))


def test_labels_that_differ_in_name_alone_are_one_member(
    make_space: Callable[..., Space],
    paths: Callable[[Automaton], Iterator[Path]],
    choices: Choices,
) -> None:
    position = choices("V/d0", "V/d5", "V/d9")
    space = make_space(ListedStage(layers=(position,) * 3, depth=(3,)))
    # Set partitions of three layers: Bell number 5 of 27 ways to write them.
    assert texts(space, paths) == sorted(
        ["V3/dia1", "V3/dia2", "V/d0,V/d1,V/d1", "V/d0,V/d1,V/d0", "V3/dia3"]
    )


def test_labels_of_one_layer_each_need_few_states(choices: Choices) -> None:
    layers = tuple(choices("V", f"V/d{position}") for position in range(12))
    automaton = build([ListedStage(layers=layers, depth=(12,)).language(False)], ())
    assert automaton.size == 2**12
    # One state per number of cells used so far.
    assert [len(level) for level in automaton.levels] == [*range(1, 13), 1]


def test_choices_of_a_listed_stage_refused(choices: Choices) -> None:
    with pytest.raises(InputError, match="`layers` has a position without a choice"):
        ListedStage(layers=(choices("V"), ()), depth=(2,))


def test_states_are_alike_in_every_process(choices: Choices) -> None:
    # Hashes of texts and of None differ from process to process, and with them orders of sets.
    layers = (choices("V/d0", "V/d1"), choices("V/d1", "V/d2", "V"), choices("V", "V/d2"))
    language = ListedStage(layers=layers, depth=(3,)).language(False)
    states: list[Any] = [language.start]
    for position in range(3):
        states = [after for state in states for after in language.moves(state, position).values()]
        assert all(type(entry) is int for state in states for n in state for entry in n)


@pytest.mark.usefixtures("others_parts")
def test_cells_of_each_gate_are_numbered_by_themselves(
    make_space: Callable[..., Space],
    paths: Callable[[Automaton], Iterator[Path]],
    choices: Choices,
) -> None:
    layers = (choices("V/d7", "V/q7"), choices("V/q3", "V/d3"), choices("V/q7"), choices("V/d7"))
    space = make_space(ListedStage(layers=layers, depth=(4,)))
    assert texts(space, paths) == [
        "V/d0,V/d1,V/q0,V/d0",
        "V/d0,V/q0,V/q1,V/d0",
        "V/q0,V/d0,V/q0,V/d1",
        "V/q0,V/q1,V/q0,V/d0",
    ]
