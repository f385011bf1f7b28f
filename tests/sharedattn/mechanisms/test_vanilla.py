"""Vanilla attention against timm's, and its cost against its parameters."""

from __future__ import annotations

import pytest
import torch
from timm.layers.attention import Attention
from torch import nn

from sharedattn.mechanisms import vanilla
from sharedattn.mechanisms.vanilla import SelfAttention

B, N, H, D = 3, 7, 2, 22


@pytest.mark.parametrize("fused", [True, False])
def test_equals_timms_attention(fused: bool) -> None:
    timm_attention = Attention(D, num_heads=H, qkv_bias=True)
    attention = SelfAttention(timm_attention.qkv, timm_attention.proj, H, fused=fused)
    x = torch.randn(B, N, D)
    out, maps = attention(*attention.scores_and_values(x))
    torch.testing.assert_close(out, timm_attention(x))
    assert maps is None


def test_maps_are_those_of_the_explicit_computation() -> None:
    attention = SelfAttention(nn.Linear(D, 3 * D), nn.Linear(D, D), H)
    x = torch.randn(B, N, D)
    scores_and_values = attention.scores_and_values(x)
    out, maps = attention(*scores_and_values, with_maps=True)
    q_rows, k_rows, _ = attention.qkv(x).split(D, dim=-1)
    for head in range(H):
        columns = slice(head * D // H, (head + 1) * D // H)
        scores = q_rows[..., columns] @ k_rows[..., columns].transpose(1, 2) / (D // H) ** 0.5
        torch.testing.assert_close(maps[:, head], scores.softmax(-1))
    torch.testing.assert_close(out, attention(*scores_and_values)[0])


@pytest.mark.parametrize("bias", [True, False])
def test_values_alone_equal_the_joint_maps(bias: bool) -> None:
    qkv = nn.Linear(D, 3 * D, bias=bias)
    x = torch.randn(B, N, D)
    shared = SelfAttention(qkv, nn.Linear(D, D), H)
    alone = SelfAttention(qkv, nn.Linear(D, D), H, own_scores=False)
    v = shared.scores_and_values(x)[1]
    torch.testing.assert_close(shared.values(x), v)
    torch.testing.assert_close(alone.values(x), v)
    assert [name for name, _ in alone.named_parameters()] == [
        "v.weight",
        *(["v.bias"] if bias else []),
        "proj.weight",
        "proj.bias",
    ]


@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("proj_bias", [True, False])
def test_params(qkv_bias: bool, proj_bias: bool) -> None:
    module = SelfAttention(nn.Linear(D, 3 * D, bias=qkv_bias), nn.Linear(D, D, bias=proj_bias), H)
    expected = vanilla.params(D, qkv_bias=qkv_bias, proj_bias=proj_bias)
    assert sum(p.numel() for p in module.parameters()) == expected


def test_published_figures() -> None:
    # d = 384: 590,208 without the bias of queries, keys and values; DeiT-T, -S and ViT-B MACs.
    assert vanilla.params(384, qkv_bias=False, proj_bias=True) == 590_208
    assert [vanilla.macs(197, d) for d in (192, 384, 768)] == [
        43_951_488,
        146_000_640,
        524_391_936,
    ]
