"""Train an all-vanilla network, and search for a cheaper placement that keeps its accuracy.

    python benchmarks/weights_search.py [--seeds 0,1,2] [--epochs 64] [--out DIR] [--json]

For each seed, the embedded backbone is trained in full (`sharedattn train`), and a search starts
from its weights within three quarters of its MACs (`sharedattn search --evaluator supernet
--weights`). The front's most accurate member on validation data is exported. It compares MACs, the
accuracy on the test split, on which no choice depends, and the wall time of both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sharedattn.costs.model import CostModel
from sharedattn.placement import Placement
from sharedattn.results.export.folder import read_export
from sharedattn.search.provenance import provenance
from sharedattn.spaces.space import Space

Document = dict[str, Any]
SPACE = "digit-pairs-vit"
SHARE = 0.75  # of the trained network's MACs
NUM_SCORED = 400  # placements


def compare(seed: int, epochs: int, folder: Path) -> Document:
    backbone = Space.load(SPACE).backbone
    macs = CostModel(backbone).totals(Placement.parse("V4")).macs
    trained, out, found = (folder / f"{name}-{seed}" for name in ("trained", "search", "found"))
    train_s = _timed(
        "train", f"{backbone}: V4", "--epochs", epochs, "--seed", seed, "--to", trained
    )
    search_s = _timed(
        *("search", SPACE, "--evaluator", "supernet", "--weights", trained, "--seed", seed),
        *("--max-macs", int(SHARE * macs), "--trials", NUM_SCORED),
        *("--confirm-seeds", 1, "--out", out),
    )
    _timed("export", "--pick", "best", "--to", found, "--out", out)
    before, after = read_export(trained), read_export(found)
    return {
        "seed": seed,
        "placement": str(after.spec.placement),
        "macs": [before.macs, after.macs],
        "fewer_macs": 1.0 - after.macs / before.macs,
        "test_top1": [before.test_top1, after.test_top1],
        "test_top1_lost": before.test_top1 - after.test_top1,
        "train_s": train_s,
        "search_s": search_s,
    }


def _timed(*arguments: object) -> float:
    started = time.monotonic()
    command = [sys.executable, "-m", "sharedattn", *map(str, arguments)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=64, help="of the full training")
    parser.add_argument("--out", type=Path, help="keep the studies there (default: nowhere)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        seeds = map(int, arguments.seeds.split(","))
        rows = [compare(seed, arguments.epochs, folder) for seed in seeds]
    names = ("fewer_macs", "test_top1_lost", "train_s", "search_s")
    document: Document = {
        "epochs": arguments.epochs,
        "means": {name: statistics.mean(row[name] for row in rows) for name in names},
        "rows": rows,
        "provenance": provenance(),
    }
    if arguments.json:
        print(json.dumps(document, indent=2))
        return
    for row in rows:
        print(
            f"seed {row['seed']}: {row['placement']}, {row['fewer_macs']:.1%} fewer MACs, test "
            f"top-1 {row['test_top1'][0]:.4f} to {row['test_top1'][1]:.4f}; trained in "
            f"{row['train_s']:.0f} s, found and fine-tuned in {row['search_s']:.0f} s"
        )
    means = document["means"]
    print(
        f"means: {means['fewer_macs']:.1%} fewer MACs (target at least 25 %), "
        f"{100 * means['test_top1_lost']:.2f} points lower test top-1 (target at most 0.5), in "
        f"{means['search_s'] / means['train_s']:.2f} of the training's time (target below 1)"
    )


if __name__ == "__main__":
    main()
