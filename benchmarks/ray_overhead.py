"""The driver's cost per trial on Ray Tune, compared with plain Ray Tune, without evaluation.

    python benchmarks/ray_overhead.py [--trials 100] [--blocks 3] [--reports 1]
                                    [--searcher nsga2] [--json]

Alternates blocks of three kinds on one local Ray cluster of one slot, each after its worker has
started and run its first trials:

- ours: a study on SQLite by `sharedattn.Study`; the time spent in the database is subtracted and
  shown separately.
- plain: `ray.tune.Tuner` with its defaults, a class Trainable, `reuse_actors` and as many reports
  per trial.
- bare: the same without Tune's loggers and snapshots, which no user would turn off.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore", message=".*torch.jit.*")

from free_evaluator import FreeEvaluator  # noqa: E402 (the warning is timm's, at import)
from ray import tune  # noqa: E402

import sharedattn as sa  # noqa: E402
from sharedattn.results.database.store import Store  # noqa: E402
from sharedattn.results.database.writing import StudyWriter  # noqa: E402
from sharedattn.search.executors.ray import executor as ray_tune  # noqa: E402
from sharedattn.search.provenance import provenance  # noqa: E402
from sharedattn.search.searchers import SEARCHERS  # noqa: E402
from sharedattn.search.status import Progress  # noqa: E402

WARM_UP = 10  # trials of each block that do not count
SPACE = "digit-pairs-vit"


class FreeTrainable(tune.Trainable):
    """The equivalent for plain Tune."""

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.top1 = new_config["top1"]
        self.num_reports = new_config["num_reports"]
        return True

    def step(self) -> dict[str, Any]:
        done = self.iteration + 1 == self.num_reports
        return {"top1": self.top1, "loss": 0.5, "epoch": self.iteration + 1, "done": done}


@dataclass
class Clock:
    """Measures a block from the end of its warm-up."""

    begun: float = 0.0
    ended: float = 0.0
    database_s: float = 0.0

    def trial_ended(self, num_ended: int, num_trials: int) -> None:
        """Record the time when the warm-up or the block ends."""
        if num_ended == WARM_UP:
            self.begun = time.perf_counter()
            self.database_s = 0.0
        elif num_ended == num_trials:
            self.ended = time.perf_counter()

    def ms_per_trial(self, num_trials: int) -> float:
        """Milliseconds per counted trial, without the database's share."""
        seconds = self.ended - self.begun - self.database_s
        return 1e3 * seconds / (num_trials - WARM_UP)


@contextmanager
def timed_database(clock: Clock) -> Iterator[None]:
    """Time every public method of the store and its writer, once if nested."""
    is_inside = False

    def timed(method: Any) -> Any:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal is_inside
            if is_inside:
                return method(*args, **kwargs)
            begun, is_inside = time.perf_counter(), True
            try:
                return method(*args, **kwargs)
            finally:
                is_inside = False
                clock.database_s += time.perf_counter() - begun

        return call

    plain = {
        (owner, name): method
        for owner in (Store, StudyWriter)
        for name, method in vars(owner).items()
        if inspect.isfunction(method) and not name.startswith("_") and name != "drive"
    }
    for (owner, name), method in plain.items():
        setattr(owner, name, timed(method))
    try:
        yield
    finally:
        for (owner, name), method in plain.items():
            setattr(owner, name, method)


def run_ours(
    folder: Path, searcher_name: str, num_trials: int, num_reports: int
) -> tuple[float, float]:
    """Run one study; return milliseconds per trial without the database, and in the database."""
    clock = Clock()

    def on_progress(progress: Progress) -> None:
        clock.trial_ended(progress.num_ended, num_trials)

    study = sa.Study(
        SPACE, FreeEvaluator(num_reports), searcher=searcher_name, confirm_seeds=1, out=folder
    )
    with timed_database(clock):
        study.run(trials=num_trials, executor=sa.RayCluster(), progress=on_progress)
    return clock.ms_per_trial(num_trials), 1e3 * clock.database_s / (num_trials - WARM_UP)


class Stopwatch(tune.Callback):
    """Records when trials of plain Tune end."""

    def __init__(self, num_trials: int) -> None:
        self.clock = Clock()
        self._num_trials = num_trials
        self._num_ended = 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._num_ended += 1
        self.clock.trial_ended(self._num_ended, self._num_trials)


def run_tune(folder: Path, num_trials: int, num_reports: int) -> float:
    """Run one plain experiment; return milliseconds per trial."""
    stopwatch = Stopwatch(num_trials)
    tune.Tuner(
        FreeTrainable,
        param_space={"top1": tune.uniform(0.5, 1.0), "num_reports": num_reports},
        tune_config=tune.TuneConfig(
            num_samples=num_trials, reuse_actors=True, max_concurrent_trials=1
        ),
        run_config=tune.RunConfig(
            name="plain",
            storage_path=str(folder),
            verbose=0,
            callbacks=[stopwatch],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()
    return stopwatch.clock.ms_per_trial(num_trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--reports", type=int, default=1)
    parser.add_argument("--searcher", choices=sorted(SEARCHERS), default="nsga2")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    num_trials = arguments.trials + WARM_UP
    # Otherwise workers get a lower priority than all other processes, ours and plain Tune's alike.
    os.environ["RAY_worker_niceness"] = "0"
    # Before `connect` silences Tune: the plain blocks must run with Tune's defaults.
    as_it_comes = dict(os.environ)
    ray_tune.connect(None)
    ours_environment = dict(os.environ)
    times: dict[str, list[float]] = {"ours": [], "plain": [], "bare": [], "database": []}
    for _ in range(arguments.blocks):
        with tempfile.TemporaryDirectory() as folder:
            ours, database = run_ours(
                Path(folder), arguments.searcher, num_trials, arguments.reports
            )
            times["ours"].append(ours)
            times["database"].append(database)
        for kind, environment in (("plain", as_it_comes), ("bare", ours_environment)):
            os.environ.clear()
            os.environ.update(environment)
            with tempfile.TemporaryDirectory() as folder:
                times[kind].append(run_tune(Path(folder), num_trials, arguments.reports))
    ray_tune.disconnect()
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    document = {
        "trials_per_block": arguments.trials,
        "reports_per_trial": arguments.reports,
        "searcher": arguments.searcher,
        "ms_per_trial": medians,
        "blocks_ms_per_trial": times,
        "ours_to_plain": medians["ours"] / medians["plain"],
        "ours_to_bare": medians["ours"] / medians["bare"],
        "provenance": provenance(),
    }
    if arguments.json:
        print(json.dumps(document, indent=2))
        return
    print(
        f"{arguments.blocks} x {arguments.trials} trials of {arguments.reports} reports,", end=" "
    )
    print("milliseconds a trial, medians of the blocks:")
    print(f"  ours   {medians['ours']:6.1f}, and {medians['database']:.1f} in the database")
    print(f"  plain  {medians['plain']:6.1f}, ours is {document['ours_to_plain']:.2f} times that")
    print(f"  bare   {medians['bare']:6.1f}, ours is {document['ours_to_bare']:.2f} times that")
    print("target: at most 1.2 times plain")


if __name__ == "__main__":
    main()
