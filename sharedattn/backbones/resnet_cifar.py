"""Residual networks for small images: the CIFAR networks on which DIANet was published.

ResNet (arXiv:1512.03385), ResNet with pre-activation (arXiv:1603.05027), Wide ResNet
(arXiv:1605.07146) and ResNeXt (arXiv:1611.05431), with the sizes of DIANet's published code
(AAAI 2020, arXiv:1905.10671): a 3 x 3 stem without pooling, three stages whose grid is halved from
one to the next, by the 3 x 3 convolution of bottlenecks, and mean pooling. Skips that change the
shape are 1 x 1 convolutions, with a norm in post-activation networks; in a Wide ResNet they start
after the block's first activation. Wide ResNet's dropout, a matter of its training, is left out.

Shape letters: B batch, C channels, Y x X grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

import torch.nn.functional as F
from timm.layers.drop import DropPath
from torch import Tensor, nn

from sharedattn.backbones.convolutional import (
    BLOCK_NAMES,
    ConvNetwork,
    block_name,
    conv_shape,
    stages_of,
    to_block_name,
)
from sharedattn.backbones.family import Family, KeywordRule, per_stage
from sharedattn.image_size import ImageSize
from sharedattn.networks.conv_block import ConvBlock, PostActivationBlock, PreActivationBlock
from sharedattn.placement import LayerEnvelope
from sharedattn.shape import BackboneShape


class CifarBlock(nn.Module):
    """The parts of a residual block; `ConvBlock` determines how they run."""

    forward = nn.Module.forward

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        block: str,
        stride: int,
        cardinality: int,
        pre_activation: bool,
        drop_path: float,
    ) -> None:
        """Make the parts of one block.

        Args:
            channels: numbers of channels before, inside and after the block.
            block: `basic`, two 3 x 3 convolutions, or `bottleneck`, 1 x 1, 3 x 3 and 1 x 1.
            stride: of its first 3 x 3 convolution, and of its skip.
            cardinality: groups of that convolution.
            pre_activation: whether norms come before convolutions.
            drop_path: probability with which training leaves out the branch.
        """
        super().__init__()
        before, inside, after = channels
        spatial = partial(
            nn.Conv2d, kernel_size=3, stride=stride, padding=1, groups=cardinality, bias=False
        )
        if block == "basic":
            convolutions = [
                spatial(before, inside),
                nn.Conv2d(inside, after, 3, padding=1, bias=False),
            ]
        else:
            convolutions = [
                nn.Conv2d(before, inside, 1, bias=False),
                spatial(inside, inside),
                nn.Conv2d(inside, after, 1, bias=False),
            ]
        for number, conv in enumerate(convolutions, 1):
            norm = nn.BatchNorm2d(conv.in_channels if pre_activation else conv.out_channels)
            # In the order in which they run.
            named = {f"conv{number}": conv, f"bn{number}": norm}
            for name in sorted(named) if pre_activation else named:
                self.add_module(name, named[name])
        self.downsample = None
        if stride != 1 or before != after:
            skip = nn.Conv2d(before, after, 1, stride=stride, bias=False)
            norms = [] if pre_activation else [nn.BatchNorm2d(after)]
            self.downsample = nn.Sequential(skip, *norms)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()


class CifarResNet(nn.Module):
    """The parts of a residual network for small images; default sizes are those of ResNet-20."""

    forward = nn.Module.forward

    def __init__(
        self,
        *,
        block: str = "basic",
        depths: tuple[int, ...] = (3, 3, 3),
        widths: tuple[int, ...] = (16, 32, 64),
        inner_widths: tuple[int, ...] | None = None,
        stem_width: int = 16,
        cardinality: int = 1,
        pre_activation: bool = False,
        activated_skip: bool = False,
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ) -> None:
        """Make the parts, with convolutions initialised as published.

        Args:
            block: as in `CifarBlock`.
            depths: blocks of each stage.
            widths: channels after each block, by stage.
            inner_widths: channels inside each block, by stage; by default `widths` of basic
                blocks, and a quarter of them of bottlenecks.
            stem_width: channels of the stem.
            cardinality: groups of the 3 x 3 convolution of bottlenecks.
            pre_activation: whether norms come before convolutions.
            activated_skip: whether skips that change the shape start after the first activation of
                a pre-activation block.
            in_chans: channels of images.
            num_classes: number of classes.
            drop_path_rate: stochastic depth of the last block, growing linearly from 0.

        Raises:
            ValueError: a number of groups that does not divide channels, or on basic blocks.
        """
        super().__init__()
        if inner_widths is None:
            inner_widths = widths if block == "basic" else tuple(width // 4 for width in widths)
        if cardinality > 1 and block == "basic":
            raise ValueError(
                "`cardinality` is about bottlenecks; leave it out, or write block=bottleneck"
            )
        self.pre_activation = pre_activation
        self.activated_skip = activated_skip and pre_activation
        self.conv1 = nn.Conv2d(in_chans, stem_width, 3, padding=1, bias=False)
        if not pre_activation:
            self.bn1 = nn.BatchNorm2d(stem_width)
        drop_paths = _rising(drop_path_rate, sum(depths))
        before = stem_width
        for i, (depth, inside, after) in enumerate(zip(depths, inner_widths, widths, strict=True)):
            blocks = [
                CifarBlock(
                    (after if index else before, inside, after),
                    block=block,
                    stride=2 if i and not index else 1,
                    cardinality=cardinality,
                    pre_activation=pre_activation,
                    drop_path=next(drop_paths),
                )
                for index in range(depth)
            ]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            before = after
        if pre_activation:
            self.bn = nn.BatchNorm2d(before)
        self.fc = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _rising(most: float, num: int) -> Iterator[float]:
    """Yield numbers that grow linearly from 0 to `most`."""
    yield from (most * number / max(1, num - 1) for number in range(num))


class CifarNetwork(ConvNetwork):
    """A residual network for small images over an envelope; others as in `ConvNetwork`.

    Attributes:
        bn1: the stem's norm, in a post-activation network.
        bn: the norm before pooling, in a pre-activation network.
    """

    classifier_parts: ClassVar[tuple[str, ...]] = ("bn", "fc")

    def take_stem(self, model: Any) -> None:
        """Take the norm that a post-activation network has."""
        self.pre_activation = model.pre_activation
        self.activated_skip = model.activated_skip
        if not self.pre_activation:
            self.bn1 = model.bn1

    def take_head(self, model: Any) -> None:
        """Take the norm that a pre-activation network has."""
        if self.pre_activation:
            self.bn = model.bn

    def make_block(self, block: Any, position: LayerEnvelope, stage: int) -> ConvBlock:
        """Build the layer of a position from the model's block there."""
        sizes, options = self.shape.stages[stage], self.backbone.options
        if not self.pre_activation:
            return PostActivationBlock(block, position, sizes, options)
        skip = self.activated_skip
        return PreActivationBlock(block, position, sizes, options, activated_skip=skip)

    def embed_images(self, images_BCYX: Tensor) -> Tensor:
        """Feature maps (B, C, Y, X) of the first stage."""
        maps_BCYX: Tensor = self.conv1(images_BCYX)
        if not self.pre_activation:
            maps_BCYX = F.relu(self.bn1(maps_BCYX), inplace=True)
        return maps_BCYX

    def classifying(self) -> tuple[nn.Module, ...]:
        """The norm before pooling."""
        return (self.bn,) if self.pre_activation else ()

    def classify(self, tokens: Tensor) -> Tensor:
        """Logits (B, classes) of feature maps (B, C, Y, X): norm and activation, mean, head."""
        if self.pre_activation:
            tokens = F.relu(self.bn(tokens), inplace=True)
        return super().classify(tokens)


