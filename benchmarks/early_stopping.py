"""What early stopping saves, and what it costs: policies replayed over trainings run to their end.

    python benchmarks/early_stopping.py train FOLDER [--seeds 0,1,2,3,4] [--schedule one-cycle]
    python benchmarks/early_stopping.py schedules FOLDER [--seeds 100] [--json]
    python benchmarks/early_stopping.py constants FOLDER [--seeds 100] [--json]
    python benchmarks/early_stopping.py replay FOLDER [--seeds 0,1,2,3,4] [--json]

`train` trains what a random search of the embedded task proposes, every trial to its end, and
writes each seed's learning curves as a table (`sharedattn search --table` reads it as well); run
again, it goes on where it was. `schedules` prints how well the accuracy at a rung ranks the final
one under each schedule of the learning rate. `replay` runs the study loop over the tables under
each policy: full training, MO-ASHA, and Ray's ASHA, which knows accuracy alone; beside each that
stops trials, random stopping of as many trials at each rung.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

warnings.filterwarnings("ignore", message=".*torch.jit.*")

import numpy as np  # noqa: E402 (the warning is timm's, at import)
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from scipy.stats import kendalltau  # type: ignore[import-untyped]  # noqa: E402

from results.pareto import FloatArray, hypervolume, parse_objectives  # noqa: E402
from results.records import StudyRecord, TrialRole, TrialState  # noqa: E402
from results.store import Store  # noqa: E402
from results.summary import StudySummary  # noqa: E402
from results.temporary import write_whole  # noqa: E402
from search.evaluators import Measurement, Report, Task  # noqa: E402
from search.evaluators.table import TableEvaluator  # noqa: E402
from search.executors import Event, Executor, Reported, advance  # noqa: E402
from search.provenance import provenance  # noqa: E402
from search.run import REFERENCE_FACTOR  # noqa: E402
from search.searchers import SEARCHERS  # noqa: E402
from search.stopping import EarlyStopping, RungPoint, default_rungs  # noqa: E402
from search.stopping.mo_asha import NUM_BANDS, REDUCTION_FACTOR, MoAsha  # noqa: E402
from search.study import StudyLoop  # noqa: E402
from sharedattn.backbones import describe, resolve  # noqa: E402
from sharedattn.cost import CostModel  # noqa: E402
from sharedattn.data import DataConfig, open_data  # noqa: E402
from sharedattn.placement import NetworkSpec, Placement  # noqa: E402
from sharedattn.recipe import RECIPES  # noqa: E402
from sharedattn.training import train  # noqa: E402
from spaces.budget import CountedSpace  # noqa: E402
from spaces.space import Space  # noqa: E402

IntArray = NDArray[np.int64]

OBJECTIVES = parse_objectives(("top1", "macs"))
NUM_TRIALS = 60
NUM_DRAWS = 2000  # of trials that are stopped at random
NUM_ORDERS = 50  # of trials, to choose the constants by
EPOCHS = 6
# Half as many more epochs, in batches half as large: at 35 steps an epoch no network has learnt
# anything when it is judged first.
_ONE_CYCLE = RECIPES["digit-pairs"].with_changes(epochs=EPOCHS, batch_size=64)
SCHEDULES = {
    "one-cycle": _ONE_CYCLE,
    "one-cycle-averaged": replace(_ONE_CYCLE, ema_decay=0.95),
    "restarts": replace(_ONE_CYCLE, rungs=default_rungs(EPOCHS), restarts=True),
    "constant-averaged": replace(
        _ONE_CYCLE, schedule="constant", warmup_epochs=0.4, ema_decay=0.95
    ),
}
MAIN_SCHEDULE = "one-cycle"


def embedded_space() -> CountedSpace:
    return CountedSpace(Space.load("digit-pairs-vit"))


def proposals(space: CountedSpace, seed: int, count: int) -> list[Placement]:
    """What the study loop evaluates in a random search: the backbone, then unseen draws."""
    searcher = SEARCHERS["random"](
        space, OBJECTIVES, seed=seed, num_trials=count, study_attributes={}
    )
    depths = [stage.max_depth for stage in describe(space.space.backbone).stages]
    found = [Placement.all_vanilla(depths)]
    while len(found) < count:
        attempts = (searcher.propose(len(found), i).placement for i in itertools.count())
        found.append(next(placement for placement in attempts if placement not in found))
    return found


def table_path(folder: Path, schedule: str, seed: int) -> Path:
    return folder / f"{schedule}-{seed}.json"


def read_table(path: Path) -> dict[str, list[float]]:
    table: dict[str, list[float]] = json.loads(path.read_text()) if path.is_file() else {}
    return table


def train_tables(folder: Path, schedules: Sequence[str], seeds: Sequence[int], count: int) -> None:
    """Add the learning curves that are missing, one training after the other."""
    torch.set_num_threads(1)
    space = embedded_space()
    backbone = space.space.backbone
    data = open_data(
        DataConfig(
            name="digit-pairs",
            image_size=describe(backbone).image_size,
            in_chans=backbone.in_chans,
        )
    )
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [
        (seed, placement, schedule)
        for seed in seeds
        for placement in proposals(space, seed, count)
        for schedule in schedules
    ]
    for number, (seed, placement, schedule) in enumerate(wanted, start=1):
        path = table_path(folder, schedule, seed)
        table = read_table(path)
        if str(placement) not in table:
            training = train(
                resolve(NetworkSpec(backbone, placement)),
                data,
                SCHEDULES[schedule],
                seed=seed,
                validate_at=range(1, EPOCHS),
            )
            metrics = [epoch.validation for epoch in training.curve]
            table[str(placement)] = [m.top1 for m in metrics if m is not None]
            write_whole(path, json.dumps(table, indent=0).encode())
        print(f"\r{number}/{len(wanted)} trainings", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def schedules_document(folder: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """How well each epoch ranks placements as the last does, where all schedules have them."""
    rows: dict[str, Any] = {}
    for schedule in SCHEDULES:
        taus = []
        curves_of_all = []
        for seed in seeds:
            tables = {name: read_table(table_path(folder, name, seed)) for name in SCHEDULES}
            common = sorted(set.intersection(*(set(table) for table in tables.values())))
            curves = np.array([tables[schedule][text] for text in common])  # (placements, epochs)
            taus.append([kendalltau(rung, curves[:, -1]).statistic for rung in curves.T])
            curves_of_all.append(curves)
        curves = np.concatenate(curves_of_all)
        rows[schedule] = {
            "placements": len(curves),
            "kendall_tau_by_epoch": np.mean(taus, axis=0).tolist(),
            "final_top1": {"mean": curves[:, -1].mean(), "best": curves[:, -1].max()},
        }
    return {"rungs": list(default_rungs(EPOCHS)), "schedules": rows, "provenance": provenance()}


def constants_document(folder: Path, seeds: Sequence[int], schedule: str) -> dict[str, Any]:
    """What MO-ASHA saves and loses with each choice of its constants, over orders of trials."""
    space = embedded_space()
    costs = CostModel(space.space.backbone)
    rows = []
    for reduction_factor, num_bands in itertools.product((2, 3, 4), (1, 2, 3, 4)):
        rule = MoAsha(
            macs_range=space.macs_range,
            rungs=default_rungs(EPOCHS),
            reduction_factor=reduction_factor,
            num_bands=num_bands,
        )
        found = []
        for seed in seeds:
            table = read_table(table_path(folder, schedule, seed))
            macs = np.array([costs.totals(Placement.parse(text)).macs for text in table])
            curves = np.array(list(table.values()))  # (trials, epochs)
            points = np.stack([curves[:, -1], macs], axis=1)
            full = volume(space, points)
            rng = random.Random(seed)
            for _ in range(NUM_ORDERS):
                order = rng.sample(range(len(macs)), len(macs))
                epochs = epochs_under(rule, curves, macs, order)
                complete = np.flatnonzero(epochs == EPOCHS)
                drawn = rng.sample(range(len(macs)), len(complete))
                share = (epochs * macs).sum() / (EPOCHS * macs.sum())
                regrets = (full - volume(space, points[chosen]) for chosen in (complete, drawn))
                found.append((share, *regrets))
        share, regret, random_regret = np.mean(found, axis=0).tolist()
        rows.append(
            {
                "reduction_factor": reduction_factor,
                "num_bands": num_bands,
                "compute_share": share,
                "regret": regret,
                "random_regret": random_regret,
            }
        )
    return {"schedule": schedule, "orders": NUM_ORDERS, "rows": rows, "provenance": provenance()}


def epochs_under(
    rule: MoAsha, curves: FloatArray, macs: IntArray, order: Sequence[int]
) -> IntArray:
    """Epochs that each trial is trained for when they run one after the other in this order."""
    epochs = np.full(len(macs), EPOCHS)
    seen: dict[int, list[RungPoint]] = {rung: [] for rung in rule.rungs}
    for number in order:
        for rung in rule.rungs:
            point = RungPoint(number, float(curves[number, rung - 1]), int(macs[number]))
            goes_on = rule.goes_on(point, rung, seen[rung])
            seen[rung].append(point)
            if not goes_on:
                epochs[number] = rung
                break
    return epochs


def reference_point(space: CountedSpace) -> dict[str, float]:
    """Accuracy of chance, and 1.1 times the most MACs, as a search has it."""
    return {
        "top1": 1.0 / space.space.backbone.num_classes,
        "macs": REFERENCE_FACTOR * space.macs_range[1],
    }


def volume(space: CountedSpace, points: FloatArray) -> float:
    return hypervolume(points, OBJECTIVES, reference_point(space))


class InProcess(Executor):
    """One slot in this process."""

    num_slots = 1

    def __init__(self, evaluator: TableEvaluator) -> None:
        self._evaluator = evaluator
        self._held: tuple[int, Generator[Report, None, Measurement]] | None = None

    @property
    def num_free(self) -> int:
        return int(self._held is None)

    def submit(self, ticket: int, task: Task) -> None:
        self._held = ticket, self._evaluator.evaluate(task)

    def wait(self, timeout_s: float | None = None) -> list[tuple[int, Event]]:
        assert self._held is not None
        ticket, evaluation = self._held
        event = advance(evaluation, 1)
        if not isinstance(event, Reported):
            self._held = None
        return [(ticket, event)]

    def go_on(self, ticket: int) -> None:
        pass

    def stop(self, ticket: int) -> None:
        self._held = None

    def close(self) -> None:
        self._held = None


class RayAsha(EarlyStopping):
    """Ray's own scheduler, asked report by report; one of its brackets holds every trial.

    Its rungs stand at the powers of the reduction factor.
    """

    name = "ray-asha"

    def __init__(self, reduction_factor: int) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler

        self._scheduler: Any = AsyncHyperBandScheduler(
            time_attr="epoch",
            metric="top1",
            mode="max",
            max_t=EPOCHS,
            reduction_factor=reduction_factor,
        )
        self._trials: dict[int, Any] = {}
        powers = (reduction_factor**power for power in itertools.count())
        self.rungs = tuple(itertools.takewhile(lambda epoch: epoch < EPOCHS, powers))

    def document(self) -> dict[str, Any]:
        return {"name": self.name}

    def goes_on(self, trial: RungPoint, epoch: int, peers: Sequence[RungPoint]) -> bool:
        if trial.number not in self._trials:
            self._trials[trial.number] = SimpleNamespace(trial_id=str(trial.number))
            self._scheduler.on_trial_add(None, self._trials[trial.number])
        result = {"epoch": epoch, "top1": trial.top1}
        answer = self._scheduler.on_trial_result(None, self._trials[trial.number], result)
        return bool(answer == self._scheduler.CONTINUE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a policy has come to on one seed.

    Attributes:
        epochs_by_trial: epochs that each trial was trained for, by number.
        hypervolume: of the front of complete trials.
    """

    epochs_by_trial: tuple[int, ...]
    hypervolume: float


