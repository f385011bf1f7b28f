"""Networks that a person would try by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharedattn.costs.model import CostModel
from sharedattn.placement import BackboneSpec, Placement
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.naive import (
    NaiveKind,
    cheapest_uniform,
    cut_depths,
    even_blocks,
    first_blocks,
    naive_networks,
    narrower,
)
from sharedattn.spaces.space import Space

VIT = "vit(depth=5,embed_dim=21,mlp_ratio=2.0,num_heads=3,patch_size=8)@24"
SPACE = f"""\
name: naive
backbone: {VIT}
order: any
stages:
  - depth: 3..5
    counts: {{V: 0..5, E: 0..5, N: 0..5}}
    slots: [7, 11]
    cb: [none, all]
"""


def space(**budget: int) -> BudgetedSpace:
    return BudgetedSpace(Space.from_yaml(SPACE, "test"), Budget(**budget))


@pytest.mark.parametrize(
    ("depths", "num_blocks", "kept"),
    [
        ((7,), 3, (3,)),
        ((2, 2, 6, 2), 4, (1, 1, 1, 1)),
        # 4 of the 8 blocks beyond one each: shares 0.5, 0.5, 2.5, 0.5, two halves rounded up.
        ((2, 2, 6, 2), 8, (2, 2, 3, 1)),
        ((2, 2, 6, 2), 12, (2, 2, 6, 2)),
        ((3, 5), 6, (2, 4)),
    ],
)
def test_stages_are_cut_in_their_proportions(depths, num_blocks, kept):
    assert cut_depths(depths, num_blocks) == kept


@given(st.lists(st.integers(1, 13), min_size=1, max_size=4), st.data())
def test_a_cut_keeps_what_it_should(depths, data):
    counts = range(len(depths), sum(depths) + 1)
    num_blocks = data.draw(st.sampled_from(counts))
    kept = cut_depths(depths, num_blocks)
    assert sum(kept) == num_blocks
    assert all(1 <= n <= depth for n, depth in zip(kept, depths, strict=True))
    even = even_blocks(depths, kept)
    for stage, depth, n in zip(even.stages, depths, kept, strict=True):
        places = [i for i, layer in enumerate(stage) if not layer.is_absent]
        assert len(places) == n
        assert places[0] == 0
        if n > 1:
            assert places[-1] == depth - 1
            gaps = [after - before for before, after in pairwise(places)]
            assert max(gaps) - min(gaps) <= 1


def test_even_blocks_by_hand():
    assert str(even_blocks((6,), (4,))) == "V1X1V2X1V1"
    assert str(even_blocks((7, 5), (3, 1))) == "V1X2V1X2V1 | V1"
    assert even_blocks((5,), (5,)) == first_blocks((5,)) == Placement.parse("V5")


def test_a_narrower_backbone_is_the_widest_that_fits():
    backbone = BackboneSpec.parse(VIT)
    costs = {
        width: CostModel(
            BackboneSpec.parse(VIT.replace("embed_dim=21", f"embed_dim={width}"))
        ).totals(Placement.parse("V5"))
        for width in range(3, 21, 3)
    }
    for width, cost in costs.items():
        found = narrower(backbone, cost.macs)
        assert dict(found.keywords)["embed_dim"] == width
        below = narrower(backbone, cost.macs - 1)
        assert (below and dict(below.keywords)["embed_dim"]) == (width - 3 or None)
    # The widths of these stand in another keyword.
    assert narrower(BackboneSpec.parse("pvt_v2_b1"), 10**12) is None


def test_the_cheapest_kind_is_that_of_brute_force():
    counted = space()
    costs = CostModel(counted.space.backbone)
    uniform = [
        placement
        for placement in counted.enumerate()
        if len(set(placement.layers)) == 1 and placement.depths == (5,)
    ]
    uniform.remove(Placement.parse("V5"))
    least = min(costs.totals(placement).macs for placement in uniform)
    found = cheapest_uniform(counted)
    assert found in uniform
    assert costs.totals(found).macs == least


def test_networks_are_the_largest_within_the_macs_and_the_budget():
    costs = CostModel(space().space.backbone)
    of = {n: costs.totals(Placement.parse(f"V{n}")) for n in range(1, 6)}
    counted = space(max_params=of[4].params - 1)
    networks = naive_networks(counted, [of[3].macs, of[4].macs], has_weights=True)
    found = [(n.kind, str(n.spec.placement)) for n in networks]
    # The uncut backbone is beyond the budget, as the four blocks are, and shown all the same.
    assert found[0] == (NaiveKind.UNCUT, "V5")
    assert [text for kind, text in found if kind is NaiveKind.FIRST] == ["V3"]
    assert [text for kind, text in found if kind is NaiveKind.EVEN] == ["V1X1V1X1V1"]
    assert [text for kind, text in found if kind is NaiveKind.SHALLOW] == ["V3"]
    for network in networks[1:]:
        assert network.costs.params < of[4].params
    assert [n.from_scratch for n in networks] == [
        n.kind in (NaiveKind.NARROW, NaiveKind.SHALLOW) for n in networks
    ]
    # Without trained weights the cuts are trained from scratch alone.
    plain = {n.kind for n in naive_networks(counted, [of[3].macs], has_weights=False)}
    assert plain == {NaiveKind.UNCUT, NaiveKind.CHEAPEST, NaiveKind.NARROW, NaiveKind.SHALLOW}


def test_the_fewest_macs_of_a_search_hold_for_no_cut():
    costs = CostModel(space().space.backbone)
    of = {n: costs.totals(Placement.parse(f"V{n}")).macs for n in (3, 4)}
    counted = space(max_macs=of[4] - 1, min_macs=of[3] + 1)
    networks = naive_networks(counted, [of[4] - 1], has_weights=True)
    assert [str(n.spec.placement) for n in networks if n.kind is NaiveKind.FIRST] == ["V3"]


def test_nothing_fits_within_no_macs():
    assert {n.kind for n in naive_networks(space(), [1], has_weights=True)} == {
        NaiveKind.UNCUT,
        NaiveKind.CHEAPEST,
    }


def test_a_unet_is_not_cut():
    """Its decoder takes what each layer of the encoder gives: no attention is what is cheaper."""
    spaced = BudgetedSpace(Space.load("digits-unet"))
    found = naive_networks(spaced, [25_000_000, 30_000_000], has_weights=True)
    assert [(one.kind, str(one.spec.placement)) for one in found] == [
        (NaiveKind.UNCUT, "V2 | V2 | V1 | V3 | V3"),
        (NaiveKind.CHEAPEST, "N2 | N2 | N1 | N3 | N3"),
    ]
