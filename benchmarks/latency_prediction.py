"""Latencies summed from parts against those of whole networks.

    python benchmarks/latency_prediction.py [--networks 20] [--batch-size 1] [--threads N] [--json]

Per space, the table of parts as a search makes it, and random placements that it has not seen,
each predicted and measured whole. Prints the median and the worst error, the worst of the table's
own checks, and whether a search would use the table or measure every network. Beside them stands
the machine's load at the beginning and at the end: a figure of a machine that does other work is
one of that work.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
from typing import Any

import torch

from sharedattn.costs.latency import LatencySetting, measure_network
from sharedattn.search.provenance import provenance
from sharedattn.search.study.latency import space_table
from sharedattn.seeds import derived_seed
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space

SPACES = ("deit-tiny", "digit-pairs-vit")
SEED = 0


def measure(name: str, num_networks: int, setting: LatencySetting) -> dict[str, Any]:
    """The errors of one space's table."""
    load_before = os.getloadavg()[0]
    space = BudgetedSpace(Space.load(name))
    table = space_table(space, setting, seed=SEED, known={})
    rng = random.Random(derived_seed(SEED, 1, 0))
    networks = [p for p in space.sample_many(rng, num_networks) if table.holds(p)]
    rows = []
    for placement in networks:
        measured_ms = measure_network(space.space.backbone, placement, setting).median_ms
        predicted_ms = table.predict_ms(placement)
        rows.append(
            {
                "placement": str(placement),
                "predicted_ms": predicted_ms,
                "measured_ms": measured_ms,
                "error": abs(predicted_ms - measured_ms) / measured_ms,
            }
        )
    errors = [row["error"] for row in rows]
    return {
        "space": name,
        "parts": len(table.parts),
        "factor": table.factor,
        "networks": rows,
        "median_error": statistics.median(errors),
        "worst_error": max(errors),
        "check_error": table.worst_error,
        "source": "table" if table.is_trusted else "network",
        "load": [load_before, os.getloadavg()[0]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--spaces", nargs="+", default=SPACES)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    setting = LatencySetting.here(device, arguments.batch_size)
    results = [measure(name, arguments.networks, setting) for name in arguments.spaces]
    if arguments.json:
        print(json.dumps({"spaces": results, "setting": setting.to_json(), **provenance()}))
        return
    print(setting)
    print("| space | parts | factor | networks | median error | worst | checks | used | load |")
    print("|---|---|---|---|---|---|---|---|---|")
    for found in results:
        before, after = found["load"]
        print(
            f"| {found['space']} | {found['parts']} | {found['factor']:.3f} "
            f"| {len(found['networks'])} | {found['median_error']:.1%} "
            f"| {found['worst_error']:.1%} | {found['check_error']:.1%} | {found['source']} "
            f"| {before:.1f} to {after:.1f} |"
        )


if __name__ == "__main__":
    main()