class Replay:
    """The study loop over the trainings of one seed.

    Args:
        space: the embedded space.
        path: the seed's table.
        seed: of the random searcher.
    """

    def __init__(self, space: CountedSpace, path: Path, seed: int) -> None:
        self._space = space
        self._seed = seed
        self._table = TableEvaluator.load(path, describe(space.space.backbone).image_size)
        costs = CostModel(space.space.backbone)
        placements = proposals(space, seed, NUM_TRIALS)
        self.macs = np.array([costs.totals(placement).macs for placement in placements])
        self.top1 = np.array([self._table.curves[str(p)][-1] for p in placements])

    def run(self, stopping: EarlyStopping | None, rungs: tuple[int, ...] = ()) -> Outcome:
        """A whole search under a policy."""
        evaluator = replace(self._table, rungs=rungs)
        record = StudyRecord(
            name="replay",
            fingerprint_document={},
            space={},
            data={},
            recipe={},
            objectives=tuple(objective.name for objective in OBJECTIVES),
            searcher="random",
            seed=self._seed,
            reference_point=reference_point(self._space),
            provenance={},
            num_trials=NUM_TRIALS,
            confirm_seeds=1,
        )
        with (
            tempfile.TemporaryDirectory() as folder,
            Store.open(f"sqlite:///{folder}/replay.db", create=True) as store,
        ):
            study = store.get_or_create_study(record)
            with store.drive(study) as driver, InProcess(evaluator) as executor:
                StudyLoop(
                    store=store,
                    driver=driver,
                    study=study,
                    space=self._space,
                    objectives=OBJECTIVES,
                    evaluator=evaluator,
                    searcher=SEARCHERS["random"](
                        self._space,
                        OBJECTIVES,
                        seed=self._seed,
                        num_trials=NUM_TRIALS,
                        study_attributes={},
                    ),
                    executor=executor,
                    deterministic=False,
                    stopping=stopping,
                ).run()
            summary = StudySummary.read(store, study)
            stopped = {r.number: r.epoch for r in store.rung_reports(study) if not r.goes_on}
        rows = [row for row in summary.rows if row.role is TrialRole.SEARCH]
        assert all(row.state is not TrialState.FAILED for row in rows)
        assert [row.macs for row in rows] == self.macs.tolist()
        return Outcome(
            epochs_by_trial=tuple(stopped.get(row.number, EPOCHS) for row in rows),
            hypervolume=summary.hypervolume,
        )

    def random_hypervolume(self, like: Outcome) -> float:
        """Mean hypervolume where as many trials stop at each rung, whichever they are."""
        num_complete = like.epochs_by_trial.count(EPOCHS)
        points = np.stack([self.top1, self.macs], axis=1)
        rng = random.Random(self._seed)
        return statistics.mean(
            volume(self._space, points[rng.sample(range(NUM_TRIALS), num_complete)])
            for _ in range(NUM_DRAWS)
        )


