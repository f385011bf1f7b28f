"""A search by shared weights against trials from scratch of the same wall time.

    python benchmarks/supernet_search.py [--seeds 0,1,2,3,4] [--out DIR] [--json]

For each seed: the whole search with a supernet over the embedded space (its training, the scores
of all placements, the trainings of its front with three seeds each), then a search from scratch
that is interrupted after as many seconds. The front of the latter is then confirmed with three
seeds, and the time that takes is not counted. Both fronts are of trained accuracies with three
seeds, and their hypervolumes are of one box.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from search.provenance import provenance

Document = dict[str, Any]
COMMAND = (sys.executable, "-m", "sharedattn", "search", "--json")
NEVER = 10_000  # trials: more than the time is enough for


def by_supernet(seed: int, out: Path) -> Document:
    started = time.monotonic()
    document = _document([*COMMAND, "--evaluator", "supernet", *_common(seed, out)])
    document["measured_s"] = time.monotonic() - started
    return document


def from_scratch(seed: int, out: Path, seconds: float) -> Document:
    """A search that is interrupted after some seconds, and its front confirmed after that."""
    arguments = [*COMMAND, *_common(seed, out), "--study", "scratch"]
    process = subprocess.Popen(
        [*arguments, "--trials", str(NEVER)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(timeout=seconds)
        raise RuntimeError("a search from scratch has ended before its time")
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait()
    front = [sys.executable, "-m", "sharedattn", "front", "scratch", "--out", str(out), "--json"]
    complete = _document(front)["trials"]["complete"]
    return _document([*arguments, "--trials", str(complete)])


def _common(seed: int, out: Path) -> list[str]:
    return ["--seed", str(seed), "--out", str(out)]


def _document(command: list[str]) -> Document:
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    document: Document = json.loads(done.stdout)
    return document


def compare(seed: int, folder: Path) -> Document:
    shared = by_supernet(seed, folder / f"supernet-{seed}")
    scratch = from_scratch(seed, folder / f"scratch-{seed}", shared["measured_s"])
    return {
        "seed": seed,
        "wall_time_s": shared["measured_s"],
        "scored": shared["trials"]["complete"],
        "trained": shared["confirmations"]["complete"],
        "scratch_trials": scratch["trials"]["complete"],
        "supernet_hypervolume": shared["hypervolume"],
        "inherited_hypervolume": shared["inherited"]["hypervolume"],
        "mean_gap": shared["inherited"]["mean_gap"],
        "scratch_hypervolume": scratch["hypervolume"],
        "supernet_front": shared["front"],
        "scratch_front": scratch["front"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--out", type=Path, help="keep the studies there (default: nowhere)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.out or Path(temporary)
        rows = []
        for seed in map(int, arguments.seeds.split(",")):
            rows.append(compare(seed, folder))
            row = rows[-1]
            print(
                f"seed {seed}: {row['wall_time_s']:.0f} s, {row['scored']:,} scored, "
                f"{row['trained']} trained; hypervolume {row['supernet_hypervolume']:.4f} against "
                f"{row['scratch_hypervolume']:.4f} of {row['scratch_trials']} trials from scratch",
                file=sys.stderr,
            )
    names = ("wall_time_s", "supernet_hypervolume", "scratch_hypervolume", "mean_gap")
    document: Document = {
        "means": {name: statistics.mean(row[name] for row in rows) for name in names},
        "rows": rows,
        "provenance": provenance(),
    }
    if arguments.json:
        print(json.dumps(document, indent=2))
        return
    means = document["means"]
    print(
        f"means of {len(rows)} seeds: hypervolume {means['supernet_hypervolume']:.4f} by a "
        f"supernet, {means['scratch_hypervolume']:.4f} from scratch in the same "
        f"{means['wall_time_s']:.0f} s; trained minus inherited accuracy {means['mean_gap']:+.4f}"
    )


if __name__ == "__main__":
    main()
