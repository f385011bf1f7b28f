"""Tiny backbones of all families, sized for the embedded digits, and spaces over them."""

from __future__ import annotations

from importlib.util import find_spec
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
    "unet2d": "unet2d(head_dim=3,layers_per_block=1,norm_groups=3,widths=6-15",
}
"""Specs without options by base name; each family has an entry."""

RECTANGLES = {
    "vit": ("28x20", "12x44"),
    "t2t_ea": ("23x37", "53x29"),
    "swin": ("26x10", "14x34", "2x22"),
    "pvt": ("24x40", "40x56"),
    "pvt_v2": ("28x20", "37x23"),
    "deepvit": ("28x20", "12x44"),
    "ceit": ("28x20", "21x45"),
    "hvt": ("20x28", "52x12"),
    "resnet": ("28x20", "45x61"),
    "resnet_cifar": ("13x19", "17x7"),
    "unet2d": ("10x14", "22x6"),
}
"""Image sizes with sides of unequal numbers of tokens, mostly prime, by base name."""


def tiny_backbone(base_name: str, options: str = "", size: str = "16") -> BackboneSpec:
    """A backbone of 1 channel and 2 classes.

    Args:
        base_name: key of `TINY`.
        options: further keys, such as `dia_reduction=2`.
        size: image size as text, by default 16 x 16 pixels.
    """
    ending = f"{options and f',{options}'},in_chans=1,num_classes=2)@{size}"
    return BackboneSpec.parse(TINY[base_name] + ending)


def tiny_backbones() -> tuple[str, ...]:
    """Base names of the families whose extra, if they need one, is installed."""
    return tuple(name for name in TINY if name != "unet2d" or find_spec("diffusers") is not None)


def tiny_space(base_name: str) -> dict[str, Any]:
    """The document of a space with every mechanism and form on the tiny backbone."""
    backbone = tiny_backbone(base_name)
    sizes = describe(backbone).stages
    if any(stage.convolution for stage in sizes):
        return _tiny_space_of_convolutions(base_name, [stage.max_depth for stage in sizes])
    stages = [
        {
            "depth": stage.max_depth if stage.is_whole else f"1..{stage.max_depth}",
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
