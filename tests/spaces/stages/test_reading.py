from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sharedattn.placement import LayerChoice, Placement
from sharedattn.shape import StageShape
from sharedattn.spaces.automaton import Automaton, Path
from sharedattn.spaces.space import Space
from sharedattn.spaces.stages import CountedStage, ListedStage, read_stage
from sharedattn.yaml_text import DocumentError

Choices = Callable[..., tuple[LayerChoice, ...]]
ANY = (0, 1, 2, 3)


MakeShape = Callable[..., StageShape]


def texts(space: Space, paths: Callable[[Automaton], Iterator[Path]]) -> list[str]:
    return sorted(str(space.automaton.placement(path)) for path in paths(space.automaton))


def test_documents_are_read_with_defaults() -> None:
    assert read_stage({"counts": {"V": "1..2", "N": 1}, "depth": [3, 2]}, ()) == CountedStage(
        depth=(2, 3),
        counts={"V": (1, 2), "N": (1,)},
        options={"slots": (64,), "external_form": (None,), "less_form": (None,)},
        gates={"dia": (0,)},
        cb=(0,),
    )
    forms = {"less_form": ["reuse", "lowrank16", "lowrank3", "default"], "external_form": "mea"}
    assert read_stage({"counts": {"V": 2}, "depth": 2, **forms}, ()) == CountedStage(
        depth=(2,),
        counts={"V": (2,)},
        options={"external_form": ("mea",), "less_form": (None, "lowrank3", "lowrank16", "reuse")},
    )
    assert read_stage({"layers": ["V", ["N/cb", "L"]]}, ()) == ListedStage(
        layers=(
            (LayerChoice.of("V"),),
            (LayerChoice.of("L"), LayerChoice.of("N", cb=True)),
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
        ("V", "expected a mapping with either counts or layers, but got 'V'"),
        ({"depth": 3}, "expected a mapping with either counts or layers, but got"),
        (
            {"counts": {}, "layers": []},
            "expected a mapping with either counts or layers, but got",
        ),
        ({"counts": {"V": 1}}, "`depth` is missing here"),
        ({"counts": {"Q": 1}, "depth": 1}, r"counts\.Q: unknown key 'Q'"),
        ({"counts": {"V": 1}, "depth": 0}, r"`depth` is \[0\]; give a rising list of"),
        ({"counts": {"V": 1}, "depth": 1, "slots": 0}, r"`slots` is \[0\]; give a rising list"),
        (
            {"counts": {"V": 1}, "depth": 1, "cb": ["all", "all"]},
            r"cb\[1\]: 'all' is listed twice",
        ),
        ({"counts": {"V": 1}, "depth": 1, "cb": ["none", 0]}, r"cb\[1\]: 0 is listed twice"),
        (
            {"counts": {"V": 1}, "depth": 1, "cb": []},
            "cb: this list is empty; give none",
        ),
        ({"counts": {"V": 1}, "depth": 1, "cb": ["some"]}, r"cb\[0\]: .* but got 'some'"),
        (
            {"counts": {"V": 1}, "depth": 1, "less_form": ["keys", "mea"]},
            r"less_form\[1\]: this is 'mea'; it is one of default, full, keys, lowrankR, reuse",
        ),
        (
            {"counts": {"V": 1}, "depth": 1, "external_form": "default"},
            "external_form: this is 'default'; it is one of single, mea",
        ),
        ({"counts": {"V": 1}, "depth": 1, "less_form": 7}, "less_form: expected a text, but got"),
        ({"layers": "V"}, "layers: expected a list with one entry per layer position"),
        ({"layers": ["V", "Q"]}, r"layers\[1\]: 'Q': 'Q' is no kind of layer here; known are V"),
        ({"layers": ["V", "V"], "depth": 1}, "`depth` is up to 1, but `layers` lists 2 positions"),
        ({"layers": ["V"], "slots": 1}, "unknown key 'slots'; known here: layers, depth"),
    ],
)
def test_a_stage_refused(document: Any, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        read_stage(document, ())
