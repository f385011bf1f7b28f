"""Costs of convolutions and norms, read from the modules that run them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from sharedattn.shape import batch_norm_macs, layer_norm_macs

Grid = tuple[int, int]
"""Rows and columns of a map."""


@dataclass(frozen=True, slots=True)
class PartSizes:
    """Costs of convolutions and norms.

    Attributes:
        params: number of parameters.
        macs: multiply-accumulates per image, including norms.
        norm_macs: the part of `macs` in norms.
    """

    params: int = 0
    macs: int = 0
    norm_macs: int = 0

    def __add__(self, other: PartSizes) -> PartSizes:
        return PartSizes(
            self.params + other.params,
            self.macs + other.macs,
            self.norm_macs + other.norm_macs,
        )

    def __sub__(self, other: PartSizes) -> PartSizes:
        return PartSizes(
            self.params - other.params,
            self.macs - other.macs,
            self.norm_macs - other.norm_macs,
        )


def sizes_of(modules: Iterable[nn.Module], grid: Grid) -> tuple[PartSizes, Grid]:
    """Costs of convolutions, batch and group norms in sequence, and the grid after them.

    Args:
        modules: modules in the order in which they run; others cost nothing.
        grid: rows and columns before the first.
    """
    found = PartSizes()
    for module in modules:
        if isinstance(module, nn.Conv2d):
            grid = conv_grid(grid, module)
            found += PartSizes(num_params(module), math.prod(grid) * module.weight.numel())
        elif isinstance(module, nn.BatchNorm2d):
            macs = batch_norm_macs(math.prod(grid), module.num_features)
            found += PartSizes(num_params(module), macs, macs)
        elif isinstance(module, nn.GroupNorm):
            macs = layer_norm_macs(math.prod(grid), module.num_channels)
            found += PartSizes(num_params(module), macs, macs)
    return found, grid


def conv_grid(grid: tuple[int, int], conv: Any) -> tuple[int, int]:
    """Rows and columns of a grid after a square convolution, or what unfolds as one."""
    stride, padding = conv.stride[0], conv.padding[0]
    dilation = conv.dilation if isinstance(conv.dilation, int) else conv.dilation[0]
    reach = dilation * (conv.kernel_size[0] - 1) + 1
    Y, X = ((size + 2 * padding - reach) // stride + 1 for size in grid)
    return Y, X


def num_params(*modules: nn.Module) -> int:
    """Number of parameters in modules, counting shared ones once."""
    return sum(p.numel() for module in modules for p in module.parameters())
