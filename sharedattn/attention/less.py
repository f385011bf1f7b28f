"""Less attention: a layer transforms the scores of an earlier layer instead of making its own.

LaViT, "You Only Need Less Attention at Each Stage in Vision Transformers" (CVPR 2024,
arXiv:2406.00427), with scores A^l = Psi(Theta(A^{l-1})^T)^T and output softmax(A^l) V^l.

Computed factored, which is exact. Theta and Psi are linear maps over tokens, shared over heads and
images, and the chain of scores begins at Q K^T, so

    Psi (Q K^T) Theta^T = (Psi Q) (Theta K)^T :

the layer mixes the carried queries and keys over tokens and attends with its own values. No N x N
scores are stored, and it costs less than a vanilla layer where N < D.

Departures from the paper: the maps are identity plus a learned difference (zero at first: plain
reuse), so weight decay pulls towards reuse and scores do not shrink layer by layer; no biases
(Psi's vanishes under the softmax); the diagonality term has the sign that its name asks for.

Shape letters: B batch, N tokens, D embed_dim, H heads, K head_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TokenMaps(nn.Module):
    """Psi on queries and Theta on keys, each identity plus a learned difference.

    Attributes:
        psi: (N, N), the difference of Psi from the identity.
        theta: (N, N), the difference of Theta from the identity.
    """

    def __init__(self, num_tokens: int) -> None:
        """Maps over `num_tokens` tokens; they fit no other number."""
        super().__init__()
        self.psi = nn.Parameter(torch.empty(num_tokens, num_tokens))
        self.theta = nn.Parameter(torch.empty(num_tokens, num_tokens))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Plain reuse: no difference from the identity."""
        nn.init.zeros_(self.psi)
        nn.init.zeros_(self.theta)

    def forward(self, q_BHNK: Tensor, k_BHNK: Tensor) -> tuple[Tensor, Tensor]:
        """Psi Q and Theta K, each (B, H, N, K), of queries and keys (B, H, N, K)."""
        return _mix_tokens(q_BHNK, self.psi), _mix_tokens(k_BHNK, self.theta)


def _mix_tokens(x_BHNK: Tensor, difference_NN: Tensor) -> Tensor:
    # The identity is added to the small map rather than to the result, which saves a pass over
    # the tokens. `bmm` of a map without batch strides reads and writes the tokens where they
    # lie: any other form copies them, or leaves the last axis strided, which no fused kernel
    # takes. (`map @ tokens` would do, but fvcore miscounts a 2-D left operand.)
    B, H, N, K = x_BHNK.shape
    map_NN = difference_NN + torch.eye(N, dtype=x_BHNK.dtype, device=x_BHNK.device)
    mixed_BND = torch.bmm(map_NN.expand(B, N, N), x_BHNK.transpose(1, 2).reshape(B, N, H * K))
    return mixed_BND.reshape(B, N, H, K).transpose(1, 2)


def diagonality(maps_BHNN: Tensor) -> Tensor:
    """The diagonality preserving term of one layer: small for symmetric, diagonal maps.

    With A row-stochastic, averaged over batch and heads:

        ( sum_ij |A_ij - A_ji| - sum_i ((N-1) A_ii - sum_{j != i} A_ij) ) / N^2

    The printed term adds the second sum, whose minimum is an empty diagonal; a term that
    preserves the diagonal subtracts it. On softmaxed maps it is bounded below by -(N-1)/N, the
    value at the identity; uniform maps give 0.

    Args:
        maps_BHNN: (B, H, N, N), rows summing to 1.

    Returns:
        A scalar, differentiable.
    """
    N = maps_BHNN.shape[-1]
    asymmetry_BH = (maps_BHNN - maps_BHNN.transpose(-2, -1)).abs().sum((-2, -1))
    diagonal_BH = maps_BHNN.diagonal(dim1=-2, dim2=-1).sum(-1)
    # (N-1) A_ii - sum_{j != i} A_ij = N A_ii - sum_j A_ij
    dominance_BH = N * diagonal_BH - maps_BHNN.sum((-2, -1))
    return ((asymmetry_BH - dominance_BH) / N**2).mean()


def params(num_tokens: int, embed_dim: int, *, qkv_bias: bool, proj_bias: bool) -> int:
    """Parameters of a less-attention layer: 2 D^2 + 2 N^2, plus D for each bias."""
    N, D = num_tokens, embed_dim
    return 2 * D**2 + 2 * N**2 + D * qkv_bias + D * proj_bias


def macs(num_tokens: int, embed_dim: int) -> int:
    """Multiply-accumulates of a less-attention layer's attention for one image, factored.

    Values and output projection, the two maps over tokens, the two token-token products:

        macs = 2*N*D**2 + 2*N**2*D + 2*N**2*D

    Args:
        num_tokens: N, prefix tokens included; > 0.
        embed_dim: D; > 0.

    Returns:
        MACs, one multiply-add being 1; fewer than a vanilla layer's exactly where N < D.
    """
    N, D = num_tokens, embed_dim
    return 2 * N * D**2 + 4 * N**2 * D


def paper_form_macs(num_tokens: int, embed_dim: int, num_heads: int) -> int:
    """What the same layer costs as printed, with maps applied to the scores of every head.

        macs = 2*N*D**2 + N**2*D + 2*H*N**3

    Args:
        num_tokens: N; > 0.
        embed_dim: D; > 0.
        num_heads: H; > 0.

    Returns:
        MACs for one image; sharing the maps over heads saves parameters, not these.
    """
    N, D, H = num_tokens, embed_dim, num_heads
    return 2 * N * D**2 + N**2 * D + 2 * H * N**3