def replay_seed(
    space: CountedSpace, path: Path, seed: int, rules: dict[str, Callable[[], MoAsha | RayAsha]]
) -> dict[str, Any]:
    """Every policy on the trainings of one seed."""
    replay = Replay(space, path, seed)
    full = replay.run(None)
    document: dict[str, Any] = {"seed": seed, "full_hypervolume": full.hypervolume}
    for name, make in rules.items():
        rule = make()
        outcome = replay.run(rule, rule.rungs)
        epochs = np.array(outcome.epochs_by_trial)
        at_random = full.hypervolume - replay.random_hypervolume(outcome)
        document[name] = {
            "trials_by_epochs": {str(e): n for e, n in sorted(Counter(epochs.tolist()).items())},
            "epochs_share": float(epochs.sum() / (EPOCHS * NUM_TRIALS)),
            "compute_share": float((epochs * replay.macs).sum() / (EPOCHS * replay.macs.sum())),
            "regret": full.hypervolume - outcome.hypervolume,
            "random_regret": at_random,
        }
    return document


def replay_document(folder: Path, seeds: Sequence[int], schedule: str) -> dict[str, Any]:
    """Every policy on every seed, and their means."""
    space = embedded_space()
    rules: dict[str, Callable[[], MoAsha | RayAsha]] = {
        "mo-asha": lambda: MoAsha(macs_range=space.macs_range, rungs=default_rungs(EPOCHS)),
        "ray-asha": lambda: RayAsha(REDUCTION_FACTOR),
    }
    by_seed = [
        replay_seed(space, table_path(folder, schedule, seed), seed, rules) for seed in seeds
    ]
    totals: dict[str, Any] = {}
    for name in rules:
        means = {
            figure: statistics.mean(document[name][figure] for document in by_seed)
            for figure in ("epochs_share", "compute_share", "regret", "random_regret")
        }
        totals[name] = {
            **means,
            "times_less_compute": 1 / means["compute_share"],
            "regret_to_random": means["regret"] / means["random_regret"],
        }
    return {
        "schedule": schedule,
        "epochs": EPOCHS,
        "rungs": list(default_rungs(EPOCHS)),
        "reduction_factor": REDUCTION_FACTOR,
        "num_bands": NUM_BANDS,
        "trials": NUM_TRIALS,
        "totals": totals,
        "by_seed": by_seed,
        "provenance": provenance(),
    }


