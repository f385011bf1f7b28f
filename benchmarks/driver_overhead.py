"""The driver's cost per trial, measured by a search with an evaluator that costs nothing.

    python benchmarks/driver_overhead.py [--trials 1000] [--searcher nsga2] [--json]

Everything else is as in `sharedattn search`: the embedded space, SQLite on disk, one local worker
process, a front updated after every trial. The total includes the worker's start, but not the
checks before the first trial.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", message=".*torch.jit.*")

import sharedattn as sa  # noqa: E402 (the warning is timm's, at import)
from sharedattn.search.provenance import provenance  # noqa: E402


def free(placement: sa.Placement) -> dict[str, float]:
    """An accuracy derived from the placement's hash."""
    digest = hashlib.sha256(str(placement).encode()).digest()
    return {"top1": 0.5 + int.from_bytes(digest[:4], "big") / 2**33, "loss": 0.5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--searcher", default="nsga2")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = sa.Study(
            "digit-pairs-vit",
            free,
            searcher=arguments.searcher,
            confirm_seeds=1,
            out=Path(folder),
        )
        begun: list[tuple[float, float]] = []

        def note_begin(_: object) -> None:
            if not begun:
                begun.append((time.perf_counter(), time.process_time()))

        study.run(trials=arguments.trials, executor=sa.WorkerProcesses(), progress=note_begin)
        wall, cpu = time.perf_counter() - begun[0][0], time.process_time() - begun[0][1]
        trials = study.front().to_document()["trials"]
    document = {
        "searcher": arguments.searcher,
        "trials": trials,
        "driver_ms_per_trial": 1e3 * wall / arguments.trials,
        "driver_cpu_ms_per_trial": 1e3 * cpu / arguments.trials,
        "provenance": provenance(),
    }
    if arguments.json:
        print(json.dumps(document, indent=2))
    else:
        print(f"{document['trials']['complete']} trials by {arguments.searcher}:", end=" ")
        print(f"{document['driver_ms_per_trial']:.1f} ms a trial, of which", end=" ")
        print(f"{document['driver_cpu_ms_per_trial']:.1f} ms driver CPU (target: at most 20 ms)")


if __name__ == "__main__":
    main()