def _describe(model: Any, image_size: ImageSize | None) -> BackboneShape:
    """Read the sizes of a `CifarResNet`."""
    assert image_size is not None
    norms = [] if model.pre_activation else [model.bn1]
    return conv_shape(
        model,
        image_size,
        stem=(model.conv1, *norms),
        head_norm=model.bn if model.pre_activation else None,
        pre_activated=model.pre_activation,
    )


def _widths(model: Any) -> list[int]:
    last = BLOCK_NAMES[block_name(model.layer1[0])]
    return [getattr(blocks[0], f"conv{last}").out_channels for blocks in stages_of(model)]


def _published() -> dict[str, Mapping[str, Any]]:
    """Arguments of the published networks by name."""
    found: dict[str, Mapping[str, Any]] = {}
    bottleneck = {"block": "bottleneck", "depths": (18,) * 3, "widths": (64, 128, 256)}
    for prefix, order in (("resnet", False), ("preresnet", True)):
        for depth in (20, 56, 110):
            blocks = ((depth - 2) // 6,) * 3
            found[f"{prefix}{depth}_cifar"] = {"depths": blocks, "pre_activation": order}
        found[f"{prefix}164_cifar"] = {**bottleneck, "pre_activation": order}
    found["wrn52_4_cifar"] = {
        "depths": (8, 8, 8),
        "widths": (64, 128, 256),
        "pre_activation": True,
        "activated_skip": True,
    }
    found["resnext101_8x32_cifar"] = {
        "block": "bottleneck",
        "depths": (11, 11, 11),
        "widths": (128, 256, 512),
        "inner_widths": (256, 512, 1024),
        "stem_width": 32,
        "cardinality": 8,
    }
    return found


RESNET_CIFAR = Family(
    base_name="resnet_cifar",
    model_class=CifarResNet,
    keywords={
        "block": KeywordRule(lambda m: block_name(m.layer1[0]), to_argument=to_block_name),
        "depths": per_stage(lambda m: [len(blocks) for blocks in stages_of(m)]),
        "widths": per_stage(_widths),
        "inner_widths": per_stage(
            lambda m: [blocks[0].conv1.out_channels for blocks in stages_of(m)]
        ),
        "stem_width": KeywordRule(lambda m: m.conv1.out_channels),
        "cardinality": KeywordRule(
            lambda m: 1 if block_name(m.layer1[0]) == "basic" else m.layer1[0].conv2.groups
        ),
        "pre_activation": KeywordRule(lambda m: m.pre_activation),
        "activated_skip": KeywordRule(lambda m: m.activated_skip),
    },
    describe=_describe,
    make_network=CifarNetwork,
    names={name: partial(CifarResNet, **sizes) for name, sizes in _published().items()},
    default_image_size=32,
)
