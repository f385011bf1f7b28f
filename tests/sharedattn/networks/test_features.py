"""Feature pyramids are timm's where timm has them, and a run's tokens everywhere."""

from __future__ import annotations

from typing import Any

import contract
import pytest
import timm
import torch
from timm.models import FeatureListNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from sharedattn.backbones import build, build_network, describe
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, Envelope, NetworkSpec, Placement
from sharedattn.shape import FeatureShape
from sharedattn.testing.placements import random_placements
from sharedattn.testing.tiny_backbones import RECTANGLES, TINY, tiny_backbone

TIMMS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int, ...]]] = {
    # timm's arguments, those of its wrapper, and the maps that are of stages
    "resnet18@45x61": ({"channels": (6, 10, 14, 22)}, {}, (1, 2, 3, 4)),
    "pvt_v2_b0@61x45": (
        {"embed_dims": (6, 10, 14, 22), "num_heads": (1, 2, 2, 2), "depths": (1, 2, 1, 1)},
        {"flatten_sequential": True},
        (0, 1, 2, 3),
    ),
    "swin_tiny_patch4_window7_224@52x100": (
        {"embed_dim": 12, "depths": (2, 1, 2, 1), "num_heads": (1, 2, 3, 4)},
        {"flatten_sequential": True, "output_fmt": "NHWC"},
        (0, 1, 2, 3),
    ),
}
KEYS = {
    "resnet18": "widths=6-10-14-22",
    "pvt_v2_b0": "depths=1-2-1-1,embed_dims=6-10-14-22,num_heads=1-2-2-2",
    "swin_tiny_patch4_window7_224": "depths=2-1-2-1,embed_dim=12,num_heads=1-2-3-4",
}


def randomise(model: nn.Module) -> None:
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize("text", TIMMS)
def test_pyramids_are_timms(text: str) -> None:
    name, _, size = text.partition("@")
    arguments, wrapped, stages = TIMMS[text]
    height, width = map(int, size.split("x"))
    sized = {"img_size": (height, width)} if name.startswith("swin") else {}
    model = timm.create_model(name, num_classes=3, **arguments, **sized).eval()
    randomise(model)
    backbone = BackboneSpec.parse(f"{name}({KEYS[name]},num_classes=3)@{size}")
    shape = describe(backbone)
    network = build(NetworkSpec(backbone, Placement.all_vanilla(shape.depths))).eval()
    network.load_state_dict(model.state_dict())
    pyramid = FeatureListNet(model, out_indices=stages, **wrapped)
    images = torch.randn(2, 3, height, width)
    with torch.no_grad():
        expected, found = pyramid(images), network.features(images)
    if "output_fmt" in wrapped:
        expected = [map_BYXC.permute(0, 3, 1, 2) for map_BYXC in expected]
    assert len(found) == len(stages)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert [f.channels for f in shape.features] == pyramid.feature_info.channels()
    assert [f.reduction for f in shape.features] == pyramid.feature_info.reduction()


def test_the_map_of_a_vit_is_timms() -> None:
    sizes = {"patch_size": 5, "embed_dim": 22, "depth": 3, "num_heads": 2, "num_classes": 3}
    model = VisionTransformer(img_size=(15, 35), reg_tokens=2, **sizes).eval()
    randomise(model)
    text = "vit(depth=3,embed_dim=22,num_heads=2,patch_size=5,reg_tokens=2,num_classes=3)@15x35"
    network = build(NetworkSpec.parse(f"{text}: V3")).eval()
    network.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 15, 35)
    with torch.no_grad():
        [expected] = model.forward_intermediates(images, indices=[2], intermediates_only=True)
        [found] = network.features(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.shape == (2, 22, 3, 7)


# A UNet has no pyramid of features.
@pytest.mark.parametrize("name", [name for name in TINY if name != "unet2d"])
def test_maps_are_the_tokens_of_each_stage(name: str) -> None:
    """Each placement of a shared network, against its layers run one by one."""
    backbone = tiny_backbone(name, size=RECTANGLES[name][0])
    placements = random_placements(backbone, 17, 3)
    network = contract.randomised(build_network(backbone, Envelope.of(*placements)))
    images = contract.random_images(backbone)
    for placement in placements:
        with torch.no_grad():
            found, tokens_and_state = network.features(images, placement), network.begin(images)
            ends = []
            for stage, choices in enumerate(placement.stages):
                for index, choice in enumerate(choices):
                    tokens_and_state = network.layer(stage, index).run(*tokens_and_state, choice)
                ends.append(tokens_and_state[0])
            run = network.run(images, placement)
        assert torch.equal(ends[-1], run.tokens)
        features = network.shape.features
        assert len(found) == len(features) == (1 if name == "hvt" else len(placement.stages))
        for feature, map_BCYX in zip(features, found, strict=True):
            assert map_BCYX.shape == (3, feature.channels, *feature.grid)
            sizes, tokens = network.shape.stages[feature.stage], ends[feature.stage]
            if name == "pvt_v2":
                tokens = network.stages[feature.stage].norm(tokens)
            if sizes.convolution is not None:
                assert torch.equal(map_BCYX, tokens)
                continue
            # The token at row y and column x is number y X + x after the prefix tokens.
            Y, X = feature.grid
            for y, x in ((0, X - 1), (Y - 1, 0), (Y - 1, X - 1)):
                token_BC = tokens[:, sizes.num_prefix_tokens + y * X + x]
                assert torch.equal(map_BCYX[:, :, y, x], token_BC)


def test_features_are_described_without_a_network() -> None:
    assert describe(BackboneSpec.parse("pvt_small@800x1280")).features == tuple(
        FeatureShape(stage=i, channels=channels, reduction=4 * 2**i, grid=grid)
        for i, (channels, grid) in enumerate(
            [(64, (200, 320)), (128, (100, 160)), (320, (50, 80)), (512, (25, 40))]
        )
    )
    # Of HVT's stages only the first lies on the image's grid.
    assert [f.grid for f in describe(tiny_backbone("hvt", size="20x28")).features] == [(5, 7)]
    assert [f.reduction for f in describe(BackboneSpec(name="ceit_tiny")).features] == [16]
    cifar = describe(BackboneSpec(name="resnet20_cifar")).features
    assert [(f.channels, f.reduction) for f in cifar] == [(16, 1), (32, 2), (64, 4)]


def test_what_features_refuses() -> None:
    network = build_network(tiny_backbone("vit", size="28x20"), Envelope.of(Placement.parse("V1")))
    with pytest.raises(InputError, match="`placement` is missing"):
        network.features(torch.zeros(1, 1, 28, 20))
    with pytest.raises(InputError, match="20 x 28 pixels"):
        network.features(torch.zeros(1, 1, 20, 28), Placement.parse("V1"))
