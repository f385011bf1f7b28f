"""External attention: the double norm's axes, slots, and cost."""

from __future__ import annotations

import pytest
import torch
from contract import random_images, randomised
from torch import nn
from torch.nn import functional as F

from sharedattn.backbones import build, resolve
from sharedattn.costs.flop_counters import fvcore_macs, matmul_macs
from sharedattn.costs.model import CostModel
from sharedattn.mechanisms import external
from sharedattn.mechanisms.external import (
    EXTERNAL,
    ExternalAttention,
    MultiHeadExternalAttention,
    double_norm,
)
from sharedattn.networks.state import Recorder, State
from sharedattn.placement import LayerChoice, NetworkSpec
from sharedattn.testing import check_mechanism

B, N, S, H, D, EXPANSION = 3, 7, 5, 2, 22, 3


def test_double_norm_is_a_softmax_over_tokens_then_a_division_over_slots() -> None:
    logits = torch.randn(B, N, S, dtype=torch.float64)
    over_tokens = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    expected = over_tokens / over_tokens.sum(dim=2, keepdim=True)
    maps = double_norm(logits)
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(maps.sum(2), torch.ones(B, N, dtype=torch.float64))
    assert (maps.sum(1) - 1).abs().min() > 1e-3


def test_double_norm_survives_logits_that_overflow_an_exponential() -> None:
    maps = double_norm(torch.randn(B, N, S) * 1e4)
    assert maps.isfinite().all()


def single() -> ExternalAttention:
    return ExternalAttention(D, S)


def multi_head() -> MultiHeadExternalAttention:
    return MultiHeadExternalAttention(D, S, H, EXPANSION)


@pytest.mark.parametrize("make", [single, multi_head])
def test_tokens_meet_and_their_order_does_not_matter(make: type) -> None:
    module = make().double()
    x = torch.randn(B, N, D, dtype=torch.float64)
    order = torch.randperm(N)
    torch.testing.assert_close(module(x[:, order], S)[0], module(x, S)[0][:, order])
    moved = x.clone()
    moved[:, 0] += 1
    assert (module(moved, S)[0] - module(x, S)[0])[:, 1:].abs().max() > 1e-9


def test_single_head_by_its_definition() -> None:
    module = single().double()
    torch.nn.init.normal_(module.memory_value)
    x = torch.randn(B, N, D, dtype=torch.float64)
    out, maps = module(x, 3)
    logits = x @ module.query.weight.T @ module.memory_key[:3].T
    expected_maps = double_norm(logits)
    torch.testing.assert_close(maps, expected_maps.unsqueeze(1))
    torch.testing.assert_close(out, module.proj(expected_maps @ module.memory_value[:3]))


