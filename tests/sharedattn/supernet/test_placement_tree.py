"""What placements share, counted by closed forms and against sets of prefixes."""

from __future__ import annotations

import itertools

import pytest

from sharedattn.errors import InputError
from sharedattn.placement import LayerChoice, Placement
from sharedattn.supernet.placement_tree import Act, PlacementTree


def with_and_without_cb(depth: int) -> list[Placement]:
    """Vanilla layers, each with CB on or off."""
    return [
        Placement((tuple(LayerChoice("V", cb=cb) for cb in layers),))
        for layers in itertools.product((False, True), repeat=depth)
    ]


def test_twelve_layers_with_cb_on_or_off_have_a_bound_of_six() -> None:
    tree = PlacementTree(with_and_without_cb(12))
    assert len(tree.placements) == 4096
    assert tree.evaluations == 12 * 4096
    assert tree.prefixes == 2**13 - 2
    assert tree.parts == 2**12 - 1
    assert tree.bound == 12 * 4096 / 8190
    assert round(tree.bound, 1) == 6.0


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("num_choices", [2, 3])
def test_every_layer_free_in_k_ways(depth: int, num_choices: int) -> None:
    kinds = [
        LayerChoice("V"),
        LayerChoice.of("E", slots=3),
        LayerChoice.of("E", slots=7),
    ]
    layers = itertools.product(kinds[:num_choices], repeat=depth)
    tree = PlacementTree(Placement((stage,)) for stage in layers)
    k = num_choices
    assert tree.prefixes == tree.parts == (k ** (depth + 1) - k) // (k - 1)
    assert tree.evaluations == depth * k**depth


def test_layers_left_out_are_no_blocks_but_keep_their_places() -> None:
    texts = ("V1X1V1", "V2", "V1X1L1", "X1V1")
    tree = PlacementTree(map(Placement.parse, texts))
    assert tree.evaluations == 2 + 2 + 2 + 1
    # The first V of three; then V, V and L; and the V after the X.
    assert (tree.prefixes, tree.parts) == (5, 5)


def test_depths_of_a_chain_share_all_but_their_ends() -> None:
    tree = PlacementTree(Placement.all_vanilla([depth]) for depth in range(1, 8))
    assert (tree.evaluations, tree.prefixes, tree.parts) == (28, 7, 7)
    assert tree.bound == 4.0
    acts = [step.act for step in tree.depth_first()]
    assert acts.count(Act.FINISH) == 7 and acts.count(Act.BEGIN) == 1


def test_a_shorter_stage_is_left_where_it_ends() -> None:
    texts = ("V1 | V1", "V1 | V1/cb", "V2 | V1", "V2 | V2", "V1E1/s3 | V1")
    tree = PlacementTree(map(Placement.parse, texts))
    # In stage 1 V, VV and VE; behind V both V and V/cb, behind VV both V and VV, behind VE a V.
    assert tree.prefixes == 3 + 2 + 2 + 1
    assert tree.parts == 3 + 1 + 2 + 1
    assert tree.evaluations == 2 + 2 + 3 + 4 + 3
    entered = [step for step in tree.depth_first() if step.act is Act.ENTER]
    assert [len(step.placements) for step in entered] == [2, 2, 1]


def test_parts_are_shared_where_cb_or_dia_differs_and_nowhere_else() -> None:
    texts = ("V1", "V1/cb", "V1/dia1", "V1/dia1/cb", "E1/s3", "E1/s7", "E1/s3/mea", "N1", "N1/cb")
    tree = PlacementTree(map(Placement.parse, texts))
    assert (tree.prefixes, tree.parts) == (9, 5)


def test_counts_agree_with_sets_of_prefixes() -> None:
    texts = [
        " | ".join(pair)
        for pair in itertools.product(
            ("V1", "V2", "V1L1", "V1L1/cb", "E1V1/s3/cb1", "N2/dia1", "V,V/d0"),
            ("V1L2", "V3", "V3/dia3", "V3/dia2", "E3/s5", "N1", "N1/cb"),
        )
    ]
    placements = [Placement.parse(text) for text in texts]
    tree = PlacementTree([*placements, *placements])
    prefixes, parts = set(), set()
    for placement in placements:
        for stage, choices in enumerate(placement.stages):
            for index, choice in enumerate(choices):
                before = (placement.stages[:stage], choices[:index])
                prefixes.add((before, choice))
                parts.add((before, choice.kind, choice.options))
    assert (tree.prefixes, tree.parts) == (len(prefixes), len(parts))
    assert tree.placements == tuple(placements)


def test_depth_first_is_each_step_once_and_parents_first() -> None:
    tree = PlacementTree(with_and_without_cb(3))
    steps = list(tree.depth_first())
    assert [step.number for step in steps] == list(range(tree.num_steps))
    assert len(steps) == 1 + 7 + 14 + 8
    for step in steps:
        below = [step]
        for under in below:
            below += under.next
        # All that is under a step follows it without a gap.
        assert sorted(under.number for under in below) == list(
            range(step.number, step.number + len(below))
        )
    finished = [step.placements for step in steps if step.act is Act.FINISH]
    assert [p for [p] in finished] == list(tree.placements)


def test_placements_that_make_no_tree() -> None:
    with pytest.raises(InputError, match="the same number of stages.*but got none"):
        PlacementTree([])
    with pytest.raises(InputError, match="the same number of stages.*'V1', 'V1 . V1'"):
        PlacementTree(map(Placement.parse, ("V1", "V1 | V1")))
