"""Vanilla self-attention, with the values and the output that less attention shares.

Vaswani et al. 2017 (arXiv:1706.03762), in timm's layout: one linear map gives queries, keys and
values. The queries and keys are handed out, so that a later layer can reuse them.

Shape letters: B batch, N tokens, D embed_dim, H heads, K head_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """Multi-head self-attention: softmax(Q K^T / sqrt(K)) V, then an output projection.

    The linear maps are taken over, not copied, so timm's weights and names stay as they are.

    Attributes:
        qkv: queries, keys and values in this order, D -> 3 D; absent without `own_scores`.
        v: the values alone, D -> D; only without `own_scores`.
        proj: output projection, D -> D.
        num_heads: H.
        scale: 1 / sqrt(K), of the scores.
        fused: whether `scaled_dot_product_attention` is used where no map is asked for.
    """

    def __init__(
        self,
        qkv: nn.Linear,
        proj: nn.Linear,
        num_heads: int,
        *,
        own_scores: bool = True,
        fused: bool = True,
    ) -> None:
        """Take over the linear maps.

        Args:
            qkv: D -> 3 D, rows in the order queries, keys, values.
            proj: D -> D.
            num_heads: H; divides D.
            own_scores: False for a layer that only ever reuses scores: it keeps a copy of the
                value rows and neither queries nor keys.
            fused: see the attribute.
        """
        super().__init__()
        self.num_heads = num_heads
        self.scale = (qkv.in_features // num_heads) ** -0.5
        self.fused = fused
        self.own_scores = own_scores
        if own_scores:
            self.qkv = qkv
        else:
            self.v = _value_rows(qkv)
        self.proj = proj

    def queries_keys_values(self, x_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, H, N, K), of tokens (B, N, D)."""
        B, N, _ = x_BND.shape
        # Unbound before the heads move forward: the gradient is then stacked in one copy.
        q_BNHK, k_BNHK, v_BNHK = self.qkv(x_BND).view(B, N, 3, self.num_heads, -1).unbind(2)
        return q_BNHK.transpose(1, 2), k_BNHK.transpose(1, 2), v_BNHK.transpose(1, 2)

    def values(self, x_BND: Tensor) -> Tensor:
        """Values (B, H, N, K) alone, of tokens (B, N, D)."""
        B, N, D = x_BND.shape
        if self.own_scores:
            bias = None if self.qkv.bias is None else self.qkv.bias[2 * D :]
            v_BND = F.linear(x_BND, self.qkv.weight[2 * D :], bias)
        else:
            v_BND = self.v(x_BND)
        return v_BND.reshape(B, N, self.num_heads, -1).transpose(1, 2)

    def forward(
        self, q_BHNK: Tensor, k_BHNK: Tensor, v_BHNK: Tensor, *, with_maps: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend and project.

        Args:
            q_BHNK: (B, H, N, K), this layer's own queries or reused ones.
            k_BHNK: (B, H, N, K), keys likewise.
            v_BHNK: (B, H, N, K), this layer's own values.
            with_maps: compute the attention explicitly and return its maps.

        Returns:
            Tokens (B, N, D), and the maps (B, H, N, N) where asked for, else None.
        """
        maps_BHNN = None
        if self.fused and not with_maps:
            out_BHNK = F.scaled_dot_product_attention(q_BHNK, k_BHNK, v_BHNK)
        else:
            maps_BHNN = torch.softmax((q_BHNK * self.scale) @ k_BHNK.transpose(-2, -1), dim=-1)
            out_BHNK = maps_BHNN @ v_BHNK
        out_BND = self.proj(out_BHNK.transpose(1, 2).flatten(2))
        return out_BND, maps_BHNN if with_maps else None


def _value_rows(qkv: nn.Linear) -> nn.Linear:
    """The value rows of a joint map, as a linear map of their own."""
    D = qkv.in_features
    v = nn.Linear(D, D, bias=qkv.bias is not None, device=qkv.weight.device)
    with torch.no_grad():
        v.weight.copy_(qkv.weight[2 * D :])
        if qkv.bias is not None:
            v.bias.copy_(qkv.bias[2 * D :])
    return v


def params(embed_dim: int, *, qkv_bias: bool, proj_bias: bool) -> int:
    """Parameters of a vanilla layer's attention: 4 D^2, plus 3 D and D for the biases."""
    D = embed_dim
    return 4 * D**2 + 3 * D * qkv_bias + D * proj_bias


def macs(num_tokens: int, embed_dim: int) -> int:
    """Multiply-accumulates of a vanilla layer's attention for one image.

    Four projections and the two token-token products; softmax and biases cost nothing:

        macs = 4*N*D**2 + 2*N**2*D

    Args:
        num_tokens: N, prefix tokens included; > 0.
        embed_dim: D; > 0.

    Returns:
        MACs, one multiply-add being 1. The number of heads does not matter.
    """
    N, D = num_tokens, embed_dim
    return 4 * N * D**2 + 2 * N**2 * D
