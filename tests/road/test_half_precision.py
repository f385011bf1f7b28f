"""What sums over many tokens keeps its figures under autocast.

Bounds are relative errors (largest, or of the Euclidean norm where said) against float64 runs of
the same weights. bfloat16 keeps 8 bits, so a single rounding is off by up to 2^-9 = 0.002, float16
11 bits and 2^-12 = 0.00024; a map is the exponential of logits that were themselves rounded.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sharedattn.backbones import build
from sharedattn.mechanisms.broadcasting import broadcast_context, token_mean
from sharedattn.mechanisms.dia import DIACell
from sharedattn.mechanisms.external import (
    ExternalAttention,
    MultiHeadExternalAttention,
    double_norm,
)
from sharedattn.mechanisms.less import diagonality
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement

HALF = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
TOKENS = pytest.mark.parametrize("num_tokens", [197, 3136])
BITS = {torch.bfloat16: 8, torch.float16: 11}


def relative(found: Tensor, exact: Tensor) -> float:
    """Of the Euclidean norms."""
    return float((found.double() - exact).norm() / exact.norm())


@TOKENS
@HALF
@pytest.mark.parametrize("form", ["single", "mea"])
def test_maps_of_external_attention(form: str, dtype: torch.dtype, num_tokens: int) -> None:
    torch.manual_seed(0)
    module: Any = (
        ExternalAttention(64, 64) if form == "single" else MultiHeadExternalAttention(64, 64, 4, 2)
    )
    x = torch.randn(1, num_tokens, 64)
    with torch.no_grad():
        with torch.autocast("cpu", dtype):
            out, maps = module(x, 64)
        exact_out, exact = module.double()(x.double(), 64)
    assert maps.dtype == out.dtype == dtype
    off = ((maps.double() - exact).abs() / exact).max().item()
    assert off <= 6 * 2 ** -BITS[dtype]  # 0.023 and 0.0029; before, 0.043 and 0.0053
    assert relative(maps, exact) <= 2 ** -BITS[dtype]
    assert relative(out, exact_out) <= 4 * 2 ** -BITS[dtype]


@TOKENS
@HALF
def test_double_norm_rounds_once(dtype: torch.dtype, num_tokens: int) -> None:
    """Of equal logits the result is the float64 one, rounded to half precision."""
    torch.manual_seed(0)
    logits = (4 * torch.randn(2, num_tokens, 64)).to(dtype)
    exact = double_norm(logits.double())
    for maps in (double_norm(logits), _under_autocast(dtype, logits)):
        assert maps.dtype == dtype
        normal = exact > torch.finfo(dtype).tiny
        off = ((maps.double() - exact).abs() / exact)[normal].max().item()
        assert off <= 1.05 * 2 ** -BITS[dtype]  # 0.0041 and 0.00051


def _under_autocast(dtype: torch.dtype, logits: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype):
        return double_norm(logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whole_precision_is_as_it_was_to_the_last_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = 5 * torch.randn(2, 3, 197, 16, dtype=dtype)
    before = torch.softmax(torch.log_softmax(logits, dim=-2), dim=-1)
    assert torch.equal(double_norm(logits), before)
    maps = torch.softmax(torch.randn(2, 3, 50, 50, dtype=dtype), dim=-1)
    asymmetry = (maps - maps.transpose(-2, -1)).abs().sum((-2, -1))
    dominance = 50 * maps.diagonal(dim1=-2, dim2=-1).sum(-1) - maps.sum((-2, -1))
    assert torch.equal(diagonality(maps), ((asymmetry - dominance) / 50**2).mean())


@TOKENS
@HALF
def test_token_means(dtype: torch.dtype, num_tokens: int) -> None:
    """The mean of the rounded tokens, rounded once: sums beyond float16's 65,504 included."""
    torch.manual_seed(0)
    x = (100 + 30 * torch.randn(2, num_tokens, 64)).to(dtype)
    exact = x.double().mean(1, keepdim=True)
    with torch.autocast("cpu", dtype):
        mean, mixed = token_mean(x, 0), broadcast_context(x)
    assert ((mean.double() - exact).abs() / exact).max().item() <= 1.01 * 2 ** -BITS[dtype]
    assert relative(mixed, 0.5 * (x.double() + exact)) <= 2 ** -BITS[dtype]


