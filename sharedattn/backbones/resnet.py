"""timm's ResNets and ResNeXts: residual blocks of convolutions in stages.

"Deep Residual Learning for Image Recognition" (arXiv:1512.03385), "Aggregated Residual
Transformations for Deep Neural Networks" (arXiv:1611.05431), as built by timm's `ResNet` with the
plain or the deep stem: `resnet18`, `resnet34`, `resnet50`, `resnet50c`, `resnet101`,
`resnext50_32x4d`, `resnext101_32x4d` and their like. A bottleneck halves the grid in its 3 x 3
convolution. With `output_stride` 8 or 16, the last stages dilate their convolutions instead of
halving the grid, as segmenters do. Parts keep their names in timm, so that the all-plain placement
(V everywhere) has timm's state dict and timm's logits.

Shape letters: B batch, C channels, Y x X grid.
"""

from __future__ import annotations

import math
from typing import Any

from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from sharedattn.backbones.convolutional import (
    ConvNetwork,
    block_name,
    conv_shape,
    stages_of,
    to_block_name,
)
from sharedattn.backbones.family import Family, KeywordRule, per_stage, refuse, require_type
from sharedattn.errors import InputError
from sharedattn.image_size import ImageSize
from sharedattn.networks.conv_block import PostActivationBlock
from sharedattn.placement import LayerEnvelope
from sharedattn.shape import BackboneShape

_BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}
_STEMS = {"plain": "", "deep": "deep"}
"""The stems by name, and by timm's: one 7 x 7 convolution, or three of 3 x 3."""

_STEM_WIDTH = 64
"""Channels of a stem's first convolution; a plain stem has no others."""

_OUTPUT_STRIDES = (8, 16, 32)
_STEM_STRIDE = 4

_BASE_WIDTH = 64
"""Channels of the first stage to which timm's `base_width` refers."""


class ResNetNetwork(ConvNetwork):
    """A ResNet over an envelope; further attributes as in `ConvNetwork`.

    Attributes:
        bn1: the stem's norm.
        act1: the stem's activation.
        maxpool: the stem's pooling.
    """

    def take_stem(self, model: Any) -> None:
        """Take norm, activation and pooling."""
        self.bn1 = model.bn1
        self.act1 = model.act1
        self.maxpool = model.maxpool

    def make_block(self, block: Any, position: LayerEnvelope, stage: int) -> PostActivationBlock:
        """Build the layer of a position from timm's block there."""
        return PostActivationBlock(
            block, position, self.shape.stages[stage], self.backbone.options
        )

    def embed_images(self, images_BCYX: Tensor) -> Tensor:
        """Feature maps (B, C, Y, X) of the first stage."""
        maps_BCYX: Tensor = self.maxpool(self.act1(self.bn1(self.conv1(images_BCYX))))
        return maps_BCYX


def _check_block(block: Any) -> None:
    """Check that a block does only what `PostActivationBlock` does."""
    require_type("a block", block, BasicBlock, Bottleneck)
    for name, module in block.named_children():
        if name.startswith("bn"):
            require_type(f"its {name}", module, nn.BatchNorm2d)
        elif name.startswith("act"):
            require_type(f"its {name}", module, nn.ReLU)
        elif name in ("drop_block", "aa", "se"):
            require_type(f"its {name}", module, nn.Identity)
        elif name == "downsample":
            for part in module:
                require_type("a part of its skip", part, nn.Conv2d, nn.BatchNorm2d)


def _stem(model: Any) -> list[nn.Module]:
    """The modules of a model's stem, in order, without its pooling.

    Raises:
        InputError: a part is not supported.
    """
    parts = [*model.conv1] if isinstance(model.conv1, nn.Sequential) else [model.conv1]
    for part in parts:
        require_type("the stem", part, nn.Conv2d, nn.BatchNorm2d, nn.ReLU)
    require_type("the stem's norm", model.bn1, nn.BatchNorm2d)
    require_type("the stem's activation", model.act1, nn.ReLU)
    require_type("the stem's pooling", model.maxpool, nn.MaxPool2d)
    return [*parts, model.bn1]


