"""Two foreign counters find what the closed form says, on random placements."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from torch import nn

from sharedattn.backbones import build
from sharedattn.costs.flop_counters import fvcore_macs, matmul_macs
from sharedattn.costs.model import CostModel
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement

RandomPlacement = Callable[[random.Random, int], Placement]

BACKBONES = (
    "vit(embed_dim=22,depth=5,num_heads=2,patch_size=5,mlp_ratio=1.5,in_chans=2)@15",
    "deit3_small_patch16_224(embed_dim=39,depth=4,num_heads=3,patch_size=7,"
    "external_expansion=2,broadcasting_form=scaled)@28",
    "vit_medium_patch16_reg4_gap_256(embed_dim=26,depth=3,num_heads=2,patch_size=5,qkv_bias=false,"
    "proj_bias=false,pre_norm=true,dia_reduction=3,dia_start=one,class_token_in_mean=false)@20",
)


@pytest.mark.parametrize("text", BACKBONES)
def test_no_difference_from_either_referee(text: str, random_placement: RandomPlacement) -> None:
    model = CostModel(BackboneSpec.parse(text))
    rng = random.Random(2)
    for _ in range(33):
        placement = random_placement(rng, model.shape.stages[0].max_depth)
        network = build(NetworkSpec(model.backbone, placement))
        cost = model.cost(placement)
        assert cost.params == sum(p.numel() for p in network.parameters()), str(placement)
        assert cost.macs == fvcore_macs(network), str(placement)
        assert cost.matmul_macs == matmul_macs(network), str(placement)


def test_fused_and_unfused_networks_count_alike(tiny: BackboneSpec) -> None:
    spec = NetworkSpec(tiny, Placement.parse("V1L2E1/s7/dia1/cb"))
    counts = {
        count(build(spec, fused=fused))
        for fused in (True, False)
        for count in (fvcore_macs, matmul_macs)
    }
    cost = CostModel(tiny).cost(spec.placement)
    assert counts == {cost.macs, cost.matmul_macs}


def test_an_operator_of_unknown_cost_fails(tiny: BackboneSpec) -> None:
    network = build(NetworkSpec(tiny, Placement.parse("V1")))
    network.blocks[0].mlp.act = nn.ELU()
    with pytest.raises(RuntimeError, match="fvcore does not know aten::elu; give it a handler"):
        fvcore_macs(network)


@pytest.mark.parametrize("count", [fvcore_macs, matmul_macs])
@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_the_mode(
    tiny: BackboneSpec, count: Callable[..., int], training: bool
) -> None:
    network = build(NetworkSpec(tiny, Placement.parse("V1")), drop_path_rate=0.5).train(training)
    count(network)
    assert {module.training for module in network.modules()} == {training}
