"""Context broadcasting: a fixed, doubly stochastic map."""

from __future__ import annotations

import torch

from sharedattn.mechanisms import broadcasting
from sharedattn.mechanisms.broadcasting import (
    ContextBroadcasting,
    ScaledContextBroadcasting,
    broadcast_context,
)

B, N, D = 3, 7, 5


def test_it_is_half_identity_half_uniform_attention() -> None:
    x = torch.randn(B, N, D, dtype=torch.float64)
    attention = (torch.eye(N) + torch.full((N, N), 1 / N)).double() / 2
    torch.testing.assert_close(broadcast_context(x), attention @ x)


def test_it_keeps_the_token_mean_and_quarters_the_variance() -> None:
    x = torch.randn(B, N, D, dtype=torch.float64)
    y = broadcast_context(x)
    torch.testing.assert_close(y.mean(1), x.mean(1), rtol=0, atol=1e-15)
    torch.testing.assert_close(y.var(1), x.var(1) / 4)


def test_tokens_left_out_of_the_mean_still_receive_it() -> None:
    x = torch.randn(B, N, D, dtype=torch.float64)
    y = broadcast_context(x, num_left_out=2)
    torch.testing.assert_close(y, (x + x[:, 2:].mean(1, keepdim=True)) / 2)
    moved = x.clone()
    moved[:, :2] += 1
    assert torch.equal(broadcast_context(moved, num_left_out=2)[:, 2:], y[:, 2:])


def test_the_scaled_form_begins_plain() -> None:
    x = torch.randn(B, N, D)
    scaled = ScaledContextBroadcasting(D)
    assert torch.equal(scaled(x, 1), ContextBroadcasting()(x, 1))


def test_the_scaled_form_weights_the_mean_by_channel() -> None:
    x = torch.randn(B, N, D, dtype=torch.float64)
    scaled = ScaledContextBroadcasting(D).double()
    torch.nn.init.normal_(scaled.scale)
    weighted = torch.einsum("d,bd->bd", scaled.scale, x.mean(1)).unsqueeze(1)
    torch.testing.assert_close(scaled(x), (x + weighted) / 2)
    scaled.reset_parameters()
    assert torch.equal(scaled.scale, torch.ones(D, dtype=torch.float64))


def test_params() -> None:
    modules = {False: ContextBroadcasting(), True: ScaledContextBroadcasting(D)}
    for scaled, module in modules.items():
        built = sum(p.numel() for p in module.parameters())
        assert built == broadcasting.params(D, scaled=scaled)
