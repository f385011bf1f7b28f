"""Heads on feature pyramids: costs by two counters and by hand, runs, and every refusal."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from sharedattn.backbones import build, describe
from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.heads.eanet import EANet
from sharedattn.heads.retinanet import RetinaNet
from sharedattn.heads.semantic_fpn import SemanticFPN
from sharedattn.heads.upernet import UperNet
from sharedattn.networks.part_sizes import num_params
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement
from sharedattn.shape import FeatureShape
from sharedattn.testing.mechanisms import (
    check_costs,
    check_extraction,
    check_forms,
    check_resuming,
    check_tree,
    random_images,
    shared_network,
)
from sharedattn.training.trainer import check_fit

HEADS = ("retinanet", "semantic_fpn", "upernet", "eanet")
PYRAMIDS = {
    "pvt_v2_b0(embed_dims=6-10-14-22,num_heads=1-1-2-2,{})@32x64": (
        "V2 | V1E1/s5/cb | V1L1/dia1 | V1L1/reuse",
        "V1 | V2 | V1L1/dia1 | V2/cb1",
    ),
    "pvt_tiny(embed_dims=6-10-14-22,num_heads=1-1-2-2,{})@64x32": ("V2 | V2 | V1N1 | V1L1/keys",),
    "swin_tiny_patch4_window7_224(embed_dim=10,num_heads=1-1-2-5,patch_size=2,"
    "window_size=3-3-3-3,{})@48x32": ("V2 | V2 | V4L2/cb | V2",),
    "resnet18(widths=5-7-11-13,{})@45x67": ("V2/dia1 | V1E1/s5 | V2/eca | V1X1",),
}


def specs(head: str) -> list[tuple[BackboneSpec, list[Placement]]]:
    return [
        (
            BackboneSpec.parse(text.format(f"head={head},num_classes=3,in_chans=2")),
            [Placement.parse(placement) for placement in placements],
        )
        for text, placements in PYRAMIDS.items()
    ]


@pytest.mark.parametrize("head", HEADS)
def test_closed_forms_are_both_referees_counts_at_rectangles(head: str) -> None:
    for backbone, placements in specs(head):
        check_forms(backbone, placements)
        check_costs(backbone, placements)


@pytest.mark.parametrize("head", ["retinanet", "semantic_fpn"])
def test_heads_run_from_shared_weights_layer_by_layer_and_in_a_tree(head: str) -> None:
    backbone, placements = specs(head)[0]
    check_extraction(backbone, placements)
    check_resuming(backbone, placements)
    check_tree(backbone, placements)


@pytest.mark.parametrize("head", HEADS)
def test_a_head_sees_the_networks_features(head: str) -> None:
    for backbone, placements in specs(head):
        network, x = shared_network(backbone, placements), random_images(backbone)
        with torch.no_grad():
            maps = network.features(x, placements[0])
            assert network.pyramid_head is not None
            assert torch.equal(network.pyramid_head(maps), network(x, placements[0]))


def test_checkpointed_layers_give_the_same_gradients() -> None:
    backbone, placements = specs("semantic_fpn")[0]
    network, x = shared_network(backbone, placements).train(), random_images(backbone)
    found = []
    for network.grad_checkpointing in (False, True):
        network.zero_grad()
        torch.manual_seed(3)
        network(x, placements[0]).square().mean().backward()
        found.append({n: p.grad for n, p in network.named_parameters() if p.grad is not None})
    plain, checkpointed = found
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(gradient, checkpointed[name], rtol=1e-9, atol=1e-12)


def features(*channels: int, grid: tuple[int, int] = (23, 17)) -> list[FeatureShape]:
    """Maps of a pyramid, each half as fine as the one before, rounded up."""
    return [
        FeatureShape(
            stage=i,
            channels=c,
            reduction=4 * 2**i,
            grid=(math.ceil(grid[0] / 2**i), math.ceil(grid[1] / 2**i)),
        )
        for i, c in enumerate(channels)
    ]


def maps_of(shapes: list[FeatureShape]) -> list[torch.Tensor]:
    stream = torch.Generator().manual_seed(7)
    return [torch.randn(2, f.channels, *f.grid, generator=stream) for f in shapes]


def conv(inside: int, outside: int, kernel: int = 3) -> int:
    return inside * outside * kernel**2


def test_params_by_hand() -> None:
    C3, C4, C5, K, P = 7, 11, 13, 5, 256
    levels = sum(conv(c, P, 1) + P + conv(P, P) + P for c in (C3, C4, C5))
    further = conv(C5, P) + P + conv(P, P) + P
    towers = 2 * 4 * (conv(P, P) + P)
    outputs = conv(P, 9 * K) + 9 * K + conv(P, 9 * 4) + 9 * 4
    # The first map feeds no level.
    retinanet = RetinaNet(features(3, C3, C4, C5), K)
    assert num_params(retinanet) == levels + further + towers + outputs

    D = 128
    scales = 3 * (conv(P, D) + 2 * D) + conv(D, D) + 2 * D  # 1, 1 and 2 convolutions
    fpn = SemanticFPN(features(C3, C4, C5), K)
    assert num_params(fpn) == levels + scales + D * K + K

    U = 512
    pooled = 4 * (conv(C5, U, 1) + 2 * U)
    context = conv(C5 + 4 * U, U) + 2 * U
    laterals = conv(C3, U, 1) + conv(C4, U, 1) + 4 * U
    own = 2 * (conv(U, U) + 2 * U)
    joined = conv(3 * U, U) + 2 * U
    upernet = UperNet(features(C3, C4, C5), K)
    assert num_params(upernet) == pooled + context + laterals + own + joined + U * K + K


def test_the_anchors_of_retinanet_are_nine_a_pixel_of_five_levels() -> None:
    shapes = features(3, 7, 11, 13, grid=(46, 34))
    outputs = RetinaNet(shapes, 5)(maps_of(shapes))
    grids = [(23, 17), (12, 9), (6, 5), (3, 3), (2, 2)]
    assert outputs.shape == (2, 9 * sum(Y * X for Y, X in grids), 5 + 4)


def test_semantic_fpn_adds_levels_on_the_finest_grid() -> None:
    """Against a plain loop over the same modules, level by level."""
    shapes = features(7, 11, 13)
    head, maps = SemanticFPN(shapes, 5).eval(), maps_of(shapes)
    pyramid = head.pyramid
    inner = [block(m) for block, m in zip(pyramid.inner_blocks, maps, strict=True)]
    for i in (1, 0):
        inner[i] = inner[i] + F.interpolate(inner[i + 1], size=shapes[i].grid, mode="nearest")
    levels = [block(m) for block, m in zip(pyramid.layer_blocks, inner, strict=True)]

    def larger(x: torch.Tensor, level: int) -> torch.Tensor:
        size = shapes[level].grid
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)

    one, two, three = head.scale_heads
    total = one[0](levels[0]) + larger(two[0](levels[1]), 0)
    total = total + larger(three[1](larger(three[0](levels[2]), 1)), 0)
    torch.testing.assert_close(head(maps), head.classifier(total))


def test_upernet_joins_pooled_context_and_levels() -> None:
    shapes = features(7, 11)
    head, maps = UperNet(shapes, 5).eval(), maps_of(shapes)

    def on(x: torch.Tensor, i: int) -> torch.Tensor:
        return F.interpolate(x, size=shapes[i].grid, mode="bilinear", align_corners=False)

    pooled = [
        on(convolution(F.adaptive_avg_pool2d(maps[1], size)), 1)
        for size, convolution in zip((1, 2, 3, 6), head.pooled, strict=True)
    ]
    context = head.context(torch.cat([maps[1], *pooled], dim=1))
    finest = head.levels[0](head.laterals[0](maps[0]) + on(context, 0))
    joined = head.joined(torch.cat([finest, on(context, 0)], dim=1))
    torch.testing.assert_close(head(maps), head.classifier(joined))


def test_eanet_attends_as_its_block_does() -> None:
    shapes = features(7, 11)
    head, maps = EANet(shapes, 5).eval(), maps_of(shapes)
    x = head.before(maps[1])
    tokens = x.flatten(2).transpose(1, 2)
    branch, maps_B1NS = head.attention(tokens, 64)
    assert maps_B1NS.shape == (2, 1, tokens.shape[1], 64)
    expected = head.classifier(head.after(F.relu(x + branch.transpose(1, 2).reshape(x.shape))))
    torch.testing.assert_close(head(maps), expected)


def test_a_head_is_a_key_of_the_backbone() -> None:
    text = "pvt_v2_b0(head=upernet,num_classes=3)@64x96: V2 | V2 | V2 | V2"
    spec = NetworkSpec.parse(text)
    assert str(spec) == text and spec.backbone.head == "upernet"
    assert NetworkSpec.from_json(spec.to_json()) == spec
    assert "head" not in NetworkSpec.parse("vit: V1").to_json()["backbone"]
    # The number of classes that is not written is that of the head's usual data.
    plain = "pvt_v2_b0: V2 | V2 | V2 | V2"
    for task, head, num_classes in (
        ("classify", "classify", 1000),
        ("detect", "retinanet", 80),
        ("segment", "semantic_fpn", 150),
    ):
        backbone = NetworkSpec.parse(plain, task=task).backbone
        assert (backbone.head, backbone.num_classes) == (head, num_classes)
        assert BackboneSpec.parse(str(backbone)) == backbone
    assert NetworkSpec.parse(text, task="segment") == spec


def test_a_classifiers_parts_are_not_in_a_network_of_another_head() -> None:
    for head in HEADS:
        for backbone, placements in specs(head):
            names = build(NetworkSpec(backbone, placements[0])).state_dict().keys()
            assert not {"head.weight", "fc.weight", "norm.weight"} & names
            assert any(name.startswith("pyramid_head.") for name in names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vit(head=retinanet)", "RetinaNet needs 3 feature maps.* the reductions 16; name"),
        ("vit(head=upernet)", "UperNet needs 2 feature maps"),
        ("vit(head=mask)", "`head` is 'mask'; it is one of classify, retinanet"),
    ],
)
def test_backbones_that_a_head_does_not_fit(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe(BackboneSpec.parse(text))


def test_data_of_another_task_is_refused() -> None:
    data = open_data(DataConfig(name="digit-count"))
    backbone = BackboneSpec.parse("vit(head=eanet,in_chans=1,num_classes=4)@16")
    with pytest.raises(InputError, match="`head` .* is eanet, which is to segment, but"):
        check_fit(backbone, data)


def test_a_head_of_another_task_is_refused() -> None:
    with pytest.raises(InputError, match="`head` is upernet in .* which is to segment"):
        NetworkSpec.parse("pvt_v2_b0(head=upernet): V2|V2|V2|V2", task="detect")
    with pytest.raises(InputError, match="`task` is 'count'; it is one of classify, detect"):
        NetworkSpec.parse("vit: V1", task="count")
