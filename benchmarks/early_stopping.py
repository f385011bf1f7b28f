"""Savings and losses of early stopping, by replaying policies over complete trainings.

    python benchmarks/early_stopping.py replay FOLDER [--seeds 0,1,2,3,4] [--json]
    python benchmarks/early_stopping.py constants FOLDER [--seeds 0,1,2,3,4] [--placements 32]

FOLDER holds the learning curves from `trained_table.py`: the same placements for each seed.
`replay` runs the study loop over those of each seed, the published backbone first and the others
in an order shuffled by the seed, under each policy: full training, MO-ASHA, and Ray's ASHA, which
sees only accuracy; each stopping policy is compared with random stopping of as many trials at each
rung. `constants` evaluates MO-ASHA's rule alone, with other constants and over many orders of the
first placements.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

warnings.filterwarnings("ignore", message=".*torch.jit.*")

import numpy as np  # noqa: E402 (the warning is timm's, at import)
from scipy.stats import kendalltau  # type: ignore[import-untyped]  # noqa: E402
from trained_table import EPOCHS, SEEDS, Table, embedded_space, read_tables  # noqa: E402

from sharedattn.backbones import describe  # noqa: E402
from sharedattn.costs.model import CostModel  # noqa: E402
from sharedattn.objectives import parse_objectives  # noqa: E402
from sharedattn.placement import Placement  # noqa: E402
from sharedattn.results.database.store import Store  # noqa: E402
from sharedattn.results.front.pareto import FloatArray, hypervolume  # noqa: E402
from sharedattn.results.front.summary import StudySummary  # noqa: E402
from sharedattn.results.records import (  # noqa: E402
    EpochMetrics,
    StudyRecord,
    TrialRole,
    TrialState,
)
from sharedattn.search.evaluators import Measurement, Task  # noqa: E402
from sharedattn.search.evaluators.table import TableEvaluator  # noqa: E402
from sharedattn.search.executors import Event, Executor, Reported, advance  # noqa: E402
from sharedattn.search.provenance import provenance  # noqa: E402
from sharedattn.search.pruners import Pruner, RungPoint, default_rungs  # noqa: E402
from sharedattn.search.pruners.mo_asha import REDUCTION_FACTOR, MoAsha  # noqa: E402
from sharedattn.search.run import REFERENCE_FACTOR  # noqa: E402
from sharedattn.search.searchers.base import PastTrial, Proposal, Searcher  # noqa: E402
from sharedattn.search.study.loop import StudyLoop  # noqa: E402
from sharedattn.spaces.budget import BudgetedSpace  # noqa: E402

OBJECTIVES = parse_objectives(("top1", "macs"))
NUM_DRAWS = 2000  # random choices of the trials to stop
NUM_ORDERS = 100  # orders of trials for each choice of constants
NUM_PILOTS = 32  # placements used to choose constants
RAY_REDUCTION_FACTOR = 3


def reference_point(space: BudgetedSpace) -> dict[str, float]:
    """Chance accuracy and 1.1 times the most MACs, as in a search."""
    return {
        "top1": 1.0 / space.space.backbone.num_classes,
        "macs": REFERENCE_FACTOR * space.macs_range[1],
    }


def volume(space: BudgetedSpace, points: FloatArray) -> float:
    return hypervolume(points, OBJECTIVES, reference_point(space))


class InProcess(Executor):
    """One slot in this process."""

    num_slots = 1

    def __init__(self, evaluator: TableEvaluator) -> None:
        self._evaluator = evaluator
        self._held: tuple[int, Generator[EpochMetrics, None, Measurement]] | None = None

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


class RayAsha(Pruner):
    """Ray's own scheduler, called report by report, with all trials in one bracket.

    Its rungs are the powers of the reduction factor.
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

    def should_prune(self, trial: RungPoint, epoch: int, peers: Sequence[RungPoint]) -> bool:
        if trial.number not in self._trials:
            self._trials[trial.number] = SimpleNamespace(trial_id=str(trial.number))
            self._scheduler.on_trial_add(None, self._trials[trial.number])
        result = {"epoch": epoch, "top1": trial.top1}
        answer = self._scheduler.on_trial_result(None, self._trials[trial.number], result)
        return bool(answer != self._scheduler.CONTINUE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Result of a policy on one seed.

    Attributes:
        epochs_by_trial: number of epochs that each trial was trained, by trial number.
        hypervolume: hypervolume of the front of complete trials.
    """

    epochs_by_trial: tuple[int, ...]
    hypervolume: float


class ListedSearcher(Searcher):
    """Proposes placements in the order of a list."""

    name = "listed"

    def __init__(self, space: BudgetedSpace, placements: Sequence[Placement], seed: int) -> None:
        super().__init__(
            space, OBJECTIVES, seed=seed, num_trials=len(placements), study_attributes={}
        )
        self._placements = placements

    def ask(self, number: int, attempt: int) -> Proposal:
        return Proposal(placement=self._placements[number])

    def accept(self, trial: PastTrial, parameters: Mapping[str, Any] | None = None) -> None:
        pass

    def tell(self, trial: PastTrial) -> None:
        pass


class Replay:
    """The study loop over the trainings of one seed.

    Args:
        space: the embedded space.
        table: the seed's table.
        seed: seed that shuffles all trials except the first.
    """

    def __init__(self, space: BudgetedSpace, table: Table, seed: int) -> None:
        self._space = space
        self._seed = seed
        first, *others = map(Placement.parse, table)
        random.Random(seed).shuffle(others)
        self._placements = [first, *others]
        self._evaluator = TableEvaluator(
            {text: tuple(curve) for text, curve in table.items()},
            describe(space.space.backbone).image_size,
        )
        costs = CostModel(space.space.backbone)
        self.macs = np.array([costs.totals(p).macs for p in self._placements])
        self.top1 = np.array([table[str(p)][-1] for p in self._placements])

    def run(self, stopping: Pruner | None, rungs: tuple[int, ...] = ()) -> Outcome:
        """Run a whole search under a policy."""
        evaluator = replace(self._evaluator, rungs=rungs)
        record = StudyRecord(
            name="replay",
            fingerprint_document={},
            space={},
            data={},
            recipe={},
            objectives=tuple(objective.name for objective in OBJECTIVES),
            searcher=ListedSearcher.name,
            seed=self._seed,
            reference_point=reference_point(self._space),
            provenance={},
            num_trials=len(self._placements),
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
                    searcher=ListedSearcher(self._space, self._placements, self._seed),
                    executor=executor,
                    deterministic=False,
                    pruner=stopping,
                ).run()
            summary = StudySummary.read(store, study)
            reports = store.trials.rung_reports(study)
            stopped = {row.number: row.metrics.epoch for row in reports if not row.goes_on}
        rows = [row for row in summary.rows if row.role is TrialRole.SEARCH]
        assert all(row.state is not TrialState.FAILED for row in rows)
        assert [row.macs for row in rows] == self.macs.tolist()
        return Outcome(
            epochs_by_trial=tuple(stopped.get(row.number, EPOCHS) for row in rows),
            hypervolume=summary.hypervolume,
        )

    def over_orders(self, rule: MoAsha, num_orders: int) -> Iterator[tuple[float, float, float]]:
        """Share of compute, regret and regret of random stopping, for several orders of trials."""
        rng = random.Random(self._seed)
        points = np.stack([self.top1, self.macs], axis=1)
        full = volume(self._space, points)
        for _ in range(num_orders):
            numbers = range(len(points))
            order = [0, *rng.sample(numbers[1:], len(points) - 1)]
            epochs = self._epochs_under(rule, order)
            complete = np.flatnonzero(epochs == EPOCHS)
            share = (epochs * self.macs).sum() / (EPOCHS * self.macs.sum())
            regret = full - volume(self._space, points[complete])
            yield (
                float(share),
                regret,
                full - self._random_volume(rng, len(complete), num_draws=10),
            )

    def _epochs_under(self, rule: MoAsha, order: Sequence[int]) -> FloatArray:
        """Epochs of each trial, by number, if trials run one after the other in this order."""
        epochs = np.full(len(order), EPOCHS)
        seen: dict[int, list[RungPoint]] = {rung: [] for rung in rule.rungs}
        for number in order:
            curve = self._evaluator.curves[str(self._placements[number])]
            for rung in rule.rungs:
                point = RungPoint(number, curve[rung - 1], int(self.macs[number]))
                is_pruned = rule.should_prune(point, rung, seen[rung])
                seen[rung].append(point)
                if is_pruned:
                    epochs[number] = rung
                    break
        return epochs

    def random_hypervolume(self, like: Outcome) -> float:
        """Mean hypervolume if as many random trials stop at each rung."""
        num_complete = like.epochs_by_trial.count(EPOCHS)
        return self._random_volume(random.Random(self._seed), num_complete, NUM_DRAWS)

    def _random_volume(self, rng: random.Random, num_complete: int, num_draws: int) -> float:
        points = np.stack([self.top1, self.macs], axis=1)
        return statistics.mean(
            volume(self._space, points[rng.sample(range(len(points)), num_complete)])
            for _ in range(num_draws)
        )


def replay_seed(
    space: BudgetedSpace, table: Table, seed: int, rules: dict[str, Callable[[], MoAsha | RayAsha]]
) -> dict[str, Any]:
    """Run every policy on the trainings of one seed."""
    replay = Replay(space, table, seed)
    full = replay.run(None)
    document: dict[str, Any] = {"seed": seed, "full_hypervolume": full.hypervolume}
    for name, make in rules.items():
        rule = make()
        outcome = replay.run(rule, rule.rungs)
        epochs = np.array(outcome.epochs_by_trial)
        at_random = full.hypervolume - replay.random_hypervolume(outcome)
        document[name] = {
            "trials_by_epochs": {str(e): n for e, n in sorted(Counter(epochs.tolist()).items())},
            "epochs_share": float(epochs.mean() / EPOCHS),
            "compute_share": float((epochs * replay.macs).sum() / (EPOCHS * replay.macs.sum())),
            "regret": full.hypervolume - outcome.hypervolume,
            "random_regret": at_random,
        }
    return document


def replay_document(tables: dict[int, Table]) -> dict[str, Any]:
    """Results of every policy on every seed, with means."""
    space = embedded_space()
    rules: dict[str, Callable[[], MoAsha | RayAsha]] = {
        "mo-asha": lambda: MoAsha(rungs=default_rungs(EPOCHS)),
        "ray-asha": lambda: RayAsha(RAY_REDUCTION_FACTOR),
    }
    by_seed = [replay_seed(space, table, seed, rules) for seed, table in tables.items()]
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
    # (seeds, trials, epochs)
    curves = np.array([list(table.values()) for table in tables.values()])
    taus = [[kendalltau(at_epoch, of[:, -1]).statistic for at_epoch in of.T] for of in curves]
    return {
        "epochs": EPOCHS,
        "rungs": list(default_rungs(EPOCHS)),
        "reduction_factor": REDUCTION_FACTOR,
        "trials": curves.shape[1],
        "kendall_tau_by_epoch": np.mean(taus, axis=0).tolist(),
        "totals": totals,
        "by_seed": by_seed,
        "provenance": provenance(),
    }


def constants_rows(tables: dict[int, Table], num_placements: int) -> list[dict[str, Any]]:
    """Savings and losses of the rule for each choice of constants, over orders of trials."""
    space = embedded_space()
    replays = {
        seed: Replay(space, dict(itertools.islice(table.items(), num_placements)), seed)
        for seed, table in tables.items()
    }
    rows = []
    for reduction_factor in (2, 2.25, 2.5, 3, 4):
        rule = MoAsha(rungs=default_rungs(EPOCHS), reduction_factor=reduction_factor)
        found = [
            figures
            for replay in replays.values()
            for figures in replay.over_orders(rule, NUM_ORDERS)
        ]
        share, regret, random_regret = np.mean(found, axis=0).tolist()
        rows.append(
            {
                "reduction_factor": reduction_factor,
                "times_less_compute": 1 / share,
                "regret": regret,
                "random_regret": random_regret,
                "regret_to_random": regret / random_regret,
            }
        )
    return rows


def print_constants(document: dict[str, Any]) -> None:
    print(f"the first {document['trials']} placements, {NUM_ORDERS} orders on each seed")
    for row in document["rows"]:
        print(
            f"eta {row['reduction_factor']:g}: "
            f"{row['times_less_compute']:.2f} times less compute in MACs, regret "
            f"{row['regret']:.5f}, {row['regret_to_random']:.2f} of random stopping's"
        )


def print_replay(document: dict[str, Any]) -> None:
    print(
        f"{document['trials']} trials of {document['epochs']} epochs, rungs {document['rungs']}, "
        f"eta {document['reduction_factor']:g}"
    )
    taus = document["kendall_tau_by_epoch"][:-1]
    print("Kendall tau with the final accuracy, after each epoch:", *(f"{t:+.2f}" for t in taus))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("replay", "constants"):
        command = commands.add_parser(name)
        command.add_argument("folder", type=Path)
        command.add_argument("--seeds", default=",".join(map(str, SEEDS)))
        command.add_argument("--json", action="store_true")
    command.add_argument("--placements", type=int, default=NUM_PILOTS)
    arguments = parser.parse_args()
    tables = read_tables(arguments.folder, [int(seed) for seed in arguments.seeds.split(",")])
    if arguments.command == "replay":
        document, show = replay_document(tables), print_replay
    else:
        rows = constants_rows(tables, arguments.placements)
        document = {"trials": arguments.placements, "rows": rows, "provenance": provenance()}
        show = print_constants
    if arguments.json:
        print(json.dumps(document, indent=2))
    else:
        show(document)


if __name__ == "__main__":
    main()
