"""What the driver costs per trial: a search with an evaluator that costs nothing.

    python benchmarks/driver_overhead.py [--trials 1000] [--searcher nsga2] [--json]

Everything else is as in `sharedattn search`: the embedded space, SQLite on disk, one local worker
process, a front kept after every trial. The worker's start is in the total.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

warnings.filterwarnings("ignore", message=".*torch.jit.*")

from free_evaluator import FreeEvaluator  # noqa: E402 (the warning is timm's, at import)

from sharedattn.results.database.store import Store  # noqa: E402
from sharedattn.results.records.records import TrialRole  # noqa: E402
from sharedattn.search.config import SearchConfig  # noqa: E402
from sharedattn.search.provenance import provenance  # noqa: E402
from sharedattn.search.run import prepare, run_search  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--searcher", default="nsga2")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(
            SearchConfig(
                num_trials=arguments.trials,
                searcher=arguments.searcher,
                confirm_seeds=1,
                num_workers=1,
                out=Path(folder),
            )
        )
        prepared = replace(prepared, evaluator=FreeEvaluator(num_reports=1), weights=None)
        with Store.open(prepared.storage, create=True) as store:
            wall, cpu = time.perf_counter(), time.process_time()
            study = run_search(prepared, store)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            complete = store.counts(study, TrialRole.SEARCH)
    document = {
        "searcher": arguments.searcher,
        "trials": {state.value.lower(): count for state, count in complete.items()},
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
