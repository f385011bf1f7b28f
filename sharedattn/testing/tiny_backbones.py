"""Tiny backbones of all families, sized for the embedded digits, and spaces over them."""

from __future__ import annotations

from typing import Any

from sharedattn.backbones import describe
from sharedattn.placement import BackboneSpec

TINY = {
    "vit": "vit(class_token=false,depth=3,embed_dim=14,global_pool=avg,mlp_ratio=1,num_heads=2,"
    "patch_size=4",
    "t2t_ea": "t2t_ea(depth=3,embed_dim=14,mlp_ratio=1,num_heads=2,token_dim=5",
    "swin": "swin(depths=1-3,embed_dim=6,mlp_ratio=1,num_heads=1-3,patch_size=2,window_size=2-2",
    "pvt": "pvt(depths=2-2,embed_dims=6-10,mlp_ratios=2-1,num_heads=1-2,sr_ratios=2-1",
    "pvt_v2": "pvt_v2(depths=2-2,embed_dims=6-10,mlp_ratios=2-1,num_heads=1-2,sr_ratios=2-1",
    "deepvit": "deepvit(depth=3,embed_dim=14,mlp_ratio=1,num_heads=2,patch_size=4",
    "ceit": "ceit(depth=3,embed_dim=14,mlp_ratio=1,num_heads=2,patch_size=1",
    "hvt": "hvt(depth=4,embed_dim=14,mlp_ratio=1,num_heads=2,patch_size=4,pool_block_width=2",
    "resnet": "resnet(block=bottleneck,depths=3-2,widths=6-10",
    "resnet_cifar": "resnet_cifar(block=bottleneck,depths=3-2,inner_widths=5-7,"
    "pre_activation=true,stem_width=6,widths=14-22",
}
"""Specs without options by base name; each family has an entry."""


def tiny_backbone(base_name: str, options: str = "") -> BackboneSpec:
    """A backbone for 16 x 16 pixels, 1 channel, 2 classes; options such as `dia_reduction=2`."""
    ending = f"{options and f',{options}'},in_chans=1,num_classes=2)@16"
    return BackboneSpec.parse(TINY[base_name] + ending)


def tiny_space(base_name: str) -> dict[str, Any]:
    """The document of a space with every mechanism and form on the tiny backbone."""
    backbone = tiny_backbone(base_name)
    sizes = describe(backbone).stages
    if any(stage.convolution for stage in sizes):
        return _tiny_space_of_convolutions(base_name, [stage.max_depth for stage in sizes])
    stages = [
        {
            "depth": f"1..{stage.max_depth}",
            "counts": dict.fromkeys("EVLN", f"0..{stage.max_depth}"),
            "slots": [3, 7],
            "external_form": ["single", "mea"],
            "less_form": ["full", "keys", "lowrank1", "reuse"],
            "dia": [0, 1],
            "cb": ["none", "all"],
        }
        for stage in sizes
    ]
    name = f"tiny-{base_name}"
    return {"name": name, "backbone": str(backbone), "order": "any", "stages": stages}


def _tiny_space_of_convolutions(base_name: str, depths: list[int]) -> dict[str, Any]:
    stages = [
        {
            "depth": depth,
            "counts": {"V": f"1..{depth}", "X": f"0..{depth - 1}"},
            "dia": [0, 1],
            "se": [0, 1, 2],
        }
        for depth in depths
    ]
    backbone = str(tiny_backbone(base_name, "se_reduction=3"))
    return {"name": f"tiny-{base_name}", "backbone": backbone, "order": "any", "stages": stages}
