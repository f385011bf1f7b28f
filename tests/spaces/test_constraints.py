from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest

from sharedattn.errors import InputError
from sharedattn.placement import LayerChoice, Placement
from sharedattn.spaces.automaton import Automaton, Path
from sharedattn.spaces.constraints import (
    CONSTRAINTS,
    Constraint,
    Count,
    Equal,
    First,
    Last,
    LongestRun,
    MixingLayer,
    NeverAfter,
    read_constraint,
)
from sharedattn.spaces.space import Space
from sharedattn.spaces.stages import ListedStage
from sharedattn.yaml_text import DocumentError

V, L, E, N = "V", "L", "E", "N"
Layers = tuple[LayerChoice, ...]
Make = Callable[[Literal["stage", "network"]], Constraint]


def of(*kinds: str) -> frozenset[str]:
    return frozenset(kinds)


def kinds(layers: Layers) -> str:
    return "".join(layer.kind for layer in layers)


# Each constraint beside a predicate of the layers it reads, written without automata.
CASES: dict[str, tuple[Make, Callable[[Layers], bool]]] = {
    "least": (
        lambda per: Count(kinds=of(V, E), least=2, per=per),
        lambda layers: len(re.findall("[VE]", kinds(layers))) >= 2,
    ),
    "most": (
        lambda per: Count(kinds=of(N), most=1, per=per),
        lambda layers: kinds(layers).count("N") <= 1,
    ),
    "none of a kind": (
        lambda per: Count(kinds=of(L), most=0, per=per),
        lambda layers: "L" not in kinds(layers),
    ),
    "least and most": (
        lambda per: Count(kinds=of(E, L), least=1, most=2, per=per),
        lambda layers: 1 <= len(re.findall("[EL]", kinds(layers))) <= 2,
    ),
    "never after": (
        lambda per: NeverAfter(kinds=of(V, L), after=of(E), per=per),
        lambda layers: not re.search("E.*[VL]", kinds(layers)),
    ),
    "never after itself": (
        lambda per: NeverAfter(kinds=of(N), after=of(N), per=per),
        lambda layers: kinds(layers).count("N") <= 1,
    ),
    "runs of 1": (
        lambda per: LongestRun(kinds=of(N), length=1, per=per),
        lambda layers: "NN" not in kinds(layers),
    ),
    "runs of 2": (
        lambda per: LongestRun(kinds=of(V, E), length=2, per=per),
        lambda layers: not re.search("[VE]{3}", kinds(layers)),
    ),
    "equal kinds": (
        lambda per: Equal(attribute="kind", per=per),
        lambda layers: len(set(kinds(layers))) == 1,
    ),
    "equal slots": (
        lambda per: Equal(attribute="slots", per=per),
        lambda layers: len({layer.option("slots") for layer in layers if layer.kind == "E"}) <= 1,
    ),
    "equal cb": (
        lambda per: Equal(attribute="cb", per=per),
        lambda layers: len({layer.cb for layer in layers}) == 1,
    ),
    "first": (
        lambda per: First(kinds=of(V, N), per=per),
        lambda layers: kinds(layers)[0] in "VN",
    ),
    "last": (
        lambda per: Last(kinds=of(E, L), per=per),
        lambda layers: kinds(layers)[-1] in "EL",
    ),
    "mixing layer": (
        lambda per: MixingLayer(per=per),
        lambda layers: any(layer.kind != "N" or layer.cb for layer in layers),
    ),
}


@pytest.mark.parametrize("per", ["stage", "network"])
@pytest.mark.parametrize("name", CASES)
def test_members_are_those_that_hold_the_rule(
    name: str,
    per: Literal["stage", "network"],
    make_space: Callable[..., Space],
    members: Callable[..., set[Placement]],
    paths: Callable[[Automaton], Iterator[Path]],
    choices: Callable[..., Layers],
) -> None:
    make, holds = CASES[name]
    any_layer = choices("V", "L", "N", "N/cb", "E/s5")
    stages = (
        ListedStage(layers=(any_layer, any_layer, any_layer), depth=(2, 3)),
        ListedStage(layers=(choices("V", "E/s7", "N"), choices("L", "N", "E/s5")), depth=(1, 2)),
    )
    space = make_space(*stages, constraints=(make(per),))
    found = {space.automaton.placement(path) for path in paths(space.automaton)}
    everything = members(make_space(*stages))
    assert found == {
        p
        for p in everything
        if (holds(p.layers) if per == "network" else all(map(holds, p.stages)))
    }
    assert 0 < len(found) < len(everything)


