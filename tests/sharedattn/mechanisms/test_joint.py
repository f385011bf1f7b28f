"""Joint maps in parts: the same numbers, and parts that are left alone when they are not used."""

import pytest
import torch
from torch import nn

from sharedattn.backbones import build, describe
from sharedattn.mechanisms.joint import SplitLinear, join_joint_maps, joint_name, split_joint_maps
from sharedattn.placement import NetworkSpec, Placement
from sharedattn.testing.tiny_backbones import TINY, tiny_backbone


def test_a_split_map_is_the_joint_one():
    torch.manual_seed(0)
    joint = nn.Linear(5, 15)
    split = SplitLinear(joint)
    x = torch.randn(2, 3, 5)
    assert torch.equal(split(x), joint(x))
    assert torch.equal(split.last(x), nn.functional.linear(x, joint.weight[10:], joint.bias[10:]))
    assert [tuple(part.weight.shape) for part in split.parts] == [(5, 5)] * 3
    again = split.joined()
    assert torch.equal(again.weight, joint.weight)
    assert torch.equal(again.bias, joint.bias)
    assert again.weight.requires_grad
    without = SplitLinear(nn.Linear(5, 10, bias=False))
    assert without.bias is None
    assert without.joined().bias is None


def test_a_split_map_loads_what_a_joint_one_has_saved():
    torch.manual_seed(0)
    joint, other = nn.Linear(5, 15), nn.Linear(5, 15)
    split = SplitLinear(joint)
    split.load_state_dict(other.state_dict())
    assert torch.equal(split.weight, other.weight)
    split.load_state_dict(SplitLinear(joint).state_dict())
    assert torch.equal(split.weight, joint.weight)
    with pytest.raises(RuntimeError, match="Missing key"):
        split.load_state_dict({"weight": other.weight})


def test_names_of_parts_are_those_of_the_joint_map():
    assert joint_name("blocks.1.attn.qkv.parts.2.weight") == "blocks.1.attn.qkv.weight"
    assert joint_name("stages.0.blocks.1.attn.kv.parts.0.bias") == "stages.0.blocks.1.attn.kv.bias"
    assert joint_name("blocks.1.parts.0.weight") == "blocks.1.parts.0.weight"


@pytest.mark.parametrize("base_name", list(TINY))
def test_networks_of_every_family_run_alike_with_split_maps(base_name):
    backbone = tiny_backbone(base_name)
    placement = Placement.all_vanilla(describe(backbone).depths)
    torch.manual_seed(0)
    network = build(NetworkSpec(backbone, placement)).eval()
    images = torch.randn(2, 1, 16, 16)
    before, state = network(images), network.state_dict()
    split_joint_maps(network)
    assert torch.equal(network(images), before)
    joined = {joint_name(name) for name, _ in network.named_parameters()}
    whole = build(NetworkSpec(backbone, placement))
    assert joined == {name for name, _ in whole.named_parameters()}
    join_joint_maps(network)
    assert torch.equal(network(images), before)
    after = network.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(after[name], state[name]) for name in state)
