"""UperNet (Xiao et al. 2018, arXiv:1807.10221): pooled context, and a pyramid, joined.

Sizes as in the segmentation tables of Swin and LaViT: 512 channels, pooling to 1, 2, 3 and 6 rows
and columns. An auxiliary head, which training alone uses, is not built.

Shape letters: B batch, C channels, Y x X grid of a map, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharedattn.heads.interface import (
    Segmenter,
    coarsest,
    conv_norm_relu,
    resized,
    resizing,
)
from sharedattn.networks.part_sizes import PartSizes, sizes_of
from sharedattn.shape import FeatureShape

DIM = 512
POOLED = (1, 2, 3, 6)
LEAST_MAPS = 2


class UperNet(Segmenter):
    """Class logits of every pixel of the finest map.

    Attributes:
        pooled: for each size of pooling, the convolution after it.
        context: joins the last map and its pooled forms.
        laterals: convolutions of the other maps.
        levels: convolutions of the sums.
        joined: joins all levels.
    """

    def __init__(self, features: Sequence[FeatureShape], num_classes: int) -> None:
        """Make the head for a pyramid's maps, finest first.

        Raises:
            InputError: the pyramid has not two maps at least, each half as fine as the one before.
        """
        super().__init__(DIM, num_classes)
        self._features = coarsest(features, max(LEAST_MAPS, len(features)), "UperNet")
        *finer, last = (feature.channels for feature in self._features)
        self.pooled = nn.ModuleList(conv_norm_relu(last, DIM, 1) for _ in POOLED)
        self.context = conv_norm_relu(last + DIM * len(POOLED), DIM, 3)
        self.laterals = nn.ModuleList(conv_norm_relu(channels, DIM, 1) for channels in finer)
        self.levels = nn.ModuleList(conv_norm_relu(DIM, DIM, 3) for _ in finer)
        self.joined = conv_norm_relu(DIM * len(self._features), DIM, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(B, K, Y, X) on the grid of the finest map."""
        grids = [feature.grid for feature in self._features]
        last_BCYX = maps[-1]
        pooled = (
            resized(convolution(F.adaptive_avg_pool2d(last_BCYX, size)), grids[-1])
            for size, convolution in zip(POOLED, self.pooled, strict=True)
        )
        summed = [self.context(torch.cat([last_BCYX, *pooled], dim=1))]
        for level in reversed(range(len(self.laterals))):
            above = resized(summed[0], grids[level])
            summed.insert(0, self.laterals[level](maps[level]) + above)
        found = [level(map_) for level, map_ in zip(self.levels, summed, strict=False)]
        found.append(summed[-1])
        on_finest = [found[0], *(resized(map_, grids[0]) for map_ in found[1:])]
        return self.pixel_logits(self.joined(torch.cat(on_finest, dim=1)))

    def sizes(self) -> PartSizes:
        """Pooled context, laterals, levels, their joining, classifier."""
        grids = [feature.grid for feature in self._features]
        found = sizes_of(self.context, grids[-1])[0]
        pooling = self._features[-1].channels * math.prod(grids[-1])
        for size, convolution in zip(POOLED, self.pooled, strict=True):
            found += PartSizes(0, pooling, pooling)
            found += sizes_of(convolution.children(), (size, size))[0] + resizing(DIM, grids[-1])
        for grid, lateral, level in zip(grids, self.laterals, self.levels, strict=False):
            found += (
                sizes_of(lateral.children(), grid)[0]
                + resizing(DIM, grid)
                + sizes_of(level.children(), grid)[0]
            )
        for _ in grids[1:]:
            found += resizing(DIM, grids[0])
        joined, _ = sizes_of([*self.joined, self.classifier], grids[0])
        return found + joined
