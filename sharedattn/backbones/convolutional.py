"""Parts of all families of residual networks of convolutions: their sizes, and how they run.

Each stage is a sequence of residual blocks of one width; its first block changes the width or the
grid. Costs are read from the modules of a built model.

Shape letters: B batch, C channels, Y x X grid.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from sharedattn.backbones.family import refuse
from sharedattn.errors import InputError
from sharedattn.image_size import ImageSize
from sharedattn.networks.conv_block import ConvBlock
from sharedattn.networks.network import Network, NetworkPlan
from sharedattn.networks.part_sizes import Grid, PartSizes, num_params, sizes_of
from sharedattn.placement import LayerEnvelope
from sharedattn.shape import (
    AttentionShape,
    BackboneShape,
    ConvolutionShape,
    StageShape,
)

BLOCK_NAMES = {"basic": 2, "bottleneck": 3}
"""Number of convolutions of each form of a block, by name."""


class ConvNetwork(Network):
    """A residual network of convolutions over an envelope.

    Its layers are `layer1`, `layer2` and so on, one for each stage.

    Attributes:
        conv1: the stem's convolution.
        fc: classifier.
    """

    classifier_parts: ClassVar[tuple[str, ...]] = ("fc",)

    def __init__(self, model: Any, plan: NetworkPlan) -> None:
        """Take the parts of `model` that the envelope needs; see `Family`."""
        super().__init__(plan)
        self.conv1 = model.conv1
        self.take_stem(model)
        for i, positions in enumerate(self.envelope.stages):
            blocks = zip(stage_of(model, i), positions, strict=False)
            made = (self.make_block(block, position, i) for block, position in blocks)
            self.add_module(_stage_name(i), nn.ModuleList(made))
        self.take_head(model)
        self.fc = model.fc

    def take_stem(self, model: Any) -> None:
        """Take the parts of `model` between its first convolution and its blocks."""

    def take_head(self, model: Any) -> None:
        """Take the parts of `model` between its blocks and its classifier."""

    @abstractmethod
    def make_block(self, block: Any, position: LayerEnvelope, stage: int) -> ConvBlock:
        """Build the layer of a position from the model's block there."""

    def enter_stage(self, stage: int, tokens: Tensor) -> Tensor:
        """The feature maps unchanged: a stage's first block converts them."""
        return tokens

    def block(self, stage: int, index: int) -> ConvBlock:
        """The block at a layer position."""
        block = self.get_submodule(f"{_stage_name(stage)}.{index}")
        assert isinstance(block, ConvBlock)
        return block

    def feature_map(self, stage: int, tokens: Tensor) -> Tensor:
        """The feature maps (B, C, Y, X) as they are."""
        return tokens

    def classify(self, tokens: Tensor) -> Tensor:
        """Logits (B, classes) of the mean over pixels of feature maps (B, C, Y, X)."""
        logits: Tensor = self.fc(tokens.mean((2, 3)))
        return logits


def stage_of(model: Any, stage: int) -> Any:
    """The blocks of a stage of a model."""
    return getattr(model, _stage_name(stage))


def stages_of(model: Any) -> list[Any]:
    """The blocks of each stage of a model."""
    numbers = itertools.takewhile(lambda i: hasattr(model, _stage_name(i)), itertools.count())
    return [stage_of(model, i) for i in numbers]


def block_name(block: Any) -> str:
    """Name of a block's form, by its number of convolutions."""
    return "bottleneck" if hasattr(block, "conv3") else "basic"


def to_block_name(value: str) -> str:
    """Check the name of a block's form.

    Raises:
        ValueError: it is none.
    """
    if value not in BLOCK_NAMES:
        raise ValueError(f"`block` is {value!r}; it is one of {', '.join(BLOCK_NAMES)}")
    return value


