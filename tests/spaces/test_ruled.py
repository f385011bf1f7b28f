"""A space under a bound on attention memory, against brute force over the whole space."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from scipy.stats import chisquare

from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.placement import Placement
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.encoding import Encoding
from sharedattn.spaces.space import Space

PLAIN: dict[str, Any] = {
    "name": "plain",
    "backbone": "vit(embed_dim=22,depth=4,num_heads=2,patch_size=5,num_classes=3)@15",
    "order": "any",
    "stages": [
        {
            "depth": [2, 3, 4],
            "counts": {"E": [0, 1, 2], "V": [0, 1, 2, 3], "L": [0, 1, 2], "N": [0, 1]},
            "slots": [5, 23],
            "less_form": ["full", "reuse"],
        }
    ],
}
WINDOWS: dict[str, Any] = {
    "name": "windows",
    "backbone": "swin(depths=1-4,embed_dim=6,num_heads=1-2,window_size=3-3,patch_size=2,"
    "num_classes=3)@36",
    "order": "any",
    "stages": [
        {"depth": [1], "counts": {"V": [0, 1], "E": [0, 1], "N": [0, 1]}, "slots": [3]},
        {"depth": [3, 4], "counts": {"V": [0, 1, 2, 3], "L": [0, 1, 2], "N": [0, 1, 2]}},
    ],
}
RESIDUAL: dict[str, Any] = {
    "name": "residual",
    "backbone": "pvt_v2(attention_residual=true,depths=1-4,embed_dims=4-14,num_heads=1-7,"
    "mlp_ratios=1-1,sr_ratios=2-1,in_chans=1,num_classes=2)@64",
    "order": "any",
    "stages": [
        {"depth": [1], "counts": {"V": [1]}},
        {"depth": [2, 3, 4], "counts": {"V": [1, 2], "L": [0, 1, 2], "N": [0, 1], "E": [0, 1]}},
    ],
}

Sized = tuple[Space, dict[Placement, int]]


@pytest.fixture(params=[PLAIN, WINDOWS, RESIDUAL], ids=lambda document: document["name"])
def sized(request: pytest.FixtureRequest) -> Sized:
    """A space, and the attention memory of each of its members."""
    space = Space.from_document(request.param)
    costs = CostModel(space.backbone)
    members = BudgetedSpace(space).enumerate()
    return space, {placement: costs.attention_bytes(placement) for placement in members}


def test_counts_are_exact_at_every_bound(sized: Sized) -> None:
    space, taken = sized
    bounds = sorted(set(taken.values()))
    assert len(bounds) > 3
    for bound in bounds:
        counted = BudgetedSpace(space, Budget(bounds={"attention_bytes": bound}))
        inside = {placement for placement, size in taken.items() if size <= bound}
        assert counted.in_budget == len(inside)
        assert set(counted.enumerate()) == inside
        assert {placement for placement in taken if placement in counted} == inside
        assert counted.size == len(taken)


def test_it_goes_with_the_other_bounds(sized: Sized) -> None:
    space, taken = sized
    costs = CostModel(space.backbone)
    totals = {placement: costs.totals(placement) for placement in taken}
    bound = sorted(taken.values())[2 * len(taken) // 3]
    max_macs = sorted(total.macs for total in totals.values())[len(taken) // 2]
    budget = Budget(max_macs=max_macs, bounds={"attention_bytes": bound})
    counted = BudgetedSpace(space, budget)
    inside = {p for p in taken if taken[p] <= bound and totals[p].macs <= max_macs}
    assert set(counted.enumerate()) == inside
    macs = [totals[placement].macs for placement in inside]
    assert counted.macs_range_in_budget == counted.macs_span == (min(macs), max(macs))
    assert str(budget) == f"macs <= {max_macs} and attention_bytes <= {bound}"


def test_samples_are_uniform(sized: Sized) -> None:
    space, taken = sized
    bound = sorted(taken.values())[len(taken) // 2]
    counted = BudgetedSpace(space, Budget(bounds={"attention_bytes": bound}))
    rng = random.Random(5)
    drawn = Counter(counted.sample(rng) for _ in range(20 * counted.in_budget))
    assert chisquare([drawn[placement] for placement in counted.enumerate()]).pvalue > 1e-3


def test_proposals_are_repaired_into_the_bound(sized: Sized) -> None:
    space, taken = sized
    bound = sorted(taken.values())[len(taken) // 3]
    counted = BudgetedSpace(space, Budget(bounds={"attention_bytes": bound}))
    encoding = Encoding(counted)
    rng = random.Random(7)
    for _ in range(20):
        proposal = {name: rng.choice(choices) for name, choices in encoding.dimensions.items()}
        assert taken[encoding.repair(encoding.decode(proposal))] <= bound


def test_a_bound_below_every_member_says_the_least(sized: Sized) -> None:
    space, taken = sized
    least = min(taken.values())
    with pytest.raises(InputError, match=f"the least attention_bytes of any member is {least};"):
        BudgetedSpace(space, Budget(bounds={"attention_bytes": least - 1}))
    assert BudgetedSpace(space, Budget(bounds={"attention_bytes": least})).in_budget >= 1


def test_a_budget_reads_its_document_back() -> None:
    plain = Budget(max_macs=7)
    assert plain.to_document() == {"max_macs": 7, "max_params": None}
    wider = Budget(max_params=5, bounds={"attention_bytes": 64})
    assert wider.to_document() == {
        "max_macs": None,
        "max_params": 5,
        "bounds": {"attention_bytes": 64},
    }
    assert [Budget.from_document(b.to_document()) for b in (plain, wider)] == [plain, wider]
    with pytest.raises(InputError, match="latency_ms is measured: no space can bound it"):
        Budget(bounds={"latency_ms": 3.0})
    with pytest.raises(InputError, match="'watts' is no cost; name one of macs, params"):
        Budget(bounds={"watts": 3.0})
