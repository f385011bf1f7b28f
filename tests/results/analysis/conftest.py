"""Tiny networks of every mechanism, and random images for them."""

from collections.abc import Callable

import pytest
import torch

from sharedattn.backbones import describe, resolve
from sharedattn.placement import NetworkSpec
from sharedattn.results.analysis import Images

VIT = "vit(embed_dim=20,depth=5,num_heads=2,patch_size=5,in_chans=2,num_classes=3)@15"


@pytest.fixture
def spec_of() -> Callable[[str], NetworkSpec]:
    """A spec on the tiny vision transformer: 9 patches and a class token, width 20 in 2 heads."""

    def parse(placement: str) -> NetworkSpec:
        return resolve(NetworkSpec.parse(f"{VIT}: {placement}"))

    return parse


@pytest.fixture
def images_for() -> Callable[[NetworkSpec], Images]:
    """Seven images in batches of 4 and 3."""

    def draw(spec: NetworkSpec) -> Images:
        shape = (7, spec.backbone.in_chans, *describe(spec.backbone).image_size)
        images = torch.randn(shape, generator=torch.Generator().manual_seed(11))
        return Images(tuple(torch.split(images, 4)), 7)

    return draw
