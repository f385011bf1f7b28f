"""Images that are not square: closed forms against two counters on random placements.

    python benchmarks/rectangle_referees.py [--placements 50] [--seed 0] [--family NAME]

For each tiny backbone at each of its rectangular sizes, and again with the options below, draws
placements of all kinds, forms and gates, builds each, and compares its params, MACs and products
with fvcore's and torch's counts. Exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
from collections import Counter

import torch

from sharedattn.backbones import build
from sharedattn.costs.flop_counters import fvcore_macs, matmul_macs
from sharedattn.costs.model import CostModel
from sharedattn.placement import BackboneSpec, NetworkSpec
from sharedattn.testing.placements import random_placements
from sharedattn.testing.tiny_backbones import RECTANGLES, tiny_backbone

FURTHER = {
    "vit": ("class_token_in_mean=false,reg_tokens=3", "dia_reduction=2,external_expansion=2"),
    "swin": ("handover=previous",),
    "pvt_v2": ("attention_residual=true",),
    "resnet": ("bn=shared",),
    "resnet_cifar": ("gate_norm=true",),
    "unet2d": ("dia_reduction=2,downsample_padding=0",),
}
"""Options beside none, by base name."""

DIVISIBLE = {"pvt_v2": "24x40"}
"""Another size for these options, since the attention residual needs grids that divide."""


def backbones(name: str) -> list[BackboneSpec]:
    """The backbones of a family that are compared."""
    sizes = RECTANGLES[name]
    further = FURTHER.get(name, ())
    return [
        *(tiny_backbone(name, size=size) for size in sizes),
        *(tiny_backbone(name, options, DIVISIBLE.get(name, sizes[0])) for options in further),
    ]


def differences(backbone: BackboneSpec, num: int, seed: int) -> Counter[str]:
    """Number of placements for which the parameters or a counter disagree."""
    model = CostModel(backbone)
    found: Counter[str] = Counter()
    for placement in random_placements(backbone, seed, num):
        cost, network = model.cost(placement), build(NetworkSpec(backbone, placement))
        found["params"] += cost.params != sum(p.numel() for p in network.parameters())
        found["fvcore"] += cost.macs != fvcore_macs(network)
        found["flop_counter"] += cost.matmul_macs != matmul_macs(network)
    return found


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--placements", type=int, default=50, help="of each backbone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", choices=RECTANGLES, help="default: all")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    total = 0
    for name in [asked.family] if asked.family else RECTANGLES:
        for backbone in backbones(name):
            found = differences(backbone, asked.placements, asked.seed)
            total += found.total()
            said = ", ".join(f"{what} {count}" for what, count in found.items())
            print(f"{backbone}: {asked.placements} placements, unequal: {said}", flush=True)
    if total:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
