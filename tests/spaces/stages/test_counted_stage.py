from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from made_up_parts import Mixer

from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import Options
from sharedattn.placement import LayerChoice, MechanismOptions
from sharedattn.shape import StageShape
from sharedattn.spaces.automaton import Automaton, Path
from sharedattn.spaces.space import Space
from sharedattn.spaces.stages import CountedStage, ListedStage, read_stage
from sharedattn.testing import registered
from sharedattn.yaml_text import DocumentError

Choices = Callable[..., tuple[LayerChoice, ...]]
ANY = (0, 1, 2, 3)


MakeShape = Callable[..., StageShape]


def texts(space: Space, paths: Callable[[Automaton], Iterator[Path]]) -> list[str]:
    return sorted(str(space.automaton.placement(path)) for path in paths(space.automaton))


def test_counts_expand_in_order_or_in_any(
    make_space: Callable[..., Space], paths: Callable[[Automaton], Iterator[Path]]
) -> None:
    stage = CountedStage(depth=(2,), counts={"E": (0, 1), "V": (0, 1, 2), "L": (0, 1)})
    assert texts(make_space(stage, order="EVLN"), paths) == ["E1V1/s64", "V1L1", "V2"]
    assert texts(make_space(stage), paths) == ["E1V1/s64", "V1E1/s64", "V1L1", "V2"]


def test_options_that_mean_nothing_vanish(
    make_space: Callable[..., Space], paths: Callable[[Automaton], Iterator[Path]]
) -> None:
    stage = CountedStage(
        depth=(1, 2),
        counts={"E": (0, 1), "V": (1, 2)},
        options={"slots": (5, 7)},
        gates={"dia": (0, 2)},
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


def test_layers_of_a_kind_have_one_form(
    make_space: Callable[..., Space], paths: Callable[[Automaton], Iterator[Path]]
) -> None:
    stage = CountedStage(
        depth=(3,),
        counts={"E": (0, 1), "V": (1, 2), "L": (0, 1, 2)},
        options={"slots": (5,), "external_form": (None, "mea"), "less_form": (None, "reuse")},
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
        depth=(2,), counts={"V": (1,), "L": (1,)}, options={"less_form": ("keys", None, "full")}
    )
    assert counted.options["less_form"] == (None, "full", "keys")
    listed = ListedStage(layers=(choices("V"), choices("L/keys", "L", "L/full")), depth=(2,))
    reduced = stage_shape(num_queries=13, num_keys=3)
    for stage in (counted, listed):
        # Full maps are the default of a stage with as many keys as queries, keys alone of others.
        assert texts(make_space(stage), paths) == ["V1L1", "V1L1/keys"]
        assert texts(make_space(stage, shapes=(reduced,)), paths) == ["V1L1", "V1L1/full"]
    space = make_space(counted, shapes=(reduced,))
    assert space.stages == (replace(counted, options={"less_form": (None, "full")}),)
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
        match=r"^stages\[1\]\.less_form: .*write /keys",
    ):
        make_space(stage, stage, shapes=(small, large))
    listed = ListedStage(layers=(choices("V"), choices("L", "L/lowrank8")), depth=(2,))
    with pytest.raises(
        DocumentError, match=r"^stages\[0\]\.layers\[1\]: `/lowrank8` has a higher rank"
    ):
        make_space(listed, shapes=(small,))
    assert make_space(listed, shapes=(large,)).automaton.size == 2
    # A form that no layer can have is never a map.
    without = read_stage({"counts": {"V": 2}, "depth": 2, "less_form": "full"}, ())
    assert make_space(without, shapes=(large,)).automaton.size == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": (2, 1)}, r"`depth` is \[2, 1\]; give a rising list of whole numbers >= 1"),
        ({"counts": {"V": ANY, "L": (1, 1)}}, r"`counts\.L` is \[1, 1\]; give a rising list"),
        ({"gates": {"dia": ()}}, r"`dia` is \[\]; give a rising list"),
        ({"cb": (2, 1)}, r"`cb` is \[2, 1\]; give a rising list of whole numbers >= 0"),
        ({"cb": ("all", 1)}, "`cb` is a rising list of whole numbers and then `all`"),
        ({"cb": ()}, "`cb` is a rising list of whole numbers and then `all`"),
        (
            {"options": {"less_form": ()}},
            r"`less_form` is .* kind L, but got \[\]: it is empty",
        ),
        (
            {"options": {"external_form": ("keys",)}},
            r"`external_form` is a list of forms of kind E, but .*: `form` is 'keys'; it is one",
        ),
        ({"counts": {"Q": (1,)}}, "'Q' is no kind of layer here; known are V"),
        (
            {"options": {"keys": (1,)}},
            "`options` has unknown key 'keys'; known: slots, external_form, less_form$",
        ),
        (
            {"gates": {"d": (1,)}},
            "`gates` has unknown key 'd'; known: dia, se, eca, cbam, gc, srm, sge(, xse)?$",
        ),
    ],
)
def test_numbers_of_a_counted_stage_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CountedStage(**{"depth": (1,), "counts": dict.fromkeys("EVLN", ANY), **arguments})


