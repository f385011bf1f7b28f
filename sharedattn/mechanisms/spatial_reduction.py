"""Attention whose keys and values come from spatially reduced tokens.

"Pyramid Vision Transformer" (ICCV 2021, arXiv:2102.12122): a convolution of kernel and stride R
merges R x R tokens into one, a layer norm follows, and keys and values are computed from the
result: N queries meet M = N / R^2 keys. The layout is timm's, which is also the published code's.

Rows and columns beyond a multiple of R are dropped, as by the convolution. Less attention reuses
scores with M keys, but still needs the reduction for its own values.

Shape letters: B batch, N tokens, M reduced tokens, D embed_dim, H heads, K head_dim, R ratio,
Y x X grid.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sharedattn.errors import InputError
from sharedattn.mechanisms.scores import Scores
from sharedattn.mechanisms.vanilla import ScoredAttention, last_rows, linear_rows
from sharedattn.shape import AttentionShape, layer_norm_macs


class SpatialReductionAttention(ScoredAttention):
    """Self-attention with keys and values of reduced tokens; without reduction if R is 1.

    The module takes over the maps without a copy, so timm's weights and names stay as they are.

    Attributes:
        q: queries, D -> D; absent without `own_scores`.
        kv: keys and values in this order, D -> 2 D; absent without `own_scores`.
        v: the values alone, D -> D; only without `own_scores`.
        sr: the convolution that reduces, or None if R is 1.
        norm: the norm after it, or None if R is 1.
        grid: rows and columns of the tokens.
    """

    def __init__(
        self,
        attention: Any,
        num_heads: int,
        grid: tuple[int, int],
        *,
        own_scores: bool = True,
        fused: bool = True,
    ) -> None:
        """Take over the maps of a backbone's attention.

        Args:
            attention: module with `q`, `kv`, `proj`, `sr` and `norm`; the last two are None if R
                is 1.
            num_heads: H; divides D.
            grid: rows and columns of the tokens; if R is above 1 there are no others.
            own_scores: False for a layer that only reuses scores: it keeps a copy of the value
                rows and neither queries nor keys.
            fused: as in `ScoredAttention`.
        """
        super().__init__(attention.q.in_features, num_heads, own_scores=own_scores, fused=fused)
        if own_scores:
            self.q = attention.q
            self.kv = attention.kv
        else:
            self.v = last_rows(attention.kv)
        self.proj = attention.proj
        self.sr: nn.Conv2d | None = attention.sr
        self.norm: nn.LayerNorm | None = attention.norm
        self.grid = grid

    def scores_and_values(self, x_BND: Tensor) -> tuple[Scores, Tensor]:
        """Scores, and values (B, H, M, K), of tokens (B, N, D)."""
        B, N, _ = x_BND.shape
        q_BNHK = self.q(x_BND).view(B, N, self.num_heads, -1)
        kv_BM2D = self.kv(self._reduced(x_BND))
        k_BMHK, v_BMHK = kv_BM2D.view(B, -1, 2, self.num_heads, q_BNHK.shape[-1]).unbind(2)
        scores = Scores(q_BNHK.transpose(1, 2), k_BMHK.transpose(1, 2), self.scale)
        return scores, v_BMHK.transpose(1, 2)

    def values(self, x_BND: Tensor) -> Tensor:
        """Values (B, H, M, K) alone, of tokens (B, N, D)."""
        x_BMD = self._reduced(x_BND)
        v_BMD = linear_rows(self.kv, x_BMD) if self.own_scores else self.v(x_BMD)
        B, M, _ = v_BMD.shape
        return v_BMD.reshape(B, M, self.num_heads, -1).transpose(1, 2)

    def _reduced(self, x_BND: Tensor) -> Tensor:
        """The tokens from which keys and values are computed, (B, M, D)."""
        if self.sr is None or self.norm is None:
            return x_BND
        B, _, D = x_BND.shape
        x_BDYX = x_BND.transpose(1, 2).reshape(B, D, *self.grid)
        out_BMD: Tensor = self.norm(self.sr(x_BDYX).flatten(2).transpose(1, 2))
        return out_BMD


def reduction_ratio(attention: Any) -> int:
    """R of a backbone's attention: the reduction of its keys along each side of the grid."""
    return 1 if attention.sr is None else int(attention.sr.stride[0])


def attention_shape(
    grid: tuple[int, int], num_prefix_tokens: int, embed_dim: int, ratio: int
) -> AttentionShape:
    """The attention shape of a stage with spatial reduction, with the cost of the reduction.

    With R = `ratio` above 1, M = floor(Y / R) floor(X / R) keys and

        params = R**2*D**2 + D + 2*D
        macs = M * R**2*D**2 + 5*M*D

    where the last terms are the norm's.

    Args:
        grid: rows and columns of the tokens, Y and X.
        num_prefix_tokens: number of tokens before those; 0 if R is above 1.
        embed_dim: D.
        ratio: R; 1 for no reduction, at no further cost.

    Raises:
        InputError: the grid is smaller than R, which leaves no keys.
    """
    (Y, X), D, R = grid, embed_dim, ratio
    N = Y * X + num_prefix_tokens
    if R == 1:
        return AttentionShape(num_queries=N, num_keys=N, key_grid=grid)
    key_grid = (Y // R, X // R)
    M = key_grid[0] * key_grid[1]
    if M == 0:
        raise InputError(
            f"a spatial reduction ratio of {R} leaves no keys on a grid of {Y} x {X}; lower "
            f"`sr_ratios` or raise the image size"
        )
    norm_macs = layer_norm_macs(M, D)
    return AttentionShape(
        num_queries=N,
        num_keys=M,
        context_params=R**2 * D**2 + 3 * D,
        context_macs=M * R**2 * D**2 + norm_macs,
        context_norm_macs=norm_macs,
        key_grid=key_grid,
    )
