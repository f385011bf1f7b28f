"""PlacementBench: placements of the embedded default's space, trained with several seeds.

    python -m benchmarks.placement_bench [--task NAME] [--placements 600] [--epochs N]
        [--workers 2] [--print-only] [--json]

Trains every placement from scratch with every seed, by the task's recipe, and validates after
every epoch; with the first seed, the first `--long` placements for four times as long as well,
which shows whether the ranks hold. All of a seed comes before the next seed, so that a part is a
usable table. Then a supernet of the space is trained, and every member of the space gets its
inherited accuracy. Every finished training is a line of a file; run again, it goes on where it
was.

`placement_strata.py` chooses the placements, without chance.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))  # run as a module, by the root's path alone

import numpy as np
import numpy.typing as npt
from inherited import inherited_top1
from placement_strata import stratified
from rank_correlation import Estimate, estimate_tau, kendall_tau
from trained_rows import (
    KEY_DIGITS,
    TABLES,
    EmbeddedTrainings,
    Job,
    Rows,
    add_options,
    train_all,
)

from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.hashing import document_key
from sharedattn.objectives import OBJECTIVES
from sharedattn.results.artifacts.atomic import atomic_write
from sharedattn.results.front.pareto import non_dominated, to_losses
from sharedattn.search.data_plan import DEFAULT_DATA
from sharedattn.search.evaluation.recipes import supernet_recipe_for

NUM_PLACEMENTS = 600
SEEDS = (0, 1, 2)
NUM_LONG = 40
TIMES_LONGER = 4
SUPERNET_SEED = 0


class BenchTrainings(EmbeddedTrainings):
    """What is trained, on what, how.

    Args:
        task: as in `EmbeddedTrainings`.
        epochs: of a training; None: of the recipe, a search's trial.
        num_placements: of the table.
        seeds: of every placement.
        num_long: how many of the placements are trained for longer as well, with the first seed.

    Attributes:
        placements: of the table, in the order of their choice.
        epochs: of a training.
        long_epochs: of the longer trainings.
        long: the placements that are trained for longer as well.
        seeds: of every placement.

    Raises:
        InputError: a number of placements or epochs is out of its range, or a seed is given twice.
    """

    def __init__(
        self,
        task: str,
        *,
        epochs: int | None = None,
        num_placements: int = NUM_PLACEMENTS,
        seeds: Sequence[int] = SEEDS,
        num_long: int = NUM_LONG,
    ) -> None:
        super().__init__(task)
        self.epochs = self._recipe.epochs if epochs is None else epochs
        if self.epochs < 1:
            raise InputError(f"`--epochs` is {self.epochs}; give at least 1")
        if not 2 <= num_placements <= self.space.in_budget:
            raise InputError(
                f"`--placements` is {num_placements}; give from 2 to {self.space.in_budget}, the "
                f"size of {self.space.space.name}"
            )
        if len(set(seeds)) < len(seeds) or not seeds:
            raise InputError(f"`--seeds` is {','.join(map(str, seeds))}; give each seed once")
        self.long_epochs = TIMES_LONGER * self.epochs
        self.seeds = tuple(seeds)
        self.placements = [str(p) for p in stratified(self.space, num_placements)]
        self.long = self.placements[:num_long]

    def jobs(self) -> list[Job]:
        """Every training; all of a seed before the next."""
        first, *others = self.seeds
        return [
            *_jobs(self.placements, first, self.epochs),
            *_jobs(self.long, first, self.long_epochs),
            *(job for seed in others for job in _jobs(self.placements, seed, self.epochs)),
        ]

    def validated_epochs(self, job: Job) -> range:
        """Every epoch."""
        return range(1, job.epochs)


def _jobs(placements: Iterable[str], seed: int, epochs: int) -> list[Job]:
    return [Job(placement=placement, seed=seed, epochs=epochs) for placement in placements]


class Inherited:
    """Inherited accuracies of all members, kept in a file.

    Args:
        path: the file; it need not be there.
        bench: says which supernet, and which data.

    Attributes:
        top1: by placement; empty until a supernet is trained, or if it was another's.
    """

    def __init__(self, path: Path, bench: BenchTrainings) -> None:
        self._path = path
        self._bench = bench
        self._recipe = supernet_recipe_for(None, open_data(DataConfig(name=bench.task)), None)
        document = json.loads(path.read_text()) if path.is_file() else {}
        is_ours = {**document, **self._keys()} == document
        self.top1: dict[str, float] = document["top1"] if is_ours else {}

    def train(self) -> None:
        """Train the supernet and score all members, unless that is done."""
        if self.top1:
            return
        space = self._bench.space
        members = list(space.enumerate())
        top1, train_s, score_s = inherited_top1(
            space,
            self._bench.task,
            self._bench.recipe(self._bench.epochs),
            self._recipe,
            members,
            seed=SUPERNET_SEED,
        )
        self.top1 = dict(zip(map(str, members), top1, strict=True))
        seconds = {"train_s": round(train_s, 1), "score_s": round(score_s, 1)}
        document = {**self._keys(), **seconds, "top1": self.top1}
        atomic_write(self._path, json.dumps(document, indent=0).encode())

    def _keys(self) -> dict[str, Any]:
        return {
            "supernet_recipe": self._recipe.key[:KEY_DIGITS],
            "space": document_key(self._bench.space.space.to_document())[:KEY_DIGITS],
            "data": self._bench.data_key,
            "seed": SUPERNET_SEED,
        }


def complete_seeds(bench: BenchTrainings, rows: Rows) -> tuple[list[str], tuple[int, ...]]:
    """The placements that have trainings of the first seeds, and how many seeds that is.

    Returns:
        All placements and the seeds that all have, in order; while the first seed is not finished,
        the placements that have it, and that seed.
    """
    has = {
        seed: [p for p in bench.placements if rows.get(p, seed, bench.epochs)]
        for seed in bench.seeds
    }
    seeds: list[int] = []
    for seed in bench.seeds:
        if len(has[seed]) < len(bench.placements):
            break
        seeds.append(seed)
    if seeds:
        return bench.placements, tuple(seeds)
    first = bench.seeds[0]
    return has[first], (first,) if has[first] else ()


def top1_of(
    rows: Rows, placements: Sequence[str], seeds: Sequence[int], epochs: int
) -> npt.NDArray[np.float64]:
    """Validation top-1 at the end, (placements, seeds); NaN where a training is missing."""
    found = [[rows.get(p, seed, epochs) for seed in seeds] for p in placements]
    return np.array(
        [[math.nan if row is None else row.top1 for row in of_one] for of_one in found]
    ).reshape(len(placements), len(seeds))


def document_of(bench: BenchTrainings, rows: Rows, inherited: Inherited) -> dict[str, Any]:
    """What there is, as a JSON document; a figure that too few trainings give is None."""
    jobs, missing = bench.jobs(), rows.missing()
    placements, seeds = complete_seeds(bench, rows)
    top1 = top1_of(rows, placements, seeds, bench.epochs)
    means = top1.mean(axis=1) if seeds else np.zeros(0)
    macs = [bench.macs(placement) for placement in placements]
    rng = np.random.default_rng(0)
    return {
        "task": bench.task,
        "space": bench.space.space.name,
        "epochs": bench.epochs,
        "long_epochs": bench.long_epochs,
        "trainings": len(jobs) - len(missing),
        "of": len(jobs),
        "cpu_hours_left": cpu_hours_left(rows, jobs),
        "placements": len(placements),
        "seeds": seeds,
        "noise_points": noise_points(top1),
        "seeds_tau": seeds_tau(top1),
        "long_tau": _json_of(long_tau(bench, rows, seeds, rng)),
        "inherited_tau": _json_of(
            estimate_tau([inherited.top1[p] for p in placements], means, rng)
            if inherited.top1 and len(placements) > 2
            else None
        ),
        "front": front_of(placements, macs, means),
    }


def cpu_hours_left(rows: Rows, jobs: Sequence[Job]) -> float | None:
    """CPU hours of what is missing, by the mean of the finished trainings of each length."""
    seconds: dict[int, list[float]] = {}
    for job in jobs:
        row = rows.get(job.placement, job.seed, job.epochs)
        if row is not None:
            seconds.setdefault(job.epochs, []).append(row.cpu_s)
    if not seconds:
        return None
    per_epoch = statistics.mean(s / epochs for epochs, of in seconds.items() for s in of)
    return (
        sum(
            statistics.mean(seconds.get(job.epochs, [per_epoch * job.epochs]))
            for job in jobs
            if rows.get(job.placement, job.seed, job.epochs) is None
        )
        / 3600
    )


def noise_points(top1: npt.NDArray[np.float64]) -> float | None:
    """Standard deviation over seeds, in points, pooled over placements; None of one seed."""
    if top1.shape[1] < 2:
        return None
    return 100 * float(np.sqrt(top1.var(axis=1, ddof=1).mean()))


def seeds_tau(top1: npt.NDArray[np.float64]) -> float | None:
    """Kendall's tau of two seeds, a mean over pairs of seeds: what one training can rank."""
    pairs = list(itertools.combinations(top1.T, 2))
    return statistics.mean(kendall_tau(a, b) for a, b in pairs) if pairs else None


