"""External attention: the double norm's axes, slots, and cost."""

from __future__ import annotations

import pytest
import torch

from sharedattn.mechanisms import external
from sharedattn.mechanisms.external import (
    ExternalAttention,
    MultiHeadExternalAttention,
    double_norm,
)

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
