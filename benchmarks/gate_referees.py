"""Random placements of gates on networks of convolutions: closed forms against two counters.

    python benchmarks/gate_referees.py [--placements 100] [--seed 0] [--size 16]

For each tiny family, with either option of batch norms and with the light DIA unit, draws
placements of all gates, with EANet's external attention after some blocks, builds each, and
compares its params, MACs and products with fvcore's and torch's counts. Each also passes through a
safetensors file: shared units stand there once, and the logits are equal. Exits with 1 if anything
differs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sharedattn.backbones import build
from sharedattn.costs.flop_counters import fvcore_macs, matmul_macs
from sharedattn.costs.model import CostModel
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement
from sharedattn.testing.placements import random_placements

SIZES = "cbam_reduction=3,gc_reduction=3,in_chans=2,num_classes=3,se_reduction=3,sge_groups=2"
FAMILIES = {
    "resnet": f"resnet(block=bottleneck,depths=3-2,widths=6-10,{SIZES}",
    "resnext": "resnet(base_width=64,block=bottleneck,cardinality=2,depths=3-2,widths=6-10,"
    + SIZES,
    "resnet_cifar": f"resnet_cifar(depths=3-3,stem_width=5,widths=14-22,{SIZES}",
    "preresnet_cifar": f"resnet_cifar(depths=3-3,pre_activation=true,stem_width=5,widths=14-22,"
    f"gate_norm=true,{SIZES}",
    "wrn_cifar": f"resnet_cifar(activated_skip=true,depths=3-3,pre_activation=true,stem_width=5,"
    f"widths=14-22,{SIZES}",
    "resnext_cifar": "resnet_cifar(block=bottleneck,cardinality=3,depths=3-3,inner_widths=6-9,"
    f"stem_width=5,widths=14-22,{SIZES}",
}
OPTIONS = ("bn=per_site", "bn=shared", "bn=per_site,dia_form=light")


def differences(backbone: BackboneSpec, placements: list[Placement]) -> dict[str, int]:
    """Number of placements for which a counter, the parameters or the file disagree."""
    model = CostModel(backbone)
    found = {"params": 0, "fvcore": 0, "flop_counter": 0, "file": 0}
    images = torch.randn(2, backbone.in_chans, *model.shape.image_size)
    for placement in placements:
        cost = model.cost(placement)
        network, other = (build(NetworkSpec(backbone, placement)).eval() for _ in range(2))
        found["params"] += cost.params != sum(p.numel() for p in network.parameters())
        found["fvcore"] += cost.macs != fvcore_macs(network)
        found["flop_counter"] += cost.matmul_macs != matmul_macs(network)
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            file = Path(folder) / "weights.safetensors"
            save_file(network.state_dict(), file)
            other.load_state_dict(load_file(file))
            found["file"] += not torch.equal(other(images), network(images))
    return found


def have_external_and_dia(placement: Placement) -> bool:
    """Whether a placement has external attention and a DIA unit."""
    layers = [layer for stage in placement.stages for layer in stage]
    return any(layer.kind == "E" for layer in layers) and any(
        layer.gate is not None and layer.gate.gate == "dia" for layer in layers
    )


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--placements", type=int, default=100, help="of each family and option")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", default="16", help="of the images, such as 16 or 13x19")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    total = 0
    for name, text in FAMILIES.items():
        for option in OPTIONS:
            backbone = BackboneSpec.parse(f"{text},{option})@{asked.size}")
            placements = random_placements(backbone, asked.seed, asked.placements + 1)[1:]
            found = differences(backbone, placements)
            total += sum(found.values())
            both = sum(map(have_external_and_dia, placements))
            said = ", ".join(f"{what} {count}" for what, count in found.items())
            print(
                f"{name}, {option}: {asked.placements} placements, {both} with external attention "
                f"and DIA, unequal: {said}",
                flush=True,
            )
    if total:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
