"""Vanilla self-attention, whose values and output projection less attention shares.

Vaswani et al. 2017 (arXiv:1706.03762), in timm's layout: one linear map computes queries, keys and
values. The scores are returned, so that a later layer can reuse them.

Shape letters: B batch, N tokens, D embed_dim, H heads, K head_dim.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharedattn.mechanisms.interface import (
    OUTPUT,
    SCORES,
    Branch,
    BranchCall,
    BranchResult,
    Colors,
    MapShape,
    Options,
    PartCost,
)
from sharedattn.mechanisms.options import MechanismOptions
from sharedattn.mechanisms.scores import Scores, attend
from sharedattn.shape import StageShape


class ScoredAttention(nn.Module, ABC):
    """Multi-head attention that computes scores separately, so that other layers can reuse them.

    Attributes:
        proj: output projection, D -> D.
        num_heads: H.
        scale: scale of the scores, 1 / sqrt(K).
        fused: whether to use `scaled_dot_product_attention` if no maps are requested.
        own_scores: whether it has queries and keys, besides values and output projection.
    """

    proj: nn.Linear

    def __init__(self, embed_dim: int, num_heads: int, *, own_scores: bool, fused: bool) -> None:
        """Set sizes and flags, see the attributes; H = `num_heads` divides `embed_dim`."""
        super().__init__()
        self.num_heads = num_heads
        self.scale = (embed_dim // num_heads) ** -0.5
        self.fused = fused
        self.own_scores = own_scores

    @abstractmethod
    def scores_and_values(self, x_BND: Tensor) -> tuple[Scores, Tensor]:
        """Scores, and values (B, H, M, K), of tokens (B, N, D)."""

    @abstractmethod
    def values(self, x_BND: Tensor) -> Tensor:
        """Values (B, H, M, K) alone, of tokens (B, N, D)."""

    def forward(
        self, scores: Scores, v_BHMK: Tensor, *, with_maps: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend and project.

        Args:
            scores: this layer's own scores, or those that it reuses.
            v_BHMK: (B, H, M, K), this layer's own values.
            with_maps: whether to compute the attention explicitly and return its maps.

        Returns:
            Tokens (B, N, D), and the maps (B, H, N, M) if requested, else None.
        """
        out_BHNK, maps_BHNM = attend(scores, v_BHMK, fused=self.fused and not with_maps)
        out_BND = self.project(out_BHNK.transpose(1, 2).flatten(2))
        return out_BND, maps_BHNM if with_maps else None

    def project(self, out_BND: Tensor) -> Tensor:
        """Apply the output projection to tokens (B, N, D), heads concatenated."""
        projected_BND: Tensor = self.proj(out_BND)
        return projected_BND

    def attend_own(
        self, scores: Scores, v_BHMK: Tensor, *, with_maps: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """`forward` of a vanilla layer; families override it to change only their own maps."""
        out: tuple[Tensor, Tensor | None] = self(scores, v_BHMK, with_maps=with_maps)
        return out


class SelfAttention(ScoredAttention):
    """Multi-head self-attention: softmax(Q K^T / sqrt(K)) V, then an output projection.

    It takes over the linear maps without a copy, so timm's weights and names stay as they are.
    Families whose attention differs override the part that differs.

    Attributes:
        qkv: queries, keys and values in this order, D -> 3 D; absent without `own_scores`.
        v: the values alone, D -> D; only without `own_scores`.
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
            own_scores: False for a layer that only reuses scores: it keeps a copy of the value
                rows and neither queries nor keys.
            fused: as in `ScoredAttention`.
        """
        super().__init__(qkv.in_features, num_heads, own_scores=own_scores, fused=fused)
        if own_scores:
            self.qkv = qkv
        else:
            self.v = last_rows(qkv)
        self.proj = proj

    def scores_and_values(self, x_BND: Tensor) -> tuple[Scores, Tensor]:
        """Scores, and values (B, H, N, K), of tokens (B, N, D)."""
        B, N, _ = x_BND.shape
        # Unbound before the heads move forward, so that the gradient is stacked in one copy.
        q_BNHK, k_BNHK, v_BNHK = self.qkv(x_BND).view(B, N, 3, self.num_heads, -1).unbind(2)
        scores = Scores(q_BNHK.transpose(1, 2), k_BNHK.transpose(1, 2), self.scale)
        return scores, v_BNHK.transpose(1, 2)

    def values(self, x_BND: Tensor) -> Tensor:
        """Values (B, H, N, K) alone, of tokens (B, N, D)."""
        B, N, _ = x_BND.shape
        v_BND = linear_rows(self.qkv, x_BND) if self.own_scores else self.v(x_BND)
        return v_BND.reshape(B, N, self.num_heads, -1).transpose(1, 2)


def last_rows(joint: nn.Linear) -> nn.Linear:
    """The last D rows of a joint map from D channels, which give values, as a separate map."""
    D = joint.in_features
    like = {"device": joint.weight.device, "dtype": joint.weight.dtype}
    v = nn.Linear(D, D, bias=joint.bias is not None, **like)
    with torch.no_grad():
        v.weight.copy_(joint.weight[-D:])
        if joint.bias is not None:
            v.bias.copy_(joint.bias[-D:])
    return v


def linear_rows(joint: nn.Module, x_BND: Tensor) -> Tensor:
    """Apply the last D rows of a joint map, which give values, (B, N, D)."""
    if not isinstance(joint, nn.Linear):
        # A split map (mechanisms/joint.py): use only the parameters of this part.
        last_BND: Tensor = joint.last(x_BND)  # type: ignore[operator]
        return last_BND
    D = joint.in_features
    bias = None if joint.bias is None else joint.bias[-D:]
    return F.linear(x_BND, joint.weight[-D:], bias)


def params(embed_dim: int, *, qkv_bias: bool, proj_bias: bool) -> int:
    """Parameters of a vanilla layer's attention: 4 D^2, plus 3 D and D for the biases."""
    D = embed_dim
    return 4 * D**2 + 3 * D * qkv_bias + D * proj_bias


def macs(
    num_tokens: int,
    embed_dim: int,
    *,
    num_keys: int | None = None,
    num_windows: int = 1,
) -> int:
    """Multiply-accumulates of a vanilla layer's attention for one image.

    They are queries, keys, values, output projection, and the two token-token products; softmax
    and biases are free. With W windows of n queries and m keys:

        macs = W * (2*n*D**2 + 2*m*D**2 + 2*n*m*D)

    which is 4*N*D**2 + 2*N**2*D in one window of N queries and keys.

    Args:
        num_tokens: n, queries of a window, prefix tokens included; > 0.
        embed_dim: D; > 0.
        num_keys: m; defaults to the number of queries.
        num_windows: W.

    Returns:
        MACs, one multiply-add being 1. The number of heads does not matter.
    """
    n, D, W = num_tokens, embed_dim, num_windows
    m = n if num_keys is None else num_keys
    return W * (2 * n * D**2 + 2 * m * D**2 + 2 * n * m * D)


def head_mixing_params(num_heads: int) -> int:
    """Parameters of mixing maps over heads: a 1 x 1 convolution with bias, and a batch norm."""
    H = num_heads
    return H**2 + H + 2 * H


def head_mixing_norm_macs(
    num_queries: int, num_keys: int, num_heads: int, *, num_windows: int = 1
) -> int:
    """MACs of the batch norm over mixed maps in eval mode: 2 per element."""
    return 2 * num_windows * num_heads * num_queries * num_keys


def head_mixing_macs(
    num_queries: int, num_keys: int, num_heads: int, *, num_windows: int = 1
) -> int:
    """Multiply-accumulates of mixing maps over heads, for one image: W n m (H^2 + 2 H)."""
    n, m, H, W = num_queries, num_keys, num_heads, num_windows
    return W * n * m * H**2 + head_mixing_norm_macs(n, m, H, num_windows=W)


class Vanilla(Branch):
    """The backbone's own attention, or residual block of convolutions.

    On attention, later layers can reuse its queries and keys.
    """

    letter = "V"
    name = "vanilla"
    title = "vanilla attention"
    rank = 20
    colors = Colors(fill="#0072b2", ink="#ffffff", dark_fill="#2e8fca", dark_ink="#ffffff")
    uses = frozenset({"scores", "values"})
    leaves = (SCORES, OUTPUT)
    adds_residual = True
    fits_convolutions = True

    def run(self, call: BranchCall) -> BranchResult:
        """Attend with its own scores, plus the attention residual."""
        assert call.attention is not None
        scores, v_BHMK = call.attention.scores_and_values(call.x_BND)
        if call.residual is not None:
            scores = scores.plus(call.residual)
        branch_BND, maps = call.attention.attend_own(scores, v_BHMK, with_maps=call.with_maps)
        return BranchResult(branch_BND=branch_BND, maps=maps, left={SCORES.name: scores})

    def cost(
        self,
        options: Options,
        stage: StageShape,
        network_options: MechanismOptions,
        *,
        has_bias: bool,
    ) -> PartCost:
        """`params` and `macs`, the cost of the keys' tokens, position bias, mixing of maps."""
        sizes, D = stage.attention, stage.embed_dim
        n, m, W = sizes.num_queries, sizes.num_keys, sizes.num_windows
        own = PartCost(
            params(D, qkv_bias=stage.qkv_bias, proj_bias=stage.proj_bias)
            + sizes.context_params
            + sizes.position_params,
            macs(n, D, num_keys=m, num_windows=W) + sizes.context_macs,
        )
        if not sizes.head_mixing:
            return own
        H = stage.num_heads
        return own + PartCost(head_mixing_params(H), head_mixing_macs(n, m, H, num_windows=W))

    def norm_macs(self, options: Options, stage: StageShape) -> int:
        """MACs of the norms before the keys, and in the mixing of maps."""
        sizes = stage.attention
        if not sizes.head_mixing:
            return sizes.context_norm_macs
        mixing = head_mixing_norm_macs(
            sizes.num_queries, sizes.num_keys, stage.num_heads, num_windows=sizes.num_windows
        )
        return sizes.context_norm_macs + mixing

    def map_shape(
        self, options: Options, stage: StageShape, network_options: MechanismOptions
    ) -> MapShape:
        """W H maps of n queries and m keys."""
        return token_map_shape(stage)

    def attention_elements(
        self, options: Options, stage: StageShape, network_options: MechanismOptions
    ) -> int:
        """Its maps, counted twice if it mixes them over heads."""
        return token_map_shape(stage).num_elements * (1 + stage.attention.head_mixing)


def token_map_shape(stage: StageShape) -> MapShape:
    """The maps of attention between a stage's tokens: W H maps of n queries and m keys."""
    sizes = stage.attention
    return MapShape(sizes.num_windows * stage.num_heads, sizes.num_queries, sizes.num_keys)


VANILLA = Vanilla()
