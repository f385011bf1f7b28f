"""A form said by name and the default it names are one form, with one set of weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from sharedattn.backbones import build, build_network, describe
from sharedattn.errors import InputError
from sharedattn.mechanisms.less import default_form
from sharedattn.networks.network import Network
from sharedattn.placement import BackboneSpec, Envelope, NetworkSpec, Placement
from sharedattn.weights.extract import extract

# A stage with as many keys as queries has full maps by default, one that reduces them keys alone.
BACKBONES = {
    "vit": ("vit(class_token=true,depth=4,embed_dim=14,num_heads=2,patch_size=4", ("full",)),
    "t2t_ea": ("t2t_ea(depth=4,embed_dim=14,num_heads=2,token_dim=5", ("full",)),
    "swin": (
        "swin(depths=2-4,embed_dim=6,mlp_ratio=1,num_heads=1-3,patch_size=2,window_size=2-2",
        ("full", "full"),
    ),
    "pvt": (
        "pvt(depths=4-4,embed_dims=6-10,mlp_ratios=2-1,num_heads=1-2,sr_ratios=2-1",
        ("keys", "full"),
    ),
    "pvt_v2": (
        "pvt_v2(depths=4-4,embed_dims=6-10,mlp_ratios=2-1,num_heads=1-2,sr_ratios=2-1",
        ("keys", "full"),
    ),
    "deepvit": ("deepvit(depth=4,embed_dim=14,num_heads=2,patch_size=4", ("full",)),
    "ceit": ("ceit(depth=4,embed_dim=14,num_heads=2,patch_size=1", ("full",)),
    "hvt": (
        "hvt(depth=6,embed_dim=14,num_heads=2,patch_size=2,pool_block_width=2",
        ("full", "full", "full", "full"),
    ),
}


def backbone_of(family: str) -> BackboneSpec:
    return BackboneSpec.parse(f"{BACKBONES[family][0]},in_chans=1,num_classes=3)@16")


def randomised(network: Network) -> Network:
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


def members(family: str) -> list[Placement]:
    """Placements with less attention where it can be: the default by name, without, and mixed."""
    shape = describe(backbone_of(family))
    stages: dict[str, list[str]] = {"named": [], "unnamed": [], "mixed": [], "other": []}
    for stage, default in zip(shape.stages, BACKBONES[family][1], strict=True):
        assert default_form(stage.attention) == default
        depth, groups = stage.max_depth, len(set(stage.attention.score_groups)) or 1
        less = max(0, depth - groups)
        first = ["V"] * (depth - less)
        stages["named"].append(",".join(first + [f"L/{default}"] * less))
        stages["unnamed"].append(",".join(first + ["L"] * less))
        alternating = ["L" if i % 2 else f"L/{default}/cb" for i in range(less)]
        stages["mixed"].append(",".join(first + alternating))
        stages["other"].append(",".join(first + ["L/reuse"] * less))
    return [Placement.parse(" | ".join(parts)) for parts in stages.values()]


@pytest.mark.parametrize("family", BACKBONES)
def test_every_member_of_an_envelope_with_both_spellings_is_extracted(family: str) -> None:
    torch.manual_seed(0)
    backbone, placements = backbone_of(family), members(family)
    shared = randomised(build_network(backbone, Envelope.of(*placements)))
    images = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        logits = [shared(images, placement) for placement in placements]
        for placement, of_shared in zip(placements, logits, strict=True):
            alone = extract(shared, placement)
            assert (alone(images) - of_shared).abs().max().item() <= 1e-5, str(placement)
            # The stand-alone network can be asked for the placement by either name.
            assert torch.equal(alone(images, placement), alone(images))
    named, unnamed, _, other = logits
    assert torch.equal(named, unnamed)
    assert not torch.allclose(named, other)


@pytest.mark.parametrize("family", BACKBONES)
def test_a_network_of_one_placement_has_one_form_by_either_name(family: str) -> None:
    backbone, (named, unnamed, _, _) = backbone_of(family), members(family)
    networks = [
        made
        for placement in (named, unnamed)
        for made in (
            build(NetworkSpec(backbone, placement)),
            build_network(backbone, Envelope.of(placement)),
        )
    ]
    assert len({tuple(network.state_dict()) for network in networks}) == 1
    assert len({network.envelope for network in networks}) == 1
    assert {network.only_placement for network in networks} == {unnamed, None}
    for network in networks:
        for placement in (named, unnamed):
            assert network.accepted(placement) == unnamed


def test_layers_run_one_by_one_take_either_name() -> None:
    backbone, (named, unnamed, _, _) = backbone_of("vit"), members("vit")
    shared = randomised(build_network(backbone, Envelope.of(unnamed)))
    images = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        tokens, state = shared.begin(images)
        for index, choice in enumerate(named.layers):
            tokens, state = shared.layer(0, index).run(tokens, state, choice)
        assert torch.equal(shared.finish(tokens), shared(images, unnamed))


def test_a_form_that_is_no_default_stays_a_form_of_its_own() -> None:
    backbone = backbone_of("pvt")
    keys, full = Placement.parse("V1L1/keys | V1L1"), Placement.parse("V1L1/full | V1L1")
    network = build_network(backbone, Envelope.of(keys))
    assert network.envelope.stages[0][1].branches == {("L", ())}
    with pytest.raises(InputError, match="L/full, outside the network's envelope: it holds L"):
        extract(network, full)
    with pytest.raises(InputError, match="'V1L1' has 1 stages and the network 2"):
        extract(network, Placement.parse("V1L1"))
    both = build_network(replace(backbone), Envelope.of(keys, full))
    assert both.envelope.stages[0][1].branches == {("L", ()), ("L", (("form", "full"),))}
