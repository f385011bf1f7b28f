"""The spaces that come with the package: what they choose from pays, and their networks run."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

from sharedattn.backbones import FAMILIES, build, canonical, describe, resolve
from sharedattn.backbones.registry import _plain
from sharedattn.costs.model import CostModel
from sharedattn.placement import BackboneSpec, LayerChoice, NetworkSpec, Placement
from sharedattn.results.export.folder import rebuild
from sharedattn.results.export.onnx import write_onnx
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space, presets
from sharedattn.spaces.stages import CountedStage

VIT = "embed_dim=22,mlp_ratio=1.5,num_heads=2,patch_size=7"
PYRAMID = "embed_dims=6-10-14-22,mlp_ratios=2-2-1-1,num_heads=1-1-2-2"
SMALL = {
    "digit-pairs-vit": "vit(class_token=false,depth=4,global_pool=avg,embed_dim=22,mlp_ratio=1.5,"
    "num_heads=2,patch_size=3,{})@12",
    "digit-count-vit": "vit(class_token=false,depth=4,global_pool=avg,embed_dim=22,mlp_ratio=1.5,"
    "num_heads=2,patch_size=3,{})@12",
    "digit-pairs-cut": "vit(class_token=false,depth=4,global_pool=avg,embed_dim=22,mlp_ratio=1.5,"
    "num_heads=2,patch_size=3,{})@12",
    "deit-tiny": f"deit_tiny_patch16_224({VIT},{{}})@35",
    "deit-tiny-any": f"deit_tiny_patch16_224({VIT},{{}})@35",
    "deit-tiny-cut": f"deit_tiny_patch16_224({VIT},{{}})@35",
    "deit-small": f"deit_small_patch16_224({VIT},{{}})@35",
    "deepvit-16b": f"deepvit_16b({VIT},{{}})@35",
    "ceit-tiny": "ceit_tiny(embed_dim=22,mlp_ratio=1.5,num_heads=2,patch_size=3,{})@61",
    "hvt-ti-1": f"hvt_ti_1({VIT},{{}})@49",
    "t2t-ea-14": "t2t_ea_14(embed_dim=22,mlp_ratio=1.5,num_heads=2,token_dim=7,{})@80",
    "pvt-tiny": f"pvt_tiny({PYRAMID},{{}})@64",
    "pvt-v2-b1": f"pvt_v2_b1({PYRAMID},{{}})@53",
    "swin-tiny": "swin_tiny_patch4_window7_224(embed_dim=10,mlp_ratio=1.5,num_heads=1-1-2-5,"
    "patch_size=2,window_size=3-3-3-3,{})@48",
    "digit-count-resnet": "resnet_cifar(widths=17-19-23,{})@13",
    "resnet164-cifar": "resnet164_cifar(inner_widths=3-5-7,widths=17-19-23,{})@13",
    "resnet50": "resnet50(widths=4-5-6-7,{})@35",
    "resnet50-ean": "resnet50(widths=4-5-6-7,{})@35",
    "digits-unet": "unet2d(head_dim=3,norm_groups=3,widths=6-15,{})@10",
}
"""Each preset's backbone at odd sizes, as deep as it is; at the braces, channels and classes."""


def small_space(name: str) -> BudgetedSpace:
    backbone = BackboneSpec.parse(SMALL[name].format("in_chans=2,num_classes=3"))
    return BudgetedSpace(replace(Space.load(name), backbone=canonical(backbone)))


