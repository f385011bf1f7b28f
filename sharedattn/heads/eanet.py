"""EANet's head (Guo et al. 2021, arXiv:2105.02358): external attention on the last map.

As the authors' code has it: 3 x 3 convolution to 512 channels, the block of external attention
with 64 slots, 3 x 3 convolution to 256, dropout, classifier. Their backbone is a dilated ResNet,
whose last map has an eighth of the image's rows; on another backbone it is coarser.

Shape letters: B batch, C channels, Y x X grid of a map, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from sharedattn.heads.interface import Segmenter, coarsest, conv_norm_relu
from sharedattn.mechanisms.external import SpatialExternalAttention, spatial_macs, spatial_params
from sharedattn.networks.part_sizes import PartSizes, sizes_of
from sharedattn.shape import FeatureShape, batch_norm_macs

DIM, LAST_DIM = 512, 256
SLOTS = 64


class EANet(Segmenter):
    """Class logits of every pixel of the last map.

    Attributes:
        before: convolution before the attention.
        attention: external attention over pixels.
        after: convolution after it.
    """

    def __init__(self, features: Sequence[FeatureShape], num_classes: int) -> None:
        """Make the head for a pyramid's maps, of which it takes the last.

        Raises:
            InputError: the backbone has no map.
        """
        super().__init__(LAST_DIM, num_classes)
        [self._feature] = coarsest(features, 1, "EANet")
        self.before = conv_norm_relu(self._feature.channels, DIM, 3)
        self.attention = SpatialExternalAttention(DIM, SLOTS)
        self.after = conv_norm_relu(DIM, LAST_DIM, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(B, K, Y, X) on the grid of the last map."""
        x_BCYX = self.before(maps[-1])
        branch_BND, _ = self.attention(x_BCYX.flatten(2).transpose(1, 2), SLOTS)
        x_BCYX = F.relu(x_BCYX + branch_BND.transpose(1, 2).reshape(x_BCYX.shape))
        return self.pixel_logits(self.after(x_BCYX))

    def sizes(self) -> PartSizes:
        """Convolutions, and the block of external attention between them."""
        grid = self._feature.grid
        num_pixels = math.prod(grid)
        attention = PartSizes(
            spatial_params(DIM, SLOTS),
            spatial_macs(num_pixels, DIM, SLOTS),
            batch_norm_macs(num_pixels, DIM),
        )
        return sizes_of([*self.before, *self.after, self.classifier], grid)[0] + attention
