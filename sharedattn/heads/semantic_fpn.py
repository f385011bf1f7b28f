"""Semantic FPN (Kirillov et al. 2019, arXiv:1901.02446): a pyramid whose levels are added.

Sizes as in the segmentation tables of PVT, Swin and LaViT: a pyramid of 256 channels over all
maps, 128 channels after it, with batch norms.

Shape letters: B batch, C channels, Y x X grid of a map, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork

from sharedattn.heads.interface import (
    PYRAMID_DIM,
    Segmenter,
    coarsest,
    conv_norm_relu,
    levels_of,
    pyramid_sizes,
    resized,
    resizing,
)
from sharedattn.networks.part_sizes import PartSizes, sizes_of
from sharedattn.shape import FeatureShape

DIM = 128
LEAST_MAPS = 2


class SemanticFPN(Segmenter):
    """Class logits of every pixel of the finest map.

    Attributes:
        pyramid: the feature pyramid network.
        scale_heads: for each level, convolutions that bring it to the finest grid, each followed
            by doubling, except the finest level's one.
    """

    def __init__(self, features: Sequence[FeatureShape], num_classes: int) -> None:
        """Make the head for a pyramid's maps, finest first.

        Raises:
            InputError: the pyramid has not two maps at least, each half as fine as the one before.
        """
        super().__init__(DIM, num_classes)
        number = max(LEAST_MAPS, len(features))
        self._features = coarsest(features, number, "Semantic FPN")
        channels = [feature.channels for feature in self._features]
        self.pyramid = FeaturePyramidNetwork(channels, PYRAMID_DIM)
        self.scale_heads = nn.ModuleList(
            nn.ModuleList(
                conv_norm_relu(DIM if i else PYRAMID_DIM, DIM, 3) for i in range(max(1, level))
            )
            for level in range(number)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(B, K, Y, X) on the grid of the finest map."""
        brought = []
        for level, map_BCYX in enumerate(levels_of(self.pyramid, maps)):
            for i, convolution in enumerate(self.scale_heads[level].children()):
                map_BCYX = convolution(map_BCYX)
                if level:
                    map_BCYX = resized(map_BCYX, self._features[level - i - 1].grid)
            brought.append(map_BCYX)
        return self.pixel_logits(torch.stack(brought).sum(dim=0))

    def sizes(self) -> PartSizes:
        """Pyramid, convolutions of each level with their doublings, classifier."""
        found = pyramid_sizes(self.pyramid, self._features)
        for level in range(len(self._features)):
            for i, convolution in enumerate(self.scale_heads[level].children()):
                found += sizes_of(convolution.children(), self._features[level - i].grid)[0]
                if level:
                    found += resizing(DIM, self._features[level - i - 1].grid)
        return found + sizes_of([self.classifier], self._features[0].grid)[0]
