from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from sharedattn.errors import InputError
from sharedattn.placement import Kind, LayerChoice, MechanismOptions, Placement
from sharedattn.placement.shape import StageShape
from sharedattn.spaces.automaton import Automaton, Path, build
from sharedattn.spaces.space import Space
from sharedattn.spaces.stages import CountedStage, ListedStage, read_stage, symbol_key
from sharedattn.yaml_text import DocumentError

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


def test_counts_expand_in_order_or_in_any(
    make_space: Callable[..., Space], paths: Callable[[Automaton], Iterator[Path]]
) -> None:
    stage = CountedStage(depth=(2,), counts=((0, 1), (0, 1, 2), (0, 1), (0,)))
    assert texts(make_space(stage, order="EVLN"), paths) == ["E1V1/s64", "V1L1", "V2"]
    assert texts(make_space(stage), paths) == ["E1V1/s64", "V1E1/s64", "V1L1", "V2"]


def test_options_that_mean_nothing_vanish(
    make_space: Callable[..., Space], paths: Callable[[Automaton], Iterator[Path]]
) -> None:
    stage = CountedStage(
        depth=(1, 2),
        counts=((0, 1), (1, 2), (0,), (0,)),
        slots=(5, 7),
        dia=(0, 2),
        cb=(2, "all"),
    )
    # One layer: no 2 DIA groups, no last 2. Two layers: last 2 are all; slots only with an E.
    assert texts(make_space(stage, order="EVLN"), paths) == [
        "E1V1/s5/cb",
        "E1V1/s5/dia2/cb",
        "E1V1/s7/cb",
        "E1V1/s7/dia2/cb",
        "V1/cb",
        "V2/cb",
        "V2/dia2/cb",
    ]


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


def test_symbols_sort_by_kind_slots_form_cell_and_broadcasting(choices: Choices) -> None:
    less = ("L", "L/cb", "L/full", "L/keys", "L/lowrank3", "L/lowrank16", "L/reuse")
    external = ("E/s5", "E/s5/d0", "E/s5/mea", "E/s7")
    expected = [*choices(*external, "V", "V/cb", "V/d0", *less, "N"), None]
    assert sorted(reversed(expected), key=symbol_key) == expected


def test_layers_of_a_kind_have_one_form(
    make_space: Callable[..., Space], paths: Callable[[Automaton], Iterator[Path]]
) -> None:
    stage = CountedStage(
        depth=(3,),
        counts=((0, 1), (1, 2), (0, 1, 2), (0,)),
        slots=(5,),
        external_form=(None, "mea"),
        less_form=(None, "reuse"),
    )
    assert texts(make_space(stage, order="EVLN"), paths) == [
        "E1V1L1/s5",
        "E1V1L1/s5/mea",
        "E1V1L1/s5/mea/reuse",
        "E1V1L1/s5/reuse",
        "E1V2/s5",
        "E1V2/s5/mea",
        "V1L2",
        "V1L2/reuse",
        "V2L1",
        "V2L1/reuse",
    ]


def test_a_form_that_is_the_default_is_one_member_with_it(
    make_space: Callable[..., Space],
    paths: Callable[[Automaton], Iterator[Path]],
    choices: Choices,
    stage_shape: MakeShape,
) -> None:
    counted = CountedStage(
        depth=(2,), counts=((0,), (1,), (1,), (0,)), less_form=("keys", None, "full")
    )
    assert counted.less_form == (None, "full", "keys")
    listed = ListedStage(layers=(choices("V"), choices("L/keys", "L", "L/full")), depth=(2,))
    reduced = stage_shape(num_queries=13, num_keys=3)
    for stage in (counted, listed):
        # Full maps are the default of a stage with as many keys as queries, keys alone of others.
        assert texts(make_space(stage), paths) == ["V1L1", "V1L1/keys"]
        assert texts(make_space(stage, shapes=(reduced,)), paths) == ["V1L1", "V1L1/full"]
    space = make_space(counted, shapes=(reduced,))
    assert space.stages == (replace(counted, less_form=(None, "full")),)
    assert space.stages[0].on(reduced, MechanismOptions(), ()) == space.stages[0]


def test_maps_that_a_stage_cannot_carry_are_refused(
    make_space: Callable[..., Space],
    choices: Choices,
    stage_shape: MakeShape,
) -> None:
    large, small = stage_shape(num_queries=3136, num_keys=49), stage_shape()
    counts = {"V": 1, "L": 1}
    stage = read_stage({"counts": counts, "depth": 2, "less_form": ["reuse", "full"]}, ())
    with pytest.raises(
        DocumentError,
        match=r"^stages\[1\]\.less_form: `a map has .* /full over 3,136 .*write /keys",
    ):
        make_space(stage, stage, shapes=(small, large))
    listed = ListedStage(layers=(choices("V"), choices("L", "L/lowrank8")), depth=(2,))
    with pytest.raises(DocumentError, match=r"^stages\[0\]\.layers\[1\]: `rank <= tokens` must"):
        make_space(listed, shapes=(small,))
    assert make_space(listed, shapes=(large,)).automaton.size == 2
    # A form that no layer can have is never a map.
    without = read_stage({"counts": {"V": 2}, "depth": 2, "less_form": "full"}, ())
    assert make_space(without, shapes=(large,)).automaton.size == 1


