"""The driver's database cost on PostgreSQL, alone and alongside a reading process.

    python benchmarks/postgres_speed.py [--trials 10000] [--storage URL] [--json]

The calls are those of a search: a trial is begun, its evaluation is looked up, and it is finished
with one; the front's snapshot is written when the front changes, and NSGA-II's notes once per
generation. Without --storage, a temporary server is started on loopback, which flushes every
commit to disk. Blocks of trials alternate between the driver alone and the driver alongside a
process that repeatedly reads the whole study for its report.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.synchronize import Event, Lock
from typing import Any

from postgresql_server import PostgreSQLServer
from stored_trials import DEPTH, random_placement

from sharedattn.placement import NetworkSpec, Placement
from sharedattn.results.database.store import Store
from sharedattn.results.database.writing import StudyWriter
from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records import (
    EvaluationIdentity,
    EvaluationRecord,
    Fidelity,
    FrontSnapshot,
    SpecRecord,
    StudyRecord,
)
from sharedattn.search.provenance import provenance

MAX_MS_PER_TRIAL = 15.0
MAX_SLOWDOWN = 0.05
BLOCK = 100  # trials
GENERATION = 50
STUDY = StudyRecord(
    name="postgres-speed",
    fingerprint_document={"made up": True},
    space={"name": "twelve layers"},
    data={"name": "made up"},
    recipe={"epochs": 12},
    objectives=("top1", "macs"),
    searcher="nsga2",
    seed=0,
    reference_point={"top1": 0.1, "macs": 1.1e9},
    provenance={"command": "python benchmarks/postgres_speed.py"},
    num_trials=10_000,
    confirm_seeds=1,
)


@dataclass(frozen=True)
class MadeUpTrial:
    """The writes of one trial.

    Attributes:
        spec: its network.
        evaluation: its result.
        parameters: proposed and repaired parameters.
        searcher_attributes: NSGA-II's parents, at the first trial of a generation.
        snapshot: the front, if the trial changes it.
    """

    spec: SpecRecord
    evaluation: EvaluationRecord
    parameters: dict[str, Any]
    searcher_attributes: dict[str, Any]
    snapshot: FrontSnapshot | None


def made_up_trials(num_trials: int) -> list[MadeUpTrial]:
    """Distinct placements of twelve layers with random results."""
    rng = random.Random(0)
    placements: dict[Placement, None] = {}
    while len(placements) < num_trials:
        placements[random_placement(rng)] = None
    fidelity = Fidelity(epochs=12, image_size=224)
    return [
        _made_up_trial(number, placement, fidelity, rng)
        for number, placement in enumerate(placements)
    ]


def _made_up_trial(
    number: int, placement: Placement, fidelity: Fidelity, rng: random.Random
) -> MadeUpTrial:
    network = NetworkSpec.parse(f"deit_tiny_patch16_224: {placement}")
    spec = SpecRecord.of(
        network,
        params=rng.randrange(10**6, 10**7),
        macs=rng.randrange(10**8, 10**9),
        attention_bytes=10**6,
    )
    top1 = rng.random()
    evaluation = EvaluationRecord(
        identity=EvaluationIdentity(
            spec_key=spec.key,
            recipe_key="r" * 64,
            data_fingerprint="d" * 64,
            fidelity=fidelity,
            seed=0,
        ),
        split="validation",
        top1=top1,
        loss=1.2 - top1,
        num_images=4000,
        wall_time_s=14.0,
        device="cpu",
        threads=1,
        versions={"torch": "2.14.1", "timm": "1.0.31", "numpy": "2.4.6"},
        learning_curve=[{"epoch": e, "top1": 0.5, "loss": 0.7} for e in range(12)],
    )
    front = FrontSnapshot(
        num_complete=number + 1, members=tuple(range(min(number + 1, 40))), hypervolume=0.5
    )
    parents = [rng.randrange(number + 1) for _ in range(GENERATION)]
    generation, place = divmod(number, GENERATION)
    return MadeUpTrial(
        spec=spec,
        evaluation=evaluation,
        parameters={f"layer{i}": rng.choice("VLEN") for i in range(DEPTH)},
        searcher_attributes={f"parent:{generation}": parents} if place == 0 else {},
        snapshot=front if number % 10 == 0 else None,
    )


def search(store: Store, driver: StudyWriter, first: int, trials: list[MadeUpTrial]) -> float:
    """Write some trials as a search does, and return the seconds."""
    started = time.perf_counter()
    for number, trial in enumerate(trials, first):
        trial_id = driver.begin_trial(
            number=number,
            spec=trial.spec,
            proposed=trial.parameters,
            repaired=trial.parameters,
            sampler_attributes={"generation": number // GENERATION},
            searcher_attributes=trial.searcher_attributes,
        )
        assert store.find_evaluation(trial.evaluation.identity) is None
        driver.finish_trial(trial_id, trial.evaluation, attempt=1, snapshot=trial.snapshot)
    return time.perf_counter() - started


def read_on(url: str, turn: Lock, ends: Event, num_reads: Any) -> None:
    """Read the study for its report repeatedly, except while the driver has its turn alone.

    At the lowest priority, as if on another machine; the server's work for it is not.
    """
    os.nice(19)
    with Store.open(url, read_only=True) as store:
        study = store.study(STUDY.name)
        while not ends.is_set():
            with turn:
                StudySummary.read(store, study)
            num_reads.value += 1


def measure(url: str, num_trials: int) -> dict[str, Any]:
    """Run the blocks and return the figures."""
    trials = made_up_trials(num_trials)
    seconds: list[float] = []
    spawn = multiprocessing.get_context("spawn")
    turn, ends, num_reads = spawn.Lock(), spawn.Event(), spawn.Value("q", 0)
    with Store.open(url, create=True) as store:
        study = store.get_or_create_study(STUDY)
        reader = spawn.Process(target=read_on, args=(url, turn, ends, num_reads))
        reader.start()
        with store.drive(study) as driver:
            for block, first in enumerate(range(0, num_trials, BLOCK)):
                with turn if is_alone(block) else nullcontext():
                    part = trials[first : first + BLOCK]
                    seconds.append(search(store, driver, first, part))
        ends.set()
        reader.join()
        assert len(store.trials.of(study)) == num_trials
    alone = [s for block, s in enumerate(seconds) if is_alone(block)]
    beside = [s for block, s in enumerate(seconds) if not is_alone(block)]
    # Of four consecutive blocks two are alone, so that growth of the study slows both kinds
    # equally; the median of the ratios ignores occasional other load on the machine.
    ratios = [sum(beside[i : i + 2]) / sum(alone[i : i + 2]) for i in range(0, len(beside) - 1, 2)]
    return {
        "trials": num_trials,
        "ms_per_trial": 1e3 * statistics.mean(alone) / BLOCK,
        "ms_per_trial_beside_a_reader": 1e3 * statistics.mean(beside) / BLOCK,
        "slowdown": statistics.median(ratios) - 1,
        "slowdown_quartiles": [quartile - 1 for quartile in statistics.quantiles(ratios)],
        "reads_per_s": num_reads.value / sum(beside),
    }


def is_alone(block: int) -> bool:
    """Whether the driver is alone in a block: alone, alongside, alongside, alone."""
    return block % 4 in (0, 3)


@contextmanager
def own_server() -> Iterator[str]:
    """URL of a database on a server that ends with the block."""
    with PostgreSQLServer() as server:
        assert server.execute("SHOW fsync") == [("on",)]
        yield server.create_database("speed")


def main() -> int:
    """Print the figures; exit with 1 if one misses its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--storage", help="URL of an empty database (default: a server's own)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.storage:
        figures = measure(arguments.storage, arguments.trials)
    else:
        with own_server() as url:
            figures = measure(url, arguments.trials)
    if arguments.json:
        print(json.dumps({**figures, "provenance": provenance()}, indent=2))
    else:
        print(
            f"{figures['trials']} trials on PostgreSQL: {figures['ms_per_trial']:.1f} ms of "
            f"database work each (target: at most {MAX_MS_PER_TRIAL:.0f} ms); beside a reader "
            f"({figures['reads_per_s']:.1f} reads/s) {100 * figures['slowdown']:+.1f} % "
            f"(target: at most +{100 * MAX_SLOWDOWN:.0f} %)"
        )
    is_met = figures["ms_per_trial"] <= MAX_MS_PER_TRIAL and figures["slowdown"] <= MAX_SLOWDOWN
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
