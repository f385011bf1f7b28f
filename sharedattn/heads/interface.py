"""The interface of heads on feature pyramids, and what they are made of.

Shape letters: B batch, C channels, Y x X grid of a map, K classes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork

from sharedattn.errors import InputError
from sharedattn.networks.part_sizes import Grid, PartSizes, sizes_of
from sharedattn.shape import FeatureShape

NEAREST_MACS, BILINEAR_MACS = 1, 4
"""Multiply-accumulates for each element of a resized map, by fvcore's convention."""

PYRAMID_DIM = 256
"""Channels of every level of a feature pyramid network."""

DROPOUT = 0.1
"""Share of channels that a segmenter drops in training before it classifies pixels."""


class PyramidHead(nn.Module, ABC):
    """A head on the maps of a feature pyramid, in place of a network's classifier."""

    @abstractmethod
    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The head's outputs from all maps of the pyramid, (B, C_i, Y_i, X_i), finest first."""

    @abstractmethod
    def sizes(self) -> PartSizes:
        """Its costs; resized and pooled maps count among the norms, as they are no products."""


class Segmenter(PyramidHead):
    """A head that classifies pixels.

    Attributes:
        dropout: over channels.
        classifier: of pixels.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        """Make the last layers.

        Args:
            channels: of the map that is classified.
            num_classes: number of classes.
        """
        super().__init__()
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def pixel_logits(self, map_BCYX: Tensor) -> Tensor:
        """Class logits (B, K, Y, X) of a map (B, C, Y, X)."""
        logits_BKYX: Tensor = self.classifier(self.dropout(map_BCYX))
        return logits_BKYX


def levels_of(pyramid: FeaturePyramidNetwork, maps: Sequence[Tensor]) -> list[Tensor]:
    """The levels (B, 256, Y_i, X_i) of a feature pyramid network, finest first.

    Args:
        pyramid: the network.
        maps: those that it takes, (B, C_i, Y_i, X_i), finest first.
    """
    named = OrderedDict((str(i), map_BCYX) for i, map_BCYX in enumerate(maps))
    return list(pyramid(named).values())


def pyramid_sizes(pyramid: FeaturePyramidNetwork, features: Sequence[FeatureShape]) -> PartSizes:
    """Costs of a feature pyramid network, without levels beyond its maps.

    Args:
        pyramid: the network.
        features: the maps that it takes, finest first.
    """
    found = PartSizes()
    blocks = zip(features, pyramid.inner_blocks, pyramid.layer_blocks, strict=True)
    for feature, inner, layer in blocks:
        found += sizes_of([*inner, *layer], feature.grid)[0]
    # Each but the coarsest takes the one above, doubled.
    for feature in features[:-1]:
        found += resizing(PYRAMID_DIM, feature.grid, NEAREST_MACS)
    return found


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
