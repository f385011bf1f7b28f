"""Attention scores before the softmax, kept in factored form.

A layer passes its scores on as queries, keys and a bias; nothing of size N x M is stored for them,
and later layers can attend with them by the fused kernel.

Shape letters: B batch (times windows, where a stage has windows), H heads, N queries, M keys,
K channels of a head, V channels of a value.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores q k^T * scale + bias.

    Attributes:
        q_BHNK: queries.
        k_BHMK: keys.
        scale: scale of the product, 1 / sqrt(channels of a head).
        bias: added to the product: (H, N, M) for all images and windows, such as a
            relative-position bias, or (B, H, N, M), or None.
    """

    q_BHNK: Tensor
    k_BHMK: Tensor
    scale: float
    bias: Tensor | None = None

    def plus(self, bias: Tensor) -> Scores:
        """Add a further bias, (H, N, M) or (B, H, N, M)."""
        return replace(self, bias=bias if self.bias is None else self.bias + bias)

    def explicit(self) -> Tensor:
        """Compute the scores, (B, H, N, M)."""
        # Scaled before the product, as in timm: half precision overflows later.
        scores_BHNM = (self.q_BHNK * self.scale) @ self.k_BHMK.transpose(-2, -1)
        return scores_BHNM if self.bias is None else scores_BHNM + self.bias


def attend(
    scores: Scores, v_BHMV: Tensor, *, fused: bool, mask_WNM: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Compute softmax(scores + mask) v; in half precision, the softmax uses float32.

    Args:
        scores: of queries (B, H, N, K) and keys (B, H, M, K).
        v_BHMV: (B, H, M, V).
        fused: whether to use the fused kernel, which returns no maps.
        mask_WNM: (W, N, M), added to the scores of each of the W windows of an image, where B is
            images times W, or None.

    Returns:
        (B, H, N, V), and the maps (B, H, N, M), or None from the fused kernel.
    """
    if fused:
        out_BHNV = F.scaled_dot_product_attention(
            scores.q_BHNK,
            scores.k_BHMK,
            v_BHMV,
            attn_mask=_additive_mask(scores, mask_WNM),
            scale=scores.scale,
        )
        return out_BHNV, None
    maps_BHNM = attention_maps(scores, mask_WNM).to(v_BHMV.dtype)
    return maps_BHNM @ v_BHMV, maps_BHNM


def attention_maps(scores: Scores, mask_WNM: Tensor | None = None) -> Tensor:
    """Compute softmax(scores + mask), (B, H, N, M), explicitly; arguments as in `attend`.

    Returns:
        The maps; in float32 for scores in half precision.
    """
    scores_BHNM = scores.explicit()
    if mask_WNM is not None:
        W, N, M = mask_WNM.shape
        B, H = scores_BHNM.shape[:2]
        masked_BWHNM = scores_BHNM.view(B // W, W, H, N, M) + mask_WNM.unsqueeze(1)
        scores_BHNM = masked_BWHNM.view(B, H, N, M)
    return torch.softmax(scores_BHNM, dim=-1, dtype=sums_dtype(scores_BHNM))


def sums_dtype(x: Tensor) -> torch.dtype:
    """The dtype of sums over many tokens: float32 for half precision, else that of `x`."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """A context without autocast on the device of `x`."""
    device = x.device.type
    # Entered only if needed, since an exported program would include it as an operation. torch 2.9
    # cannot compile a call of `is_autocast_available`.
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def _additive_mask(scores: Scores, mask_WNM: Tensor | None) -> Tensor | None:
    """Bias and mask in the fused kernel's form, broadcast over the batch if possible."""
    if mask_WNM is None:
        bias = scores.bias
        # On a CPU the fused kernel is only fast with masks of four axes.
        return bias if bias is None or bias.dim() == 4 else bias.unsqueeze(0)
    B = scores.q_BHNK.shape[0]
    W, N, M = mask_WNM.shape
    mask = mask_WNM.unsqueeze(1)
    if scores.bias is not None:
        bias = scores.bias
        mask = mask + (bias if bias.dim() == 3 else bias.reshape(B // W, W, -1, N, M))
    return mask.expand(B // W, W, -1, N, M).reshape(B, -1, N, M)
