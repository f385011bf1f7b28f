"""A bound on attention memory, read layer by layer, against the memory of whole placements."""

from __future__ import annotations

import contract
import pytest

from sharedattn.costs.attention_memory import AttentionMemoryRule
from sharedattn.costs.model import CostModel
from sharedattn.placement import BackboneSpec, Placement

BACKBONES = {
    "plain": "vit(embed_dim=22,depth=5,num_heads=2,patch_size=5,num_classes=3)@15",
    "mixed heads": "deepvit(embed_dim=26,depth=5,num_heads=2,patch_size=5,num_classes=3)@15",
    "windows": "swin(depths=3-2-4,embed_dim=6,num_heads=1-2-3,window_size=3-3-3,patch_size=2,"
    "num_classes=3)@36",
    "previous window": "swin(handover=previous,depths=3-2-4,embed_dim=6,num_heads=1-2-3,"
    "window_size=3-3-3,patch_size=2,num_classes=3)@36",
    "residual": "pvt_v2(attention_residual=true,depths=3-3,embed_dims=6-10,num_heads=1-2,"
    "mlp_ratios=1-1,sr_ratios=2-1,num_classes=3)@32",
    "plain residual": "pvt(attention_residual=true,depths=2-3,embed_dims=6-10,num_heads=1-2,"
    "mlp_ratios=1-1,sr_ratios=2-1,num_classes=3)@32",
}


def keeps(costs: CostModel, placement: Placement, bound: float) -> bool:
    for stage, choices in enumerate(placement.stages):
        rule = AttentionMemoryRule(costs, stage, bound)
        state = rule.start
        for position, choice in enumerate(choices):
            following = rule.step(state, position, choice)
            if following is None:
                return False
            state = following
        if not rule.accepts(state):
            return False
    return True


@pytest.mark.parametrize("name", BACKBONES)
def test_the_rule_keeps_what_is_within_the_bound(name: str) -> None:
    backbone = BackboneSpec.parse(BACKBONES[name])
    costs = CostModel(backbone)
    placements = contract.random_placements(backbone, 3, 120)
    taken = {placement: costs.attention_bytes(placement) for placement in placements}
    bounds = sorted(set(taken.values()))
    assert len(bounds) > 3
    for bound in bounds:
        kept = {placement for placement in taken if keeps(costs, placement, bound)}
        assert kept == {placement for placement, size in taken.items() if size <= bound}
    assert not any(keeps(costs, placement, bounds[0] - 1) for placement in taken)
