"""Context broadcasting: the token mean is mixed into each token at the end of the MLP.

"Scratching Visual Transformer's Back with Uniform Attention" (ICCV 2023, arXiv:2210.08457):
y_i = (x_i + mean_j x_j) / 2, a fixed uniform attention map. It ends the MLP's branch, before the
residual addition. It has no parameters, and no multiply-accumulates by the cost convention.

Shape letters: B batch, N tokens, D embed_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def token_mean(x_BND: Tensor, num_left_out: int) -> Tensor:
    """Mean (B, 1, D) over the tokens after the first `num_left_out`."""
    return x_BND[:, num_left_out:].mean(dim=1, keepdim=True)


def broadcast_context(x_BND: Tensor, num_left_out: int = 0) -> Tensor:
    """Average each token with the token mean.

    Args:
        x_BND: (B, N, D).
        num_left_out: number of prefix tokens that are left out of the mean; they still receive it
            like every token.

    Returns:
        (B, N, D); if every token is in the mean, the mean is unchanged.
    """
    return 0.5 * (x_BND + token_mean(x_BND, num_left_out))


class ContextBroadcasting(nn.Module):
    """Plain context broadcasting, as a module without parameters."""

    def forward(self, x_BND: Tensor, num_left_out: int = 0) -> Tensor:
        """`broadcast_context`."""
        return broadcast_context(x_BND, num_left_out)


class ScaledContextBroadcasting(nn.Module):
    """Context broadcasting with a learned scale per channel: y_i = (x_i + s * mean_j x_j) / 2.

    This is our reading of the paper's dimension-scaled variant, whose formula was not available:
    a vector s of D channels weights the mean. It starts at 1, which is the plain form.

    Attributes:
        scale: s, (D,).
    """

    def __init__(self, embed_dim: int) -> None:
        """Make one scale per channel of `embed_dim`."""
        super().__init__()
        self.scale = nn.Parameter(torch.empty(embed_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset to the plain form."""
        nn.init.ones_(self.scale)

    def forward(self, x_BND: Tensor, num_left_out: int = 0) -> Tensor:
        """As `broadcast_context`, with the mean scaled per channel."""
        return 0.5 * (x_BND + self.scale * token_mean(x_BND, num_left_out))


def params(embed_dim: int, *, scaled: bool) -> int:
    """Parameters of one layer's broadcasting: 0, or D in the scaled form."""
    return embed_dim if scaled else 0
