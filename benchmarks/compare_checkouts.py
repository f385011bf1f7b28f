"""Compare the speed of two checkouts of the project in one run.

    python benchmarks/compare_checkouts.py BEFORE AFTER [--rounds 5] [--json]

BEFORE and AFTER are folders, e.g. two git worktrees. Rounds alternate between them; each figure is
the CPU time of a separate process with one thread, and a ratio is the time before divided by the
time after: above 1, the checkout AFTER is faster. Shown are the ratio of the medians, and the
smallest and largest ratio of one round. Run it with a Python that has the project's dependencies
but not the project: an editable installation would supply modules that a checkout lacks. It
measures

- the closed-form cost of 20,000 placements of 12 layers;
- 20,000 uniform samples inside a budget, without the preceding count;
- the driver's CPU time per trial, for random search and NSGA-II, by the checkout's own
  `benchmarks/driver_overhead.py`;
- the tree's CPU time on each of three sets, by its own `benchmarks/tree_speed.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

PROBE = """
import json, random, time, warnings
warnings.filterwarnings("ignore")
import torch
torch.set_num_threads(1)
try:
    from sharedattn.costs.model import CostModel
    from sharedattn.spaces.budget import Budget, BudgetedSpace
    from sharedattn.spaces.space import Space
except ImportError:  # before the rooms stood under `sharedattn`
    from sharedattn.cost import CostModel
    from spaces.budget import Budget, CountedSpace as BudgetedSpace
    from spaces.space import Space
space = Space.load("deit-tiny-any")
counted = BudgetedSpace(space, Budget(max_macs=1_000_000_000))
rng = random.Random(0)
model = CostModel(space.backbone)
started = time.process_time()
placements = [counted.sample(rng) for _ in range(20_000)]
sampled = time.process_time()
for placement in placements:
    model.totals(placement)
print(json.dumps({"sampling": sampled - started, "cost": time.process_time() - sampled}))
"""


def run_json(folder: Path, *command: str) -> dict:
    """Run a program with the package of `folder`, and parse the JSON document that it prints.

    Raises:
        subprocess.CalledProcessError: the program failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def cpu_seconds(folder: Path, trials: int) -> dict[str, float]:
    """CPU seconds of one round, by measurement."""
    probe = run_json(folder, "-c", PROBE)
    figures = {"closed-form cost": probe["cost"], "sampling": probe["sampling"]}
    for searcher in ("random", "nsga2"):
        command = ("benchmarks/driver_overhead.py", "--searcher", searcher)
        document = run_json(folder, *command, "--trials", str(trials), "--json")
        figures[f"driver, {searcher}"] = document["driver_cpu_ms_per_trial"] / 1e3
    tree = run_json(folder, "benchmarks/tree_speed.py", "--singles", "20", "--json")
    figures |= {f"tree: {row['set']}": row["tree_cpu_s"] for row in tree["sets"]}
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=300, help="of driver_overhead.py")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    arguments = parser.parse_args()
    before, after = [], []
    for index in range(arguments.rounds):
        pair = [(arguments.before, before), (arguments.after, after)]
        for folder, rounds in pair if index % 2 == 0 else reversed(pair):
            rounds.append(cpu_seconds(folder.resolve(), arguments.trials))
    rows = []
    for name in before[0]:
        old, new = ([figures[name] for figures in rounds] for rounds in (before, after))
        ratios = [a / b for a, b in zip(old, new, strict=True)]
        rows.append(
            {
                "measured": name,
                "ratio": statistics.median(old) / statistics.median(new),
                "least": min(ratios),
                "largest": max(ratios),
            }
        )
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print("| measured | time before / time after | of single rounds |\n|---|---|---|")
    for row in rows:
        print(
            f"| {row['measured']} | {row['ratio']:.3f} | "
            f"{row['least']:.3f} to {row['largest']:.3f} |"
        )


if __name__ == "__main__":
    main()