@pytest.mark.usefixtures("others_parts")
def test_others_parts_stand_in_documents_where_a_stage_uses_them() -> None:
    counts = {"V": "0..2", "M": [0, 2]}
    document = {"counts": counts, "depth": 2, "mixer_width": [2, 5], "sq": "0..1"}
    stage = read_stage(document, ())
    assert stage == CountedStage(
        depth=(2,),
        counts={"V": (0, 1, 2), "M": (0, 2)},
        options={"mixer_width": (2, 5)},
        gates={"sq": (0, 1)},
    )
    # By rank, ours though they are not used.
    assert json.dumps(stage.to_document()) == json.dumps(
        {
            "counts": {"E": [0], "M": [0, 2], "V": [0, 1, 2], "L": [0], "N": [0]},
            "depth": [2],
            "slots": [64],
            "external_form": ["single"],
            "mixer_width": [2, 5],
            "mixer_reach": [1],
            "mixer_form": ["default"],
            "less_form": ["default"],
            "sq": [0, 1],
            "dia": [0],
            "cb": [0],
        }
    )
    assert read_stage(stage.to_document(), ()) == stage
    unused = {"counts": {"V": 2, "M": 0}, "depth": 2, "mixer_width": 5, "sq": 0, "dia": [0, 1]}
    assert json.dumps(read_stage(unused, ()).to_document()) == json.dumps(
        {
            "counts": {"E": [0], "V": [2], "L": [0], "N": [0]},
            "depth": [2],
            "slots": [64],
            "external_form": ["single"],
            "less_form": ["default"],
            "dia": [0, 1],
            "cb": [0],
        }
    )


@pytest.mark.usefixtures("others_parts")
def test_a_stage_has_one_gate_at_most(
    make_space: Callable[..., Space], paths: Callable[[Automaton], Iterator[Path]]
) -> None:
    def found(**gates: tuple[int, ...]) -> list[str]:
        stage = CountedStage(depth=(2,), counts={"V": (2,)}, gates=gates)
        return texts(make_space(stage), paths)

    assert found(dia=(0, 1), sq=(0, 2)) == ["V2", "V2/dia1", "V2/sq2"]
    # Where numbers of one lack 0, it is there, and the other is not.
    assert found(dia=(1, 2), sq=(0, 2)) == ["V2/dia1", "V2/dia2"]
    with pytest.raises(InputError, match="`sq` and `dia` each require a gate, but a layer has at"):
        found(dia=(1,), sq=(1, 2))


@pytest.mark.usefixtures("others_parts")
@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"mixer_width": [2, 10]}, "`width` is 10; it is a whole number of at least 1 and at"),
        ({"mixer_width": 0}, r"`mixer_width` is \[0\]; give a rising list of whole numbers >= 1"),
        ({"mixer_form": "deep"}, "mixer_form: this is 'deep'; it is one of default, wide, deepR"),
        ({"counts": {"Q": 1}}, "unknown key 'Q'; known here: V, L, E, N, X, (S, )?M, K, P"),
        (
            {"mixer": 1},
            "unknown key 'mixer'; known here: counts, depth, slots, external_form, mixer_width, "
            "mixer_reach, mixer_form, less_form, sq, dia, se, eca, cbam, gc, srm, sge, (xse, )?cb",
        ),
    ],
)
def test_others_options_are_read_as_strictly(document: Any, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        read_stage({"counts": {"M": 1}, "depth": 1, **document}, ())


def test_a_default_that_numbers_decide_is_refused(make_space: Callable[..., Space]) -> None:
    class Whimsical(Mixer):
        def canonical(self, options: Options, stage: StageShape) -> Options:
            is_default = dict(options) in (
                {"width": 2, "reach": 1, "form": "wide"},
                {"width": 3, "reach": 1, "form": "deep1"},
            )
            return options[:2] if is_default else options

    with registered(Whimsical()):
        options = {"mixer_width": (2, 3), "mixer_form": ("deep1",)}
        stage = CountedStage(depth=(1,), counts={"M": (1,)}, options=options)
        assert make_space(stage).automaton.size == 2
        options["mixer_form"] = (None, "wide")
        stage = CountedStage(depth=(1,), counts={"M": (1,)}, options=options)
        with pytest.raises(DocumentError, match=r"counts\.M: the default form of made-up mixing"):
            make_space(stage)
