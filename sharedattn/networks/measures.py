"""The papers' measures of attention maps and gates, as tensor functions with a value per image.

Values are float64. A measure that is undefined for an image, such as a correlation with a
constant, is NaN: no denominator is changed to hide it, and averages count the values left out.

Shape letters: B images, W windows of an image, H heads, N queries, M keys (or slots), P pixels of
a compared quantity, L layers, C channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sharedattn.mechanisms.less import diagonality

_ROW_SUM_TOLERANCE = 1e-2  # a row of 4096 bfloat16 weights sums to 1 within this


def row_entropy(
    maps_BWHNM: Tensor, *, num_prefix_queries: int = 0, num_prefix_keys: int = 0
) -> Tensor:
    """How spread out attention is: 0 for one-hot rows, 1 for uniform ones.

    The entropy of a row divided by the logarithm of its number of keys, so that different M are
    comparable; mean over windows, heads and queries:

        mean_i H_i / ln M,  H_i = -sum_j A_ij ln A_ij

    After the density analysis of context broadcasting (arXiv:2210.08457), whose exact method was
    not available.

    Args:
        maps_BWHNM: (B, W, H, N, M), rows summing to 1.
        num_prefix_queries: leading rows to leave out, such as the class token's.
        num_prefix_keys: leading columns to leave out; the rest of a row is rescaled to sum to 1.

    Returns:
        (B,), float64; NaN for an image with a row that is not a distribution, or if M is 1.
    """
    maps = maps_BWHNM.double()
    is_distribution_B = (
        ((maps.sum(-1) - 1).abs() <= _ROW_SUM_TOLERANCE) & (maps >= 0).all(-1)
    ).flatten(1)
    maps = maps[..., num_prefix_queries:, num_prefix_keys:]
    maps = maps / maps.sum(-1, keepdim=True)
    entropy_BX: Tensor = -torch.special.xlogy(maps, maps).sum(-1).flatten(1)
    entropy_B = entropy_BX.mean(1) / math.log(maps.shape[-1])
    return entropy_B.masked_fill(~is_distribution_B.all(1), math.nan)


def broadcasting_entropy(num_tokens: int, num_left_out: int = 0) -> float:
    """`row_entropy` of plain context broadcasting's fixed map, in closed form.

    With P tokens in the mean, the row of one of them is 1/2 + 1/(2P) at itself and 1/(2P) at the
    others; the row of a token outside the mean is 1/2 at itself and 1/(2P) at all P.

    Args:
        num_tokens: N, including prefix tokens; at least 2.
        num_left_out: prefix tokens outside the mean; fewer than N.
        num_left_out: prefix tokens that are not in the mean; fewer than N.
    """
    P = num_tokens - num_left_out
    own = 1 / 2 + 1 / (2 * P)
    inside = -own * math.log(own) + (P - 1) / (2 * P) * math.log(2 * P)
    outside = math.log(2) / 2 + math.log(2 * P) / 2
    return (P * inside + num_left_out * outside) / (num_tokens * math.log(num_tokens))


def cosine(one_BP: Tensor, other_BP: Tensor) -> Tensor:
    """Cosine of the angle between two vectors, (B,); NaN if one is zero.

    It is high for any attention maps, since all weights are positive: two uniform maps have
    cosine 1.
    """
    one_BP, other_BP = one_BP.double(), other_BP.double()
    norms_B = one_BP.norm(dim=1) * other_BP.norm(dim=1)
    cosine_B: Tensor = (one_BP * other_BP).sum(1) / norms_B
    return cosine_B.clamp(-1.0, 1.0)


def correlation(one_BP: Tensor, other_BP: Tensor) -> Tensor:
    """Pearson correlation over P, (B,); NaN if one of them is constant.

    Attention maps always have mean 1/M, so theirs measures the agreement of their deviations from
    uniform attention.
    """
    # Test constancy exactly: deviations of equal numbers from their rounded mean are not 0.
    is_constant_B = _is_constant(one_BP) | _is_constant(other_BP)
    one_BP, other_BP = one_BP.double(), other_BP.double()
    centred = (x - x.mean(1, keepdim=True) for x in (one_BP, other_BP))
    return cosine(*centred).masked_fill(is_constant_B, math.nan)


def diagonality_by_image(maps_BWHNN: Tensor) -> Tensor:
    """`sharedattn.mechanisms.less.diagonality` of each image, (B,); requires square maps."""
    return torch.vmap(diagonality)(maps_BWHNN.double())


class PooledCorrelation:
    """Pearson correlation between layers over images and channels together.

    The other interpretation of a correlation between gates. It is inflated by each channel's mean,
    which all images share.
    """

    def __init__(self) -> None:
        """Start without values."""
        self._count = 0
        self._shift_L1 = torch.zeros(0)
        self._sum_L = torch.zeros(0)
        self._products_LL = torch.zeros(0)
        self._is_constant_L = torch.zeros(0)

    def add(self, x_BLC: Tensor) -> None:
        """Add a batch of values of L layers, the same in each call."""
        x_LX = x_BLC.double().transpose(0, 1).flatten(1)
        if not self._count:
            # Sum deviations from one of the values, to keep precision if they are close together.
            self._shift_L1 = x_LX[:, :1]
            self._sum_L = torch.zeros_like(x_LX[:, 0])
            self._products_LL = torch.zeros_like(x_LX[:, :1] @ x_LX[:, :1].T)
            self._is_constant_L = torch.ones_like(x_LX[:, 0], dtype=torch.bool)
        shifted_LX = x_LX - self._shift_L1
        self._count += shifted_LX.shape[1]
        self._sum_L += shifted_LX.sum(1)
        self._products_LL += shifted_LX @ shifted_LX.T
        self._is_constant_L &= (shifted_LX == 0).all(1)

    def result(self) -> Tensor:
        """(L, L), float64; NaN for constant layers."""
        covariance_LL = self._products_LL / self._count - torch.outer(
            self._sum_L / self._count, self._sum_L / self._count
        )
        deviation_L = covariance_LL.diagonal().sqrt()
        correlation_LL = covariance_LL / torch.outer(deviation_L, deviation_L)
        is_constant_LL = self._is_constant_L | self._is_constant_L.unsqueeze(1)
        return correlation_LL.clamp(-1.0, 1.0).masked_fill(is_constant_LL, math.nan)


def _is_constant(x_BP: Tensor) -> Tensor:
    return (x_BP == x_BP[:, :1]).all(1)
