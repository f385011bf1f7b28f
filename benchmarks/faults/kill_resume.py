"""Kill a search at random moments, resume it, and compare it with an uninterrupted one.

    python benchmarks/faults/kill_resume.py [--kills 5] [--trials 12] [--searcher nsga2 ...]
        [--json]

Each searcher runs `sharedattn search` as a separate process, with one slot and one epoch per
trial. Its process group gets SIGKILL at a random moment, as often as requested, and is started
again each time. In the end there must be the requested number of trials, none running and none
trained twice, equal to those of the uninterrupted run in placements, order and accuracies.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sharedattn.results.database.store import Store
from sharedattn.results.records import TrialRole, TrialRow
from sharedattn.search.provenance import provenance


def command(out: Path, searcher: str, trials: int) -> list[str]:
    options = f"--trials {trials} --epochs 1 --workers 1 --confirm-seeds 1 --study killed --json"
    return [
        sys.executable,
        "-m",
        "sharedattn",
        "search",
        *options.split(),
        "--searcher",
        searcher,
        "--out",
        str(out),
    ]


def run(
    out: Path, searcher: str, trials: int, kill_after_s: float | None
) -> dict[str, Any] | None:
    """Run the search, or return None if it was killed before its end."""
    process = subprocess.Popen(
        command(out, searcher, trials),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=kill_after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    if process.returncode != 0:
        raise RuntimeError(f"the search ended with exit code {process.returncode}")
    document: dict[str, Any] = json.loads(output)
    return document


def rows_of(out: Path) -> list[TrialRow]:
    """The search trials in the database, none before there is a study."""
    if not (out / "sharedattn.db").exists():
        return []
    with Store.open(f"sqlite:///{out / 'sharedattn.db'}", create=True) as store:
        study = store.find_study("killed")
        return [] if study is None else store.trials.of(study, TrialRole.SEARCH)


def outcomes_of(rows: list[TrialRow]) -> list[tuple[Any, ...]]:
    """What a resumed search must reproduce: placements, order, states and accuracies."""
    return [(row.number, row.placement, row.state.value, row.top1) for row in rows]


def campaign(searcher: str, kills: int, trials: int, rng: random.Random) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        started = time.monotonic()
        run(whole, searcher, trials, None)
        whole_s = time.monotonic() - started
        first, last = rows_of(whole)[0], rows_of(whole)[-1]
        assert last.finished_at is not None
        searching_s = (last.finished_at - first.created_at).total_seconds()
        finished: dict[int, Any] = {}  # when each trial was first seen finished, by number
        finished_at_kills = []
        for _ in range(kills):
            # From the start of the process, mostly during the trials; all kills together leave
            # work to do.
            latest_s = whole_s - searching_s + 1.5 * searching_s / kills
            ended = run(killed, searcher, trials, rng.uniform(0.0, latest_s))
            assert ended is None, "the search ended before it was killed: ask for more trials"
            for row in rows_of(killed):
                if row.finished_at is not None:
                    finished.setdefault(row.number, row.finished_at)
            finished_at_kills.append(len(finished))
        document = run(killed, searcher, trials, None)
        assert document is not None
        rows = rows_of(killed)
        trained_again = [n for n, when in finished.items() if rows[n].finished_at != when]
        equal = outcomes_of(rows) == outcomes_of(rows_of(whole))
    return {
        "searcher": searcher,
        "kills": kills,
        "finished_at_kills": finished_at_kills,
        "trials": document["trials"],
        "distinct_placements": len({row.placement for row in rows}),
        "finished_trials_run_again": len(trained_again),
        "equal_to_uninterrupted": equal,
        "ok": document["trials"] == {"complete": trials, "pruned": 0, "failed": 0, "running": 0}
        and len({row.placement for row in rows}) == trials
        and not trained_again
        and equal,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--searcher", nargs="+", default=["nsga2", "tpe", "random"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    rows = [campaign(s, arguments.kills, arguments.trials, rng) for s in arguments.searcher]
    if arguments.json:
        print(json.dumps({"campaigns": rows, "provenance": provenance()}, indent=2))
    else:
        for row in rows:
            print(*(f"{name} {value}" for name, value in row.items()), sep="; ")
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
