"""Attention with spatial reduction against timm's, its shapes and costs by hand."""

from __future__ import annotations

import pytest
import torch
from timm.models.pvt_v2 import Attention
from torch import Tensor, nn

from sharedattn.errors import InputError
from sharedattn.mechanisms.less import default_form
from sharedattn.mechanisms.spatial_reduction import (
    SpatialReductionAttention,
    attention_shape,
    reduction_ratio,
)

B, D, H = 3, 14, 2
GRID = (5, 7)
N = 5 * 7


def timms(ratio: int, *, qkv_bias: bool = True) -> Attention:
    """timm's attention in float64 with weights that make every part matter."""
    attention = Attention(D, H, ratio, qkv_bias=qkv_bias).double()
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.3)
    return attention


def tokens(prefix: int = 0) -> Tensor:
    return torch.randn(B, prefix + N, D, dtype=torch.float64)


@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("ratio", [1, 2, 3, 5])
def test_equal_to_timms(ratio: int, fused: bool, qkv_bias: bool) -> None:
    attention = timms(ratio, qkv_bias=qkv_bias)
    own = SpatialReductionAttention(attention, H, GRID, fused=fused)
    assert own.state_dict().keys() == attention.state_dict().keys()
    x = tokens()
    scores, v = own.scores_and_values(x)
    out, maps = own(scores, v)
    assert maps is None
    torch.testing.assert_close(out, attention(x, GRID), rtol=0, atol=1e-12)
    with_maps, maps = own(scores, v, with_maps=True)
    torch.testing.assert_close(with_maps, out, rtol=0, atol=1e-12)
    num_keys = N if ratio == 1 else (5 // ratio) * (7 // ratio)
    assert maps.shape == (B, H, N, num_keys)
    torch.testing.assert_close(own.values(x), v, rtol=0, atol=1e-12)


def test_prefix_tokens_attend_where_nothing_is_reduced() -> None:
    own = SpatialReductionAttention(timms(1), H, GRID)
    scores, v = own.scores_and_values(tokens(prefix=2))
    assert scores.q_BHNK.shape == scores.k_BHMK.shape == v.shape == (B, H, N + 2, D // H)


@pytest.mark.parametrize("ratio", [1, 3])
def test_a_layer_that_only_reuses_scores_keeps_its_values(ratio: int) -> None:
    attention = timms(ratio)
    own = SpatialReductionAttention(attention, H, GRID)
    alone = SpatialReductionAttention(attention, H, GRID, own_scores=False)
    x = tokens()
    torch.testing.assert_close(alone.values(x), own.values(x), rtol=0, atol=1e-12)
    modules = {name.rpartition(".")[0] for name, _ in alone.named_parameters()}
    assert modules == {"v", "proj"} | ({"sr", "norm"} if ratio > 1 else set())
    with torch.no_grad():
        alone.v.weight.zero_()
    assert own.kv.weight.all()


@pytest.mark.parametrize(("ratio", "key_grid"), [(2, (2, 3)), (3, (1, 2)), (5, (1, 1))])
def test_sizes_and_costs_by_hand(ratio: int, key_grid: tuple[int, int]) -> None:
    shape = attention_shape(GRID, 0, D, ratio)
    M = key_grid[0] * key_grid[1]
    assert (shape.num_queries, shape.num_keys, shape.key_grid) == (N, M, key_grid)
    attention = timms(ratio)
    assert reduction_ratio(attention) == ratio
    parts = [*attention.sr.parameters(), *attention.norm.parameters()]
    assert shape.context_params == sum(p.numel() for p in parts)
    assert shape.context_macs == M * attention.sr.weight.numel() + 5 * M * D
    assert shape.context_norm_macs == 5 * M * D
    assert default_form(shape) == "keys"


def test_nothing_is_reduced_by_a_ratio_of_one() -> None:
    shape = attention_shape(GRID, 3, D, 1)
    assert (shape.num_queries, shape.num_keys, shape.key_grid) == (N + 3, N + 3, GRID)
    assert (shape.context_params, shape.context_macs, shape.context_norm_macs) == (0, 0, 0)
    assert reduction_ratio(timms(1)) == 1
    assert default_form(shape) == "full"


def test_a_grid_below_the_ratio_is_refused() -> None:
    message = "ratio of 6 leaves no keys on a grid of 5 x 7; lower"
    with pytest.raises(InputError, match=message):
        attention_shape(GRID, 0, D, 6)