def test_documents_are_read_with_defaults() -> None:
    assert read_stage({"counts": {"V": "1..2", "N": 1}, "depth": [3, 2]}, ()) == CountedStage(
        depth=(2, 3),
        counts=((0,), (1, 2), (0,), (1,)),
        slots=(64,),
        external_form=(None,),
        less_form=(None,),
        dia=(0,),
        cb=(0,),
    )
    forms = {"less_form": ["reuse", "lowrank16", "lowrank3", "default"], "external_form": "mea"}
    assert read_stage({"counts": {"V": 2}, "depth": 2, **forms}, ()) == CountedStage(
        depth=(2,),
        counts=((0,), (2,), (0,), (0,)),
        external_form=("mea",),
        less_form=(None, "lowrank3", "lowrank16", "reuse"),
    )
    assert read_stage({"layers": ["V", ["N/cb", "L"]]}, ()) == ListedStage(
        layers=(
            (LayerChoice(Kind.VANILLA),),
            (LayerChoice(Kind.LESS), LayerChoice(Kind.NONE, cb=True)),
        ),
        depth=(2,),
    )


@pytest.mark.parametrize(
    ("value", "last"),
    [
        ("none", (0,)),
        ("all", ("all",)),
        ("1..3", (1, 2, 3)),
        (2, (2,)),
        (["all", 2, "none"], (0, 2, "all")),
    ],
)
def test_broadcasting_in_last_layers(value: Any, last: tuple[Any, ...]) -> None:
    stage = read_stage({"counts": {"V": 3}, "depth": 3, "cb": value}, ())
    assert isinstance(stage, CountedStage)
    assert stage.cb == last


def test_a_stage_is_its_document(small: tuple[Space, set[Placement]]) -> None:
    for stage in small[0].stages:
        assert read_stage(stage.to_document(), ()) == stage


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("V", "`a stage is a mapping with either counts or layers` must hold, but got 'V'"),
        ({"depth": 3}, "`a stage is a mapping with either counts or layers` must hold"),
        ({"counts": {}, "layers": []}, "`a stage is a mapping with either counts or layers`"),
        ({"counts": {"V": 1}}, "`depth` is missing here"),
        ({"counts": {"Q": 1}, "depth": 1}, r"counts\.Q: unknown key 'Q'"),
        ({"counts": {"V": 1}, "depth": 0}, "`depth` is a rising list of whole numbers >= 1"),
        ({"counts": {"V": 1}, "depth": 1, "slots": 0}, "`slots` is a rising list"),
        ({"counts": {"V": 1}, "depth": 1, "cb": ["all", "all"]}, r"cb\[1\]: .* 'all' repeats"),
        ({"counts": {"V": 1}, "depth": 1, "cb": ["none", 0]}, r"cb\[1\]: .* 0 repeats"),
        ({"counts": {"V": 1}, "depth": 1, "cb": []}, "cb: `a list has an entry`"),
        ({"counts": {"V": 1}, "depth": 1, "cb": ["some"]}, r"cb\[0\]: .* but got 'some'"),
        (
            {"counts": {"V": 1}, "depth": 1, "less_form": ["keys", "mea"]},
            r"less_form\[1\]: `this is one of default, full, keys, lowrankR, reuse` must .* 'mea'",
        ),
        (
            {"counts": {"V": 1}, "depth": 1, "external_form": "default"},
            "external_form: `this is one of single, mea` must hold, but got 'default'",
        ),
        ({"counts": {"V": 1}, "depth": 1, "less_form": 7}, "less_form: `this is a text` must"),
        ({"layers": "V"}, "`layers is a list, one entry a position` must hold, but got 'V'"),
        ({"layers": ["V", "Q"]}, r"layers\[1\]: `a layer is V \(vanilla\), L"),
        ({"layers": ["V", "V"], "depth": 1}, "`the most of depth is the number of layer pos"),
        ({"layers": ["V"], "slots": 1}, "unknown key 'slots'; known here: layers, depth"),
    ],
)
def test_a_stage_refused(document: Any, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        read_stage(document, ())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": (2, 1)}, r"`depth` is a rising list of whole numbers >= 1, but got \[2, 1\]"),
        ({"counts": (ANY, ANY, (1, 1), ANY)}, r"`counts\.L` is a rising list"),
        ({"dia": ()}, "`dia` is a rising list"),
        ({"cb": (2, 1)}, "`cb` is a rising list of whole numbers >= 0"),
        ({"cb": ("all", 1)}, "`cb` is a rising list of whole numbers and then `all`"),
        ({"cb": ()}, "`cb` is a rising list of whole numbers and then `all`"),
        ({"less_form": ()}, r"`less_form` is a list of forms of kind L, but got \[\]"),
        ({"external_form": ("keys",)}, r"`external_form` is a list of forms of kind E, but got"),
    ],
)
def test_numbers_of_a_counted_stage_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CountedStage(**{"depth": (1,), "counts": (ANY,) * 4, **arguments})


def test_choices_of_a_listed_stage_refused(choices: Choices) -> None:
    with pytest.raises(InputError, match="`each layer position has a choice` must hold"):
        ListedStage(layers=(choices("V"), ()), depth=(2,))
