"""The batch norm of a gate's cell, whose statistics each layer has for itself, or all share.

Layers that share a cell share the norm's scale and shift. Their inputs differ in depth, so that
one pair of statistics would mix them: in training each layer is normed by its own batch, and in
evaluation by the mean of all layers. By default each layer has statistics of its own (pytorch
issue 1738 asks for the same of recurrent cells).

Shape letters: B batch, C channels, Y x X grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sharedattn.mechanisms.options import MechanismOptions


class SiteNorm(nn.Module):
    """A batch norm whose statistics may be those of the layer that calls it.

    Attributes:
        weight: (C,), scale.
        bias: (C,), shift.
        statistics: those of all layers together, or None if each has its own.
    """

    def __init__(self, channels: int, options: MechanismOptions) -> None:
        """Make a norm of C `channels`, with statistics if `options` share them."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.statistics = _statistics(channels) if options.bn == "shared" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset scale and shift to one and zero."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x_BCYX: Tensor, site: nn.Module | None) -> Tensor:
        """Normalise feature maps (B, C, Y, X) by the statistics of `site`, or by the shared ones.

        Args:
            x_BCYX: (B, C, Y, X).
            site: result of `site_of` for the layer.
        """
        statistics = self.statistics if site is None else site
        assert statistics is not None
        normed_BCYX: Tensor = statistics(x_BCYX)
        return normed_BCYX * self.weight[:, None, None] + self.bias[:, None, None]


def site_of(channels: int, options: MechanismOptions) -> nn.Module | None:
    """A layer's own statistics of a `SiteNorm`, or None if all layers share them."""
    return None if options.bn == "shared" else _statistics(channels)


def params(channels: int) -> int:
    """Parameters of a norm, however many layers share it: 2 C."""
    return 2 * channels


def macs(channels: int, num_pixels: int) -> int:
    """MACs of a norm in eval mode per image: 1 per element, by fvcore's convention.

    Its scale and shift, apart from the statistics, are free.
    """
    return channels * num_pixels


def _statistics(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, affine=False)
