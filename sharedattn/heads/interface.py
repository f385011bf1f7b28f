"""The interface of heads on feature pyramids, and what they are made of.

Shape letters: B batch, C channels, Y x X grid of a map, K classes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sharedattn.errors import InputError
from sharedattn.networks.part_sizes import Grid, PartSizes
from sharedattn.shape import FeatureShape

NEAREST_MACS, BILINEAR_MACS = 1, 4
"""Multiply-accumulates for each element of a resized map, by fvcore's convention."""


class PyramidHead(nn.Module, ABC):
    """A head on the maps of a feature pyramid, in place of a network's classifier."""

    @abstractmethod
    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The head's outputs from all maps of the pyramid, (B, C_i, Y_i, X_i), finest first."""

    @abstractmethod
    def sizes(self) -> PartSizes:
        """Its costs; resized and pooled maps count among the norms, as they are no products."""


def coarsest(features: Sequence[FeatureShape], number: int, head: str) -> list[FeatureShape]:
    """The last maps of a pyramid, each half as fine as the one before.

    Args:
        features: all maps, finest first.
        number: how many are needed.
        head: title of the head, for the message.

    Raises:
        InputError: there are fewer, or they are not.
    """
    found = list(features[-number:])
    reductions = [feature.reduction for feature in found]
    halved = [reductions[0] * 2**i for i in range(number)] if found else []
    if reductions != halved:
        have = ", ".join(str(feature.reduction) for feature in features) or "none"
        raise InputError(
            f"{head} needs {number} feature maps, each half as fine as the one before, but this "
            f"backbone's have the reductions {have}; name a pyramid such as pvt_v2_b1 or resnet50"
        )
    return found


def conv_norm_relu(channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """A convolution that keeps the grid, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def resized(map_BCYX: Tensor, grid: Grid) -> Tensor:
    """A map (B, C, Y, X) on another grid, bilinear."""
    return F.interpolate(map_BCYX, size=grid, mode="bilinear", align_corners=False)


def resizing(channels: int, grid: Grid, macs: int = BILINEAR_MACS) -> PartSizes:
    """Costs of resizing a map of some channels to a grid."""
    total = macs * channels * math.prod(grid)
    return PartSizes(0, total, total)