def conv_shape(
    model: Any,
    image_size: ImageSize,
    *,
    stem: Sequence[nn.Module],
    pooling: int = 1,
    head_norm: nn.Module | None = None,
    pre_activated: bool,
) -> BackboneShape:
    """Sizes of a model of residual blocks.

    Args:
        model: the model, whose stages are `layer1` and so on, with the classifier `fc`.
        image_size: height and width in pixels.
        stem: its modules, in order.
        pooling: stride of the stem's pooling, 3 x 3 with padding 1; 1 for none.
        head_norm: batch norm before the classifier, or None.
        pre_activated: as in `ConvolutionShape`.

    Raises:
        InputError: a stage has no block, or its blocks differ.
    """
    stem_sizes, grid = sizes_of(stem, image_size)
    grid = ((grid[0] - 1) // pooling + 1, (grid[1] - 1) // pooling + 1)
    stages, reduction = [], pooling * _stride(stem)
    for blocks in stages_of(model):
        stage, grid = _stage_shape(blocks, grid, pre_activated)
        reduction *= _stride(_branch(blocks[0]))
        stages.append(replace(stage, reduction=reduction))
    head, _ = sizes_of([] if head_norm is None else [head_norm], grid)
    return BackboneShape(
        image_size=image_size,
        stages=tuple(stages),
        stem_params=stem_sizes.params,
        stem_macs=stem_sizes.macs,
        stem_norm_macs=stem_sizes.norm_macs,
        head_params=head.params + num_params(model.fc),
        head_macs=head.macs + model.fc.weight.numel(),
        head_norm_macs=head.norm_macs,
    )


def _stage_name(stage: int) -> str:
    return f"layer{stage + 1}"


def _stage_shape(blocks: Any, grid: Grid, pre_activated: bool) -> tuple[StageShape, Grid]:
    """Sizes of a stage, and the grid after it."""
    if not len(blocks):
        raise InputError("a stage has no block; give 1 or more in `depths`")
    first, grid = _block_sizes(blocks[0], grid)
    width = _out_channels(blocks[0])
    others = [_block_sizes(block, grid) for block in blocks[1:]]
    if any(other != others[0] for other in others) or others and others[0][1] != grid:
        raise refuse("the blocks of a stage differ after its first")
    # A stage of one block has no other to take the cost of a block from: any would do.
    block = others[0][0] if others else first
    extra = first - block
    return StageShape(
        max_depth=len(blocks),
        num_tokens=math.prod(grid),
        num_prefix_tokens=0,
        grid=grid,
        embed_dim=width,
        num_heads=1,
        attention=AttentionShape(
            num_queries=math.prod(grid), num_keys=math.prod(grid), key_grid=grid
        ),
        mlp_params=0,
        mlp_macs=0,
        qkv_bias=False,
        proj_bias=False,
        layer_scale=False,
        frame_params=extra.params,
        frame_macs=extra.macs,
        frame_norm_macs=extra.norm_macs,
        convolution=ConvolutionShape(
            block_params=block.params,
            block_macs=block.macs,
            block_norm_macs=block.norm_macs,
            pre_activated=pre_activated,
        ),
    ), grid


def _block_sizes(block: Any, grid: Grid) -> tuple[PartSizes, Grid]:
    """Costs of a block, with its skip, and the grid after it."""
    found, after = sizes_of(_branch(block), grid)
    if block.downsample is not None:
        skip, after_skip = sizes_of(block.downsample, grid)
        if after_skip != after:
            raise refuse("the skip of a block has another grid than its branch")
        found += skip
    return found, after


def _branch(block: Any) -> list[nn.Module]:
    """The convolutions and norms of a block's branch, in order."""
    return [m for name, m in block.named_children() if name.startswith(("conv", "bn"))]


def _stride(modules: Iterable[nn.Module]) -> int:
    """The stride of convolutions in sequence."""
    return math.prod(m.stride[0] for m in modules if isinstance(m, nn.Conv2d))


def _out_channels(block: Any) -> int:
    last = getattr(block, f"conv{BLOCK_NAMES[block_name(block)]}")
    channels: int = last.out_channels
    return channels