@HALF
def test_gates_of_dia_units_over_many_layers(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    cell, branches = DIACell(64, 4), torch.randn(24, 8, 64).to(dtype)
    state, exact = None, None
    with torch.no_grad():
        with torch.autocast("cpu", dtype):
            for branch in branches:
                state = cell(branch, state)
        cell.double()
        for branch in branches:
            exact = cell(branch.double(), exact)
    assert state is not None and exact is not None
    assert relative(state[0], exact[0]) <= 2 * 2 ** -BITS[dtype]
    assert (state[1].double() - exact[1]).abs().max().item() <= 4 * 2 ** -BITS[dtype]


@HALF
@pytest.mark.parametrize("num_tokens", [197, 3136])
def test_the_diagonality_term(dtype: torch.dtype, num_tokens: int) -> None:
    """At the identity N times the diagonal's sum is N^2, which float16 has no number for."""
    identity = torch.eye(num_tokens).expand(1, 1, -1, -1).to(dtype)
    assert diagonality(identity).item() == pytest.approx(-(num_tokens - 1) / num_tokens, abs=1e-6)
    torch.manual_seed(0)
    maps = torch.softmax(torch.randn(1, 1, num_tokens, num_tokens), dim=-1).to(dtype)
    maps.requires_grad_(True)
    term = diagonality(maps)
    assert term.item() == pytest.approx(diagonality(maps.double()).item(), rel=1e-3)
    term.backward()
    assert maps.grad is not None and maps.grad.isfinite().all()


NETWORKS = {
    "vanilla": ("vit", "V3"),
    "less": ("vit", "V1L2"),
    "less, low rank": ("vit", "V1L2/lowrank8"),
    "external": ("vit", "E3"),
    "external, multi-head": ("vit", "E3/mea"),
    "gates": ("vit", "V3/dia1/cb"),
    "re-attention": ("deepvit", "V3"),
}


@HALF
@pytest.mark.parametrize("what", NETWORKS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_maps_and_logits_of_a_network(what: str, training: bool, dtype: torch.dtype) -> None:
    """In training, DeepViT's batch norm leaves of nearly uniform maps their departures alone."""
    family, text = NETWORKS[what]
    torch.manual_seed(0)
    backbone = BackboneSpec.parse(
        f"{family}(depth=3,embed_dim=48,num_heads=3,patch_size=16,num_classes=10)@224"
    )
    network = build(NetworkSpec(backbone, Placement.parse(text)), fused=False).train(training)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if ".less" in name:
                weight.normal_(std=0.02)
    images, collect = torch.randn(2, 3, 224, 224), {"attention", "gates"}
    with torch.no_grad():
        with torch.autocast("cpu", dtype):
            found = network.run(images, collect=collect)
        exact = network.double().run(images.double(), collect=collect)
    assert relative(found.logits, exact.logits) <= 8 * 2 ** -BITS[dtype]
    assert found.attention and exact.attention and found.gates and exact.gates
    for maps, exactly in zip(found.attention, exact.attention, strict=True):
        assert maps is not None and exactly is not None
        assert relative(maps, exactly) <= 2 * 2 ** -BITS[dtype]
    for gates, exactly in zip(found.gates, exact.gates, strict=True):
        assert exactly is None or relative(gates, exactly) <= 2 * 2 ** -BITS[dtype]


@HALF
def test_a_network_in_half_precision_throughout_still_runs(dtype: torch.dtype) -> None:
    for family, text in NETWORKS.values():
        backbone = BackboneSpec.parse(
            f"{family}(depth=3,embed_dim=12,num_heads=3,patch_size=4,num_classes=3)@16"
        )
        network = build(NetworkSpec(backbone, Placement.parse(text)), fused=False).to(dtype).eval()
        with torch.no_grad():
            assert network(torch.randn(2, 3, 16, 16).to(dtype)).isfinite().all()
