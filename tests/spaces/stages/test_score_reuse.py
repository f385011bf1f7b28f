"""Which layers may take scores over: words of V, L and N by hand and in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from sharedattn.backbones import describe
from sharedattn.placement import BackboneSpec, LayerChoice
from sharedattn.spaces.automaton import Automaton, build, stages_of
from sharedattn.spaces.space import Space
from sharedattn.spaces.stages import CountedStage, HandOver, ListedStage
from sharedattn.yaml_text import DocumentError

Choices = Callable[..., tuple[LayerChoice, ...]]
Paths = Callable[[Automaton], list[tuple[LayerChoice, ...]]]


def legal(stage: ListedStage, *score_groups: int) -> Automaton:
    backbone = BackboneSpec.parse("vit(depth=6,embed_dim=14,num_heads=2,patch_size=4)@16")
    [shape] = describe(backbone).stages
    shape = replace(shape, attention=replace(shape.attention, score_groups=score_groups))
    return build([HandOver(stage.language(False), shape)], ())


def words(automaton: Automaton, paths: Paths) -> set[str]:
    return {
        "".join(layer.kind for stage in stages_of(path, automaton.depths) for layer in stage)
        for path in paths(automaton)
    }


def test_a_layer_takes_scores_of_its_own_group(choices: Choices, paths: Paths) -> None:
    stage = ListedStage(layers=(choices("V", "L"),) * 4, depth=(4,))
    # Shifted windows: layers 1 and 3 share scores, and 2 and 4.
    assert words(legal(stage, 0, 1, 0, 1), paths) == {"VVVV", "VVVL", "VVLV", "VVLL"}
    assert words(legal(stage, 0, 0, 1, 1), paths) == {"VVVV", "VVVL", "VLVV", "VLVL"}
    every = {"VVVV", "VVVL", "VVLV", "VVLL", "VLVV", "VLVL", "VLLV", "VLLL"}
    assert words(legal(stage), paths) == words(legal(stage, 0, 0, 0, 0), paths) == every


def test_other_layers_pass_scores_by(choices: Choices, paths: Paths) -> None:
    stage = ListedStage(
        layers=(choices("V"), choices("N", "E/s3"), choices("L", "N"), choices("L")),
        depth=(2, 3, 4),
    )
    assert words(legal(stage, 0, 1, 0, 1), paths) == {"VN", "VE", "VNL", "VEL", "VNN", "VEN"}
    found = words(legal(stage, 0, 1, 0, 0), paths)
    assert found == {"VN", "VE", "VNL", "VEL", "VNN", "VEN", "VNLL", "VELL", "VNNL", "VENL"}


@pytest.mark.parametrize("num_groups", [1, 2, 3])
def test_groups_multiply(choices: Choices, num_groups: int) -> None:
    # Of each group by itself: words over V and L that begin with a V.
    depth = 6
    stage = ListedStage(layers=(choices("V", "L"),) * depth, depth=(depth,))
    groups = tuple(position % num_groups for position in range(depth))
    assert legal(stage, *groups).size == 2 ** (depth - num_groups)


@pytest.mark.usefixtures("others_parts")
def test_each_channel_is_taken_from_its_own_layers(choices: Choices, paths: Paths) -> None:
    # K takes what any attending layer gave, whatever its shift; L takes scores of its own group.
    every = choices("V", "L", "K", "E/s3", "N")
    found = words(legal(ListedStage(layers=(every,) * 2, depth=(2,)), 0, 1), paths)
    assert found == {a + b for a in "VEN" for b in "VEN"} | {"VK", "EK"}
    found = words(legal(ListedStage(layers=(every,) * 2, depth=(2,))), paths)
    assert found == {a + b for a in "VEN" for b in "VEN"} | {"VK", "EK", "VL"}


@pytest.mark.usefixtures("others_parts")
def test_a_layer_without_branches_has_no_gate_and_no_broadcasting_and_counts_for_neither(
    make_space: Callable[..., Space], paths: Paths
) -> None:
    counts = {"V": (0, 1, 2), "P": (0, 1, 2)}
    stage = CountedStage(depth=(2,), counts=counts, gates={"dia": (0, 1)}, cb=(0, 1, 2))
    space = make_space(stage)
    found = {str(space.automaton.placement(path)) for path in paths(space.automaton)}
    every = {f"V2{gate}{cb}" for gate in ("", "/dia1") for cb in ("", "/cb1", "/cb")}
    # V1P1 is V1, and P2 nothing.
    of_one = {f"{kinds}{gate}" for kinds in ("P1V1", "V1") for gate in ("", "/dia1")}
    assert found == every | of_one | {f"{text}/cb" for text in of_one}
    with pytest.raises(
        DocumentError, match=r"^layers\[0\]\[1\]: P/cb has context broadcasting or"
    ):
        ListedStage.from_document({"layers": [["V", "P/cb"]]}, ())