def test_multi_head_by_its_definition() -> None:
    module = multi_head().double()
    x = torch.randn(B, N, D, dtype=torch.float64)
    out, maps = module(x, 3)
    assert maps.shape == (B, EXPANSION * H, N, 3)
    heads = []
    for q in module.query(x).split(D // H, dim=-1):
        logits = q @ module.memory_key.weight[:3].T + module.memory_key.bias[:3]
        read = double_norm(logits) @ module.memory_value.weight[:, :3].T
        heads.append(read + module.memory_value.bias)
    torch.testing.assert_close(out, module.proj(torch.cat(heads, dim=-1)))


def test_fewer_slots_are_the_first_ones() -> None:
    large, small = ExternalAttention(D, S), ExternalAttention(D, 3)
    small.load_state_dict(
        {k: v[:3] if "memory" in k else v for k, v in large.state_dict().items()}
    )
    x = torch.randn(B, N, D)
    assert torch.equal(large(x, 3)[0], small(x, 3)[0])


def test_value_memory_begins_as_a_copy_that_learns_on_its_own() -> None:
    module = single()
    torch.nn.init.zeros_(module.memory_value)
    module.reset_parameters()
    assert torch.equal(module.memory_key, module.memory_value)
    assert module.memory_key.abs().max() <= D**-0.5 and module.memory_key.std() > 0
    module.memory_value.data += 1
    assert not torch.equal(module.memory_key, module.memory_value)


def test_params() -> None:
    assert sum(p.numel() for p in single().parameters()) == external.params(D, S)
    assert sum(p.numel() for p in multi_head().parameters()) == external.multi_head_params(
        D, H, S, EXPANSION
    )


def test_published_figures() -> None:
    # d = 384, H = 6, 4 times the heads, 64 slots; MACs in millions of N, d = 197, 192 and on.
    assert external.multi_head_params(384, 6, 64, 4) == 1_189_888
    assert [round(external.macs(197, d, 64) / 1e3) for d in (192, 384, 768)] == [
        19_366,
        67_781,
        251_757,
    ]
    assert [round(external.multi_head_macs(197, d, 64, 4) / 1e3) for d in (192, 384, 768)] == [
        77_464,
        271_122,
        1_007_026,
    ]


SPATIAL = "resnet_cifar({}depths=2-2,in_chans=1,num_classes=3,stem_width=5,widths=6-11)@8"


def test_published_size_of_the_block_of_eanet() -> None:
    """At 512 channels and 64 slots; the norm counts 2 an element beside the products."""
    assert external.spatial_params(512, 64) == 591_360
    assert external.spatial_macs(1, 512, 64) == 589_824 + 2 * 512


@pytest.mark.parametrize("order", ["", "pre_activation=true,"])
def test_a_block_is_followed_by_that_of_eanet(order: str) -> None:
    """By the published code: 1 x 1 convolutions around the memories, norm, addition, ReLU."""
    text = SPATIAL.format(order)
    spec = NetworkSpec.parse(f"{text}: E1V1/s7 | V1E1/s5/dia1")
    network = randomised(build(spec))
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    images = random_images(network.backbone)
    x_BCYX = torch.randn(2, 6, 8, 8, dtype=torch.float64)
    block = network.block(0, 0)
    plain, choice = LayerChoice.of("V"), LayerChoice.of("E", slots=7)
    with torch.no_grad():
        given, _ = block(x_BCYX[:, :5], State(), plain, 0, None, Recorder(()))
        found, _ = block(x_BCYX[:, :5], State(), choice, 0, None, Recorder(()))
        unit = block.following["external"]
        x = F.conv2d(given, unit.query.weight[:, :, None, None], unit.query.bias).flatten(2)
        attention = F.softmax(torch.einsum("sc,bcn->bsn", unit.memory_key, x), dim=-1)
        attention = attention / (1e-9 + attention.sum(1, keepdim=True))
        x = torch.einsum("sc,bsn->bcn", unit.memory_value, attention).view_as(given)
        x = F.conv2d(x, unit.proj.weight[:, :, None, None])
        norm = unit.norm
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        torch.testing.assert_close(found, (given + x).relu(), rtol=1e-6, atol=1e-7)
        collected = network.run(images, collect={"attention", "gates"})
    assert [None if m is None else tuple(m.shape[1:]) for m in collected.attention] == [
        (1, 64, 7),
        None,
        None,
        (1, 16, 5),
    ]
    assert [gate is not None for gate in collected.gates] == [False, False, True, True]


def test_its_cost_stands_apart_from_the_block() -> None:
    spec = resolve(NetworkSpec.parse(f"{SPATIAL.format('')}: E1V1/s7 | V2"))
    cost = CostModel(spec.backbone).cost(spec.placement)
    params, macs = 2 * 36 + 6 + 2 * 7 * 6 + 12, 2 * 64 * 36 + 2 * 64 * 7 * 6 + 2 * 64 * 6
    assert (cost.mechanisms["external"].params, cost.mechanisms["external"].macs) == (params, macs)
    assert cost.attention_bytes == 4 * (64 * 7 + 2 * 7 * 6)
    network = build(spec)
    assert cost.params == sum(p.numel() for p in network.parameters())
    assert (cost.macs, cost.matmul_macs) == (fvcore_macs(network), matmul_macs(network))


@pytest.mark.parametrize("family", ["resnet", "resnet_cifar"])
def test_it_passes_the_contract_after_convolutions(family: str) -> None:
    check_mechanism(EXTERNAL, backbones=(family,), num_placements=5)
