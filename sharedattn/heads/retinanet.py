"""RetinaNet (Lin et al. 2017, arXiv:1708.02002): a feature pyramid, and two heads on each level.

As the paper has it, and as LaViT's tables count it: levels P3 to P5 from the backbone's last three
maps, P6 from the last map and P7 from P6 by strided convolutions, 9 anchors a pixel. torchvision's
modules, whose own default makes P6 from P5.

Shape letters: B batch, C channels, Y x X grid of a map, A anchors of all levels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

from sharedattn.heads.interface import (
    PYRAMID_DIM,
    PyramidHead,
    coarsest,
    levels_of,
    pyramid_sizes,
)
from sharedattn.networks.part_sizes import PartSizes, num_params, sizes_of
from sharedattn.shape import FeatureShape

NUM_ANCHORS = 9
NUM_MAPS = 3
NUM_FURTHER = 2  # levels beyond the maps, each by a convolution of stride 2


class RetinaNet(PyramidHead):
    """Class logits and box offsets of every anchor.

    Attributes:
        pyramid: the feature pyramid network, with levels P3 to P7.
        heads: the two heads, shared by all levels.
        levels: by level, P3 first, the pixels between two of its pixels, and its grid.
    """

    def __init__(self, features: Sequence[FeatureShape], num_classes: int) -> None:
        """Make the head for a pyramid's maps, finest first.

        Raises:
            InputError: the pyramid has not three last maps, each half as fine as the one before.
        """
        super().__init__()
        self._features = coarsest(features, NUM_MAPS, "RetinaNet")
        channels = [feature.channels for feature in self._features]
        further = LastLevelP6P7(channels[-1], PYRAMID_DIM)
        further.use_P5 = False
        self.pyramid = FeaturePyramidNetwork(channels, PYRAMID_DIM, extra_blocks=further)
        self.heads = RetinaNetHead(PYRAMID_DIM, NUM_ANCHORS, num_classes)
        self.levels = [(feature.reduction, feature.grid) for feature in self._features]
        for _ in range(NUM_FURTHER):
            reduction, (rows, columns) = self.levels[-1]
            self.levels.append((2 * reduction, (-(-rows // 2), -(-columns // 2))))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(B, A, K + 4): class logits, then offsets of the box, level by level, P3 first.

        Within a level anchors follow rows, columns, and then the 9 of a pixel.
        """
        levels = levels_of(self.pyramid, maps[-NUM_MAPS:])
        logits_BAK = self.heads.classification_head(levels)
        offsets_BA4 = self.heads.regression_head(levels)
        return torch.cat([logits_BAK, offsets_BA4], dim=-1)

    def sizes(self) -> PartSizes:
        """Pyramid, and heads on every level, whose parameters are shared."""
        found = pyramid_sizes(self.pyramid, self._features)
        grids = [feature.grid for feature in self._features]
        for convolution in (self.pyramid.extra_blocks.p6, self.pyramid.extra_blocks.p7):
            part, grid = sizes_of([convolution], grids[-1])
            found += part
            grids.append(grid)
        convolutions = [m for m in self.heads.modules() if isinstance(m, nn.Conv2d)]
        on_levels = (sizes_of(convolutions, grid)[0].macs for grid in grids)
        return found + PartSizes(num_params(self.heads), sum(on_levels))
