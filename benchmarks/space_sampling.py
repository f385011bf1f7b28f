"""Speed and uniformity of drawing legal placements inside a tight budget.

Prints the time to build a space's tables; the placements drawn per second, and the time of a
repair, with a budget that at most 1 % of the space meets; and the p value of a chi-square test of
uniformity on the embedded space.

    python benchmarks/space_sampling.py [--space deit-tiny-any] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections import Counter
from typing import Any

from scipy.stats import chisquare

from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.counting import CostBox, CostTables, RankedMembers
from sharedattn.spaces.encoding import Encoding
from sharedattn.spaces.space import Space, presets

NUM_SAMPLES = 20_000
NUM_REPAIRS = 200
UNIFORM_SPACE = "digit-pairs-vit"
SAMPLES_PER_MEMBER = 50


def tight_budget(counted: BudgetedSpace, share: float) -> Budget:
    """The largest bound on MACs that at most `share` of the space meets."""
    tables = CostTables(counted.priced)
    low, high = counted.macs_range
    while high - low > 1:
        middle = (low + high) // 2
        if RankedMembers(tables, CostBox(max_macs=middle)).size <= share * counted.size:
            low = middle
        else:
            high = middle
    return Budget(max_macs=low)


def measure(name: str, seed: int) -> dict[str, Any]:
    """Measure one space, and test uniformity on the embedded one."""
    space = Space.load(name)
    start = time.perf_counter()
    whole = BudgetedSpace(space)
    tables_s = time.perf_counter() - start

    counted = BudgetedSpace(space, tight_budget(whole, 0.01))
    rng = random.Random(seed)
    start = time.perf_counter()
    for _ in range(NUM_SAMPLES):
        counted.sample(rng)
    sampling_s = time.perf_counter() - start

    encoding = Encoding(counted)
    repair_ms = []
    for _ in range(NUM_REPAIRS):
        values = {name: rng.choice(choices) for name, choices in encoding.dimensions.items()}
        proposal = encoding.decode(values)
        start = time.perf_counter()
        encoding.repair(proposal)
        repair_ms.append(1e3 * (time.perf_counter() - start))

    embedded = BudgetedSpace(Space.load(UNIFORM_SPACE))
    small = BudgetedSpace(embedded.space, tight_budget(embedded, 0.1))
    drawn = Counter(small.sample(rng) for _ in range(SAMPLES_PER_MEMBER * small.in_budget))
    p_value = chisquare([drawn[placement] for placement in small.enumerate()]).pvalue
    return {
        "space": name,
        "size": counted.size,
        "in_budget": counted.in_budget,
        "max_macs": counted.budget.max_macs,
        "tables_s": round(tables_s, 3),
        "samples_per_s": round(NUM_SAMPLES / sampling_s),
        "repair_ms": {
            "median": round(statistics.median(repair_ms), 2),
            "most": round(max(repair_ms), 2),
        },
        "uniformity": {
            "space": UNIFORM_SPACE,
            "members": small.in_budget,
            "samples": drawn.total(),
            "chi_square_p": round(float(p_value), 4),
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="deit-tiny-any", choices=presets())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    arguments = parser.parse_args()
    figures = measure(arguments.space, arguments.seed)
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    share = figures["in_budget"] / figures["size"]
    uniformity = figures["uniformity"]
    print(
        f"{figures['space']}: {figures['size']} placements, {share:.2%} in {figures['max_macs']}"
    )
    print(f"tables built in {figures['tables_s']} s")
    print(f"{figures['samples_per_s']} legal samples/s inside the budget")
    print(
        f"repair: median {figures['repair_ms']['median']} ms, most {figures['repair_ms']['most']}"
    )
    print(
        f"uniformity on {uniformity['members']} members of {uniformity['space']}, "
        f"{uniformity['samples']} samples: chi-square p = {uniformity['chi_square_p']}"
    )


if __name__ == "__main__":
    main()