def long_tau(
    bench: BenchTrainings, rows: Rows, seeds: Sequence[int], rng: np.random.Generator
) -> Estimate | None:
    """Kendall's tau of means over seeds with the longer trainings; None of too few."""
    short = top1_of(rows, bench.long, seeds, bench.epochs)
    long = top1_of(rows, bench.long, bench.seeds[:1], bench.long_epochs)[:, 0]
    there = ~np.isnan(short.sum(axis=1) + long)
    if not seeds or there.sum() < 3:
        return None
    return estimate_tau(short[there].mean(axis=1), long[there], rng)


def front_of(
    placements: Sequence[str], macs: Sequence[int], means: npt.NDArray[np.float64]
) -> list[dict[str, Any]]:
    """Placements that none is better than in both accuracy and MACs, by MACs."""
    if not len(placements):
        return []
    objectives = (OBJECTIVES["top1"], OBJECTIVES["macs"])
    is_member = non_dominated(to_losses(np.column_stack([means, macs]), objectives))
    members = [
        {"placement": placements[i], "macs": macs[i], "top1": float(means[i])}
        for i in np.flatnonzero(is_member)
    ]
    return sorted(members, key=lambda member: member["macs"])


def _json_of(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else estimate.to_json()


def print_document(document: dict[str, Any]) -> None:
    left = document["cpu_hours_left"]
    print(
        f"{document['task']}, {document['epochs']} epochs: {document['trainings']} of "
        f"{document['of']} trainings"
        + ("" if not left else f", about {left:.1f} CPU hours left")
        + f"; {document['placements']} placements on seeds "
        f"{', '.join(map(str, document['seeds'])) or 'none'}\n"
    )
    print("| placement on the front | MACs | top-1 |")
    print("|---|---|---|")
    for member in document["front"]:
        print(f"| `{member['placement']}` | {member['macs'] / 1e3:.0f} k | {member['top1']:.3f} |")
    print()
    for name, text in (
        ("noise_points", "standard deviation over seeds {:.2f} points"),
        ("seeds_tau", "Kendall's tau of one seed with another {:.2f}"),
        ("long_tau", f"tau with trainings of {document['long_epochs']} epochs {{}}"),
        ("inherited_tau", "tau of inherited accuracy {}"),
    ):
        value = document[name]
        if value is None:
            print(f"{text.partition('{')[0]}: too few trainings")
        else:
            print(text.format(Estimate(**value) if isinstance(value, dict) else value))


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default=DEFAULT_DATA, help="default: a search's data")
    parser.add_argument("--epochs", type=int, help="default: those of the recipe")
    parser.add_argument("--long", type=int, default=NUM_LONG, help="placements trained longer")
    add_options(parser, num_placements=NUM_PLACEMENTS, seeds=SEEDS)
    given = parser.parse_args(None if arguments is None else list(arguments))
    make = partial(
        BenchTrainings,
        given.task,
        epochs=given.epochs,
        num_placements=given.placements,
        seeds=given.seeds,
        num_long=given.long,
    )
    path = given.rows or TABLES / f"placement-bench-{given.task}.jsonl"
    try:
        bench = make()
        rows = Rows(path, bench)
    except InputError as error:
        parser.error(str(error))
    inherited = Inherited(path.with_name(f"{path.stem}-inherited.json"), bench)
    if not given.print_only:
        train_all(rows, make, given.workers)
        inherited.train()
    document = document_of(bench, rows, inherited)
    if given.json:
        print(json.dumps(document, indent=2))
    else:
        print_document(document)


if __name__ == "__main__":
    main()
