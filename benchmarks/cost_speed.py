"""Speed of the closed-form cost, and its differences from two independent counters.

Prints the number of placements costed per second on one core, on 12 layers, and the number of
differences from fvcore and from torch's FlopCounterMode on random placements of three backbone
sizes. Exits with 1 if there are any.

    python benchmarks/cost_speed.py [--placements 300] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import time
from typing import Any

import torch

from sharedattn.backbones import build
from sharedattn.costs.flop_counters import fvcore_macs, matmul_macs
from sharedattn.costs.model import CONVENTION, CostModel
from sharedattn.placement import NetworkSpec
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space

SPEED_SPACE = "deit-tiny-any"
REFEREED_SPACES = ("digit-pairs-vit", "deit-tiny-any", "deit-small")
NUM_COSTED = 50_000


def placements_per_s(rng: random.Random) -> int:
    """Number of distinct random placements of 12 layers whose totals are computed per second."""
    space = Space.load(SPEED_SPACE)
    counted = BudgetedSpace(space)
    placements = [counted.sample(rng) for _ in range(NUM_COSTED)]
    model = CostModel(space.backbone)
    start = time.perf_counter()
    for placement in placements:
        model.totals(placement)
    return round(NUM_COSTED / (time.perf_counter() - start))


def count_differences(name: str, num_placements: int, rng: random.Random) -> dict[str, int]:
    """Number of random placements for which a counter, or the built parameters, disagree."""
    counted = BudgetedSpace(Space.load(name))
    model = CostModel(counted.space.backbone)
    differences = {"params": 0, "fvcore": 0, "flop_counter": 0}
    for _ in range(num_placements):
        placement = counted.sample(rng)
        cost = model.cost(placement)
        network = build(NetworkSpec(model.backbone, placement))
        built_params = sum(parameter.numel() for parameter in network.parameters())
        differences["params"] += cost.params != built_params
        differences["fvcore"] += cost.macs != fvcore_macs(network)
        differences["flop_counter"] += cost.matmul_macs != matmul_macs(network)
    return differences


def measure(num_placements: int, seed: int) -> dict[str, Any]:
    """Measure all figures."""
    rng = random.Random(seed)
    each = -(-num_placements // len(REFEREED_SPACES))
    return {
        "placements_per_s": placements_per_s(rng),
        "refereed": {
            name: {"placements": each, "differences": count_differences(name, each, rng)}
            for name in REFEREED_SPACES
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--placements", type=int, default=300, help="refereed, over all spaces")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = measure(arguments.placements, arguments.seed)
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        print(CONVENTION)
        print(f"{figures['placements_per_s']} placements/s on one core, 12 layers")
        for name, result in figures["refereed"].items():
            found = ", ".join(f"{key} {count}" for key, count in result["differences"].items())
            print(f"{name}: {result['placements']} placements, differences: {found}")
    if any(any(result["differences"].values()) for result in figures["refereed"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