@pytest.mark.parametrize("name", CASES)
def test_a_constraint_is_its_document(name: str) -> None:
    constraint = CASES[name][0]("stage")
    assert read_constraint(constraint.to_document(), ()) == constraint


def test_every_rule_of_the_closed_list_is_tested() -> None:
    assert {make("stage").rule for make, _ in CASES.values()} == set(CONSTRAINTS)


def test_kinds_are_read_in_any_order() -> None:
    document = {"rule": "count", "kinds": ["N", "V"], "most": 2, "per": "stage"}
    assert read_constraint(document, ()) == Count(kinds=of(V, N), most=2, per="stage")
    assert read_constraint({"rule": "first", "kinds": "E", "per": "network"}, ()) == First(
        kinds=of(E), per="network"
    )


def test_a_constraint_says_itself() -> None:
    assert str(Count(kinds=of(V, E), least=1, most=2, per="stage")) == (
        "count(per=stage kinds=V,E least=1 most=2)"
    )
    assert str(MixingLayer(per="network")) == "mixing_layer(per=network)"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            {"rule": "palindrome", "per": "stage"},
            "`rule` is 'palindrome'; give one of count, never_after, longest_run, equal, first, "
            "last, mixing_layer, since",
        ),
        ("count", "`rule` is 'count'; give one of count, never_after"),
        ({"rule": ["count"]}, "`rule` is {'rule': .*}; give one of"),
        ({"rule": "mixing_layer"}, "`per` is missing here"),
        (
            {"rule": "mixing_layer", "per": "layer"},
            "per: expected one of stage, network, but got 'layer'",
        ),
        ({"rule": "first", "per": "stage"}, "`kinds` is missing here"),
        ({"rule": "first", "per": "stage", "kinds": "V", "most": 1}, "unknown key 'most'"),
        (
            {"rule": "first", "per": "stage", "kinds": ["V", "V"]},
            r"kinds\[1\]: 'V' is listed twice",
        ),
        ({"rule": "count", "per": "stage", "kinds": "V"}, "a count bounds nothing"),
        ({"rule": "count", "per": "stage", "kinds": "V", "least": 0}, "a count bounds nothing"),
        (
            {"rule": "count", "per": "stage", "kinds": "V", "least": 3, "most": 2},
            "`least` is 3, more than `most`=2",
        ),
        (
            {"rule": "longest_run", "per": "stage", "kinds": "V", "length": 0},
            "`length` is 0; give at least 1",
        ),
        (
            {"rule": "equal", "per": "stage", "attribute": "dia"},
            "attribute: expected one of kind, slots, cb, but got 'dia'",
        ),
    ],
)
def test_a_constraint_refused(document: Any, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        read_constraint(document, ("constraints", 0))


def test_bounds_are_checked_without_a_document_too() -> None:
    with pytest.raises(InputError, match="`least` is 2, more than `most`=1"):
        Count(kinds=of(V), least=2, most=1, per="stage")
    with pytest.raises(InputError, match="'Q' is no kind of layer here; known are V"):
        First(kinds=of("Q"), per="stage")
    with pytest.raises(InputError, match="`attribute` is 'dia'; give one of kind, slots, cb"):
        Equal(attribute="dia", per="stage")


@pytest.mark.usefixtures("others_parts")
def test_rules_know_others_kinds_and_numbers(choices: Callable[..., Layers]) -> None:
    count = Count(kinds=of("K", "M", "N"), least=1, per="stage")
    assert count.to_document()["kinds"] == ["N", "M", "K"]
    assert read_constraint(count.to_document(), ()) == count
    equal = read_constraint({"rule": "equal", "attribute": "width", "per": "stage"}, ())
    state = equal.start
    for layer in choices("M/w2/h1", "V", "M/w2/h3"):
        state = equal.step(state, layer)
    assert state == (2,)
    assert equal.step(state, *choices("M/w5")) is None
    with pytest.raises(DocumentError, match="expected one of kind, slots, width, reach, cb, but"):
        read_constraint({"rule": "equal", "attribute": "form", "per": "stage"}, ())
    mixing = MixingLayer(per="stage")
    assert [bool(mixing.step(False, layer)) for layer in choices("P", "N", "K", "M")] == [
        *(False, False),
        *(True, True),
    ]