def print_schedules(document: dict[str, Any]) -> None:
    rungs = document["rungs"]
    print(
        f"{'schedule':20} {'placements':>10}  final top1 mean, best   Kendall tau with the final"
    )
    for name, row in document["schedules"].items():
        taus = ", ".join(f"{row['kendall_tau_by_epoch'][e - 1]:+.2f} at epoch {e}" for e in rungs)
        final = row["final_top1"]
        print(
            f"{name:20} {row['placements']:>10}  {final['mean']:.4f}, {final['best']:.4f}", end=""
        )
        print(f"          {taus}")


def print_constants(document: dict[str, Any]) -> None:
    for row in document["rows"]:
        print(
            f"eta {row['reduction_factor']}, {row['num_bands']} bands: "
            f"{1 / row['compute_share']:.2f} times less compute, regret {row['regret']:.5f}, "
            f"{row['regret'] / row['random_regret']:.2f} of random stopping's"
        )


def print_replay(document: dict[str, Any]) -> None:
    print(
        f"{document['trials']} trials of {document['epochs']} epochs, rungs {document['rungs']}, "
        f"eta {document['reduction_factor']:g}, {document['num_bands']} bands"
    )
    for row in document["by_seed"]:
        for name in document["totals"]:
            found = row[name]
            print(
                f"seed {row['seed']:<4} {name:9} trials by epochs {found['trials_by_epochs']}, "
                f"compute {found['compute_share']:.3f}, regret {found['regret']:.5f}, "
                f"random's {found['random_regret']:.5f}"
            )
    for name, found in document["totals"].items():
        print(
            f"{name}: {found['times_less_compute']:.2f} times less compute in MACs (target at "
            f"least 2.5), {1 / found['epochs_share']:.2f} in epochs; regret "
            f"{found['regret']:.5f}, {found['regret_to_random']:.2f} of random stopping's "
            f"{found['random_regret']:.5f} (target at most 0.25)"
        )


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("train", "schedules", "constants", "replay"):
        command = commands.add_parser(name)
        command.add_argument("folder", type=Path)
        seeds = [0, 1, 2, 3, 4] if name in ("train", "replay") else [100]
        command.add_argument("--seeds", type=_numbers, default=seeds)
        if name == "train":
            command.add_argument("--schedules", default=MAIN_SCHEDULE)
            command.add_argument("--trials", type=int, default=NUM_TRIALS)
        else:
            command.add_argument("--json", action="store_true")
        if name in ("constants", "replay"):
            command.add_argument("--schedule", default=MAIN_SCHEDULE)
    arguments = parser.parse_args()
    folder, seeds = arguments.folder, arguments.seeds
    if arguments.command == "train":
        train_tables(folder, arguments.schedules.split(","), seeds, arguments.trials)
        return
    if arguments.command == "schedules":
        document, show = schedules_document(folder, seeds), print_schedules
    elif arguments.command == "constants":
        document, show = constants_document(folder, seeds, arguments.schedule), print_constants
    else:
        document, show = replay_document(folder, seeds, arguments.schedule), print_replay
    if arguments.json:
        print(json.dumps(document, indent=2))
    else:
        show(document)


if __name__ == "__main__":
    main()