def _describe(model: Any, image_size: ImageSize | None) -> BackboneShape:
    """Read the sizes of a timm ResNet, checking every part.

    Raises:
        InputError: a part is not supported, or there are more widths than stages.
    """
    assert image_size is not None
    stem = _stem(model)
    for blocks in stages_of(model):
        for block in blocks:
            _check_block(block)
    if model.global_pool.pool_type != "avg":
        raise refuse(f"it pools by {model.global_pool.pool_type!r}, understood is avg")
    shape = conv_shape(model, image_size, stem=stem, pooling=2, pre_activated=False)
    if shape.stages[-1].embed_dim != model.fc.in_features:
        raise InputError(
            f"`depths` gives {len(shape.stages)} stages, and `widths` another number of them; "
            f"give widths too, one per stage"
        )
    return shape


def _planes(model: Any) -> list[int]:
    """Channels of each stage, before the expansion of bottlenecks."""
    firsts = [blocks[0] for blocks in stages_of(model)]
    last = {"basic": "conv2", "bottleneck": "conv3"}
    channels = [getattr(b, last[block_name(b)]).out_channels for b in firsts]
    return [after // b.expansion for after, b in zip(channels, firsts, strict=True)]


def _cardinality(model: Any) -> int:
    groups: int = model.layer1[0].conv2.groups
    return groups


def _base_width(model: Any) -> int:
    """The least `base_width` that gives the bottlenecks their inner channels."""
    if block_name(model.layer1[0]) == "basic":
        return _BASE_WIDTH
    inner = [blocks[0].conv2.out_channels // _cardinality(model) for blocks in stages_of(model)]
    pairs = zip(inner, _planes(model), strict=True)
    least = [-(-width * _BASE_WIDTH // planes) for width, planes in pairs]
    return max(map(int, least))


def _stem_type(model: Any) -> str:
    return "deep" if isinstance(model.conv1, nn.Sequential) else "plain"


def _to_stem_type(value: str) -> str:
    if value not in _STEMS:
        raise ValueError(f"`stem_type` is {value!r}; it is one of {', '.join(_STEMS)}")
    return _STEMS[value]


def _stem_width(model: Any) -> int:
    deep = isinstance(model.conv1, nn.Sequential)
    width: int = model.conv1[0].out_channels if deep else _STEM_WIDTH
    return width


def _output_stride(model: Any) -> int:
    """The stride of the last stage where convolutions are dilated instead; else the most."""
    firsts = [blocks[0] for blocks in stages_of(model)]
    if all(conv.dilation == (1, 1) for conv in _convolutions(model)):
        return _OUTPUT_STRIDES[-1]
    strides = (conv.stride[0] for first in firsts for conv in _convolutions(first.downsample))
    return _STEM_STRIDE * math.prod(strides)


def _convolutions(module: nn.Module | None) -> list[nn.Conv2d]:
    """The convolutions in a module, of which there may be none."""
    modules = [] if module is None else module.modules()
    return [part for part in modules if isinstance(part, nn.Conv2d)]


def _to_output_stride(value: int) -> int:
    if value not in _OUTPUT_STRIDES:
        known = ", ".join(map(str, _OUTPUT_STRIDES))
        raise ValueError(f"`output_stride` is {value}; it is one of {known}")
    return value


def _resnet(
    *,
    block: type[nn.Module] = BasicBlock,
    layers: tuple[int, ...] = (2, 2, 2, 2),
    **arguments: Any,
) -> ResNet:
    """timm's class, with the sizes of its ResNet-18 as defaults."""
    return ResNet(block=block, layers=layers, **arguments)


RESNET = Family(
    base_name="resnet",
    model_class=ResNet,
    keywords={
        "depths": per_stage(lambda m: [len(blocks) for blocks in stages_of(m)], argument="layers"),
        "widths": per_stage(_planes, argument="channels"),
        "block": KeywordRule(
            lambda m: block_name(m.layer1[0]),
            to_argument=lambda value: _BLOCKS[to_block_name(value)],
        ),
        "cardinality": KeywordRule(_cardinality),
        "base_width": KeywordRule(_base_width),
        "stem_type": KeywordRule(_stem_type, to_argument=_to_stem_type),
        "stem_width": KeywordRule(_stem_width),
        "output_stride": KeywordRule(_output_stride, to_argument=_to_output_stride),
    },
    describe=_describe,
    make_network=ResNetNetwork,
    names={"resnet": _resnet},
    default_image_size=224,
)