def random_images(space: BudgetedSpace) -> torch.Tensor:
    shape = (3, 2, *describe(space.space.backbone).image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def test_every_family_has_a_preset() -> None:
    families = {_plain(Space.load(name).backbone.name)[0].base_name for name in presets()}
    assert families == {family.base_name for family in FAMILIES}


def test_the_cuts_of_digit_pairs_are_counted_by_brute_force(
    members: Callable[..., set[Placement]],
) -> None:
    def mixes(placement: Placement) -> bool:
        return any(layer.kind in "VLE" or layer.cb for layer in placement.layers)

    space = Space.load("digit-pairs-cut")
    assert members(space, mixes) == set(BudgetedSpace(space).enumerate())


def test_the_cuts_of_deit_tiny_are_counted_layer_by_layer() -> None:
    """By whether a V and an L stand so far, and how many layers are left out."""
    depth, most, size = 12, 6, 0
    found = Counter({(False, False, 0): 1})
    for num_layers in range(1, depth + 1):
        longer: Counter[tuple[bool, bool, int]] = Counter()
        for ((has_v, has_l, left_out), number), kind in product(found.items(), "VLNX"):
            if (kind == "L" and not has_v) or (kind == "X" and left_out == most):
                continue
            after = (has_v or kind == "V", has_l or kind == "L", left_out + (kind == "X"))
            longer[after] += number
            if kind != "X" and after[2] + depth - num_layers <= most:
                # Two forms of L; CB in none or all layers, without a V in all.
                size += number * (1 + after[1]) * (1 + after[0])
        found = longer
    assert Space.load("deit-tiny-cut").automaton.size == size == 32086442


def test_the_masks_of_resnet50_are_all_codes_of_16_bits() -> None:
    bits = "1100011110010011"  # published by EAN's authors for DIA units
    masks = [bits[:3], bits[3:7], bits[7:13], bits[13:]]
    code = Placement.parse(" | ".join(f"V{len(mask)}/dia1[{mask}]" for mask in masks))
    gated = [layer.gate is not None for stage in code.stages for layer in stage]
    assert "".join("01"[bit] for bit in gated) == bits
    space = BudgetedSpace(Space.load("resnet50-ean"))
    assert space.size == 2**16
    assert code in space
    assert Placement.parse("V3/dia2[110] | V4 | V6 | V3") not in space


def test_the_unets_are_counted_by_hand() -> None:
    # Of 2 layers: E, V or N each, or V and then one of two forms of L. Of 3: the same 27, and of
    # all 36 words in which a V stands before any L, the 9 with an L in two forms. With a DIA unit
    # or without.
    encoder, middle, decoder = 2 * (9 + 2), 2 * 3, 2 * (27 + 2 * 9)
    size = encoder**2 * middle * decoder**2
    assert Space.load("digits-unet").automaton.size == size == 23522400


@pytest.mark.parametrize("name", presets())
def test_forms_save_macs(name: str) -> None:
    space = Space.load(name)
    costs = CostModel(space.backbone)
    for i, stage in enumerate(space.stages):
        if isinstance(stage, CountedStage) and stage.most("L"):
            vanilla = costs.attention(i, LayerChoice("V"))
            for form in stage.options["less_form"]:
                less = LayerChoice("L", () if form is None else (("form", form),))
                assert costs.attention(i, less).macs < vanilla.macs


@pytest.mark.parametrize("name", presets())
def test_members_run_forward_and_backward_and_come_back(name: str) -> None:
    space = small_space(name)
    images = random_images(space)
    members = space.sample_many(random.Random(11), 2)
    depths = [stage.max_depth for stage in describe(space.space.backbone).stages]
    for placement in (Placement.all_vanilla(depths), *members):
        spec = NetworkSpec(space.space.backbone, placement)
        assert resolve(spec) == spec
        network = build(spec)
        logits = network(images)
        assert logits.shape == ((3, 2, 10, 10) if name == "digits-unet" else (3, 3))
        logits.square().sum().backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert gradients
        assert all(gradient.isfinite().all() for gradient in gradients)
        network.eval()
        again = rebuild(NetworkSpec.parse(str(spec)), network.state_dict())
        with torch.no_grad():
            assert torch.equal(again(images), network(images))


# Presets of a family of which another preset is written.
SAME_FAMILY = {
    *("deit-small", "deit-tiny-any", "deit-tiny-cut"),
    *("digit-count-vit", "digit-pairs-vit"),
    "resnet50-ean",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(presets()) - SAME_FAMILY))
def test_members_are_written_as_onnx(name: str, tmp_path: Path) -> None:
    space = small_space(name)
    [placement] = space.sample_many(random.Random(13), 1)
    # Writing takes time by the layer: of the first stage the first two, of each other the first.
    first, *others = placement.stages
    shallow = Placement((first[:2], *(stage[:1] for stage in others)))
    if name == "digits-unet":
        shallow = placement  # none is left out
    spec = NetworkSpec(space.space.backbone, shallow)
    network = rebuild(spec, build(spec).state_dict(), fused=False)
    # Compares logits, at another batch size.
    write_onnx(tmp_path / "model.onnx", network)
