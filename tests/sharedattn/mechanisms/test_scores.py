"""Scores and their softmax: the product they stand for, masks, and half precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sharedattn.mechanisms.scores import Scores, attend

B, W, H, N, M, K, V = 3, 2, 5, 7, 11, 13, 17

HALVES = (torch.float16, torch.bfloat16)


def tensors(*shape: int, std: float = 1.0) -> Tensor:
    return std * torch.randn(*shape, dtype=torch.float64)


def random_scores(bias: Tensor | None = None) -> Scores:
    return Scores(tensors(W * B, H, N, K), tensors(W * B, H, M, K), 0.3, bias)


def test_explicit_scores_are_the_product_and_the_biases() -> None:
    first, second = tensors(H, N, M), tensors(W * B, H, N, M)
    scores = random_scores()
    product = 0.3 * torch.einsum("bhnk,bhmk->bhnm", scores.q_BHNK, scores.k_BHMK)
    torch.testing.assert_close(scores.explicit(), product)
    torch.testing.assert_close(scores.plus(first).explicit(), product + first)
    both = scores.plus(first).plus(second)
    torch.testing.assert_close(both.explicit(), product + first + second)
    assert scores.bias is None


@pytest.mark.parametrize("bias_shape", [None, (H, N, M), (W * B, H, N, M)])
@pytest.mark.parametrize("masked", [False, True])
def test_fused_and_explicit_attention_agree(
    bias_shape: tuple[int, ...] | None, masked: bool
) -> None:
    scores = random_scores(None if bias_shape is None else tensors(*bias_shape))
    v = tensors(W * B, H, M, V)
    mask = tensors(W, N, M) if masked else None
    fused, no_maps = attend(scores, v, fused=True, mask_WNM=mask)
    explicit, maps = attend(scores, v, fused=False, mask_WNM=mask)
    assert no_maps is None and maps is not None
    torch.testing.assert_close(fused, explicit)
    # Of images times windows, the windows vary fastest.
    added = 0 if mask is None else mask.repeat(B, 1, 1).unsqueeze(1)
    torch.testing.assert_close(maps, (scores.explicit() + added).softmax(-1))
    torch.testing.assert_close(explicit, maps @ v)


def halved(scores: Scores, dtype: torch.dtype) -> Scores:
    bias = None if scores.bias is None else scores.bias.to(dtype)
    return Scores(scores.q_BHNK.to(dtype), scores.k_BHMK.to(dtype), scores.scale, bias)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_softmax_in_float32_is_what_half_scores_allow(dtype: torch.dtype) -> None:
    """Of half-precision scores up to a hundred, the maps are exact but for their own rounding."""
    scores = halved(Scores(tensors(B, H, N, K, std=9.0), tensors(B, H, M, K, std=9.0), 0.3), dtype)
    _, maps = attend(scores, torch.zeros(B, H, M, V, dtype=dtype), fused=False)
    assert maps is not None and maps.dtype == dtype
    half_scores = scores.explicit()
    assert half_scores.dtype == dtype and half_scores.abs().max() > 100
    exact = half_scores.double().softmax(-1)
    rounding = torch.finfo(dtype).eps / 2
    smallest = torch.finfo(dtype).smallest_normal
    assert ((maps - exact).abs() <= 1.01 * rounding * exact + smallest).all()


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_agrees_with_float64_to_the_rounding_of_its_inputs(
    dtype: torch.dtype,
) -> None:
    exact_scores = Scores(tensors(B, H, N, K, std=5.0), tensors(B, H, M, K, std=5.0), 0.3)
    scores = halved(exact_scores, dtype)
    v = tensors(B, H, M, V).to(dtype)
    out, _ = attend(scores, v, fused=False)
    inputs = Scores(scores.q_BHNK.double(), scores.k_BHMK.double(), 0.3)
    expected = attend(inputs, v.double(), fused=False)[0]
    # A score of s is off by s eps / 2 for each of its two roundings: scaled query, product.
    eps = torch.finfo(dtype).eps
    magnitude = (inputs.q_BHNK.abs() * 0.3) @ inputs.k_BHMK.abs().transpose(-2, -1)
    largest = inputs.explicit().abs() + magnitude
    score_error = (eps * largest).amax(-1, keepdim=True)
    # A softmax of scores off by e is off by a factor of exp(2 e); v and maps round once more.
    factor = torch.expm1(2 * score_error) + 2 * eps
    assert ((out - expected).abs() <= factor * v.abs().amax().double()).all()
    assert (out - expected).abs().mean() < 60 * eps


@pytest.mark.parametrize("dtype", HALVES)
def test_it_is_better_than_a_softmax_that_sums_in_half_precision(dtype: torch.dtype) -> None:
    """Uniform scores over many keys: a sum in half precision stops growing, one in float32 not."""
    num_keys = 4099
    scores = Scores(
        torch.zeros(1, 1, 3, K, dtype=dtype), torch.zeros(1, 1, num_keys, K, dtype=dtype), 1.0
    )
    _, maps = attend(scores, torch.zeros(1, 1, num_keys, V, dtype=dtype), fused=False)
    assert maps is not None
    total = torch.zeros((), dtype=dtype)
    for exponential in scores.explicit()[0, 0, 0].exp():
        total = total + exponential
    in_half = (1 / total).double().item()
    error, half_error = abs(maps[0, 0, 0, 0].item() - 1 / num_keys), abs(in_half - 1 / num_keys)
    assert error <= torch.finfo(dtype).eps / num_keys
    assert half_error > 100 * error


def test_scores_beyond_halfs_range_of_exponentials_stay_finite() -> None:
    scores = Scores(
        torch.full((1, 1, N, K), 30.0, dtype=torch.float16),
        torch.full((1, 1, M, K), 30.0, dtype=torch.float16),
        K**-0.5,
    )
    out, maps = attend(scores, torch.ones(1, 1, M, V, dtype=torch.float16), fused=False)
    assert maps is not None and scores.explicit().max() > 3000
    torch.testing.assert_close(maps, torch.full_like(maps, 1 / M))
    torch.testing.assert_close(out, torch.ones_like(out), rtol=0, atol=2e-3)


def test_queries_are_scaled_before_the_product() -> None:
    """q . k overflows float16 at 65,504; scaled, it does not."""
    q = torch.full((1, 1, N, 64), 40.0, dtype=torch.float16)
    scores = Scores(q, q, 64**-0.5)
    assert not (q @ q.transpose(-2, -1)).isfinite().any()
    assert (scores.explicit() == 64 * 1600 / 8).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_precisions_are_left_alone(dtype: torch.dtype) -> None:
    scores = random_scores()
    scores = Scores(scores.q_BHNK.to(dtype), scores.k_BHMK.to(dtype), scores.scale)
    out, maps = attend(scores, tensors(W * B, H, M, V).to(dtype), fused=False)
    assert maps is not None and out.dtype == maps.dtype == dtype
    assert torch.equal(maps, scores.explicit().softmax(-1))
