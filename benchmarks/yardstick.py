"""Whether an embedded task needs its layers: what placements reach when trained for long.

    python benchmarks/yardstick.py [--rows FILE] [--workers 2] [--print-only] [--json]
        [--supernet-seeds 0,1]

Trains placements spread over MACs on three seeds, each twice: for as long as it helps, and as long
as a trial of a search. It prints the placements by MACs and three figures, each with its target:

- what half the MACs cost: the best of all less the best of those that have no more MACs than the
  first half of the all-vanilla network's layers, in points of validation top-1. With the embedding
  and the head that is a little more than half of its MACs;
- what the cheapest placement that mixes tokens lacks to the best of all;
- how well a trial ranks placements as the long trainings do: Kendall's tau of a trial's accuracy
  with the long mean, a mean over seeds. Beside it stand those of MACs and params, which cost
  nothing.

With `--supernet-seeds` it also trains supernets of the task, by its recipe, and prints how well
each ranks the placements.

Some placements are also trained for other numbers of epochs, which shows how long helps. Every
finished training is a line of FILE; run again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from inherited import inherited_top1
from rank_correlation import Estimate, estimate_mean_tau, estimate_tau, kendall_tau
from trained_rows import (
    TABLES,
    EmbeddedTrainings,
    Job,
    Rows,
    add_options,
    train_all,
    whole_numbers,
)

from sharedattn.backbones import describe
from sharedattn.placement import Placement
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.stratified import StratifiedSampler
from sharedattn.supernet.trainer import SUPERNET_RECIPES

TASK = "digit-count"
LONG_EPOCHS = 64
SEEDS = (0, 1, 2)
NUM_PLACEMENTS = 30
NUM_STRATA = 9
# Always among the placements: the cheapest that mixes, the all-vanilla network and its parts, and
# what mixes kinds well within half the MACs, so that the half is not poor for want of a good draw.
NAMED = (
    "V4",
    "E1V1/s8/dia1/cb",
    "V2",
    "N1/cb",
    "E1/s8/dia1/cb",
    "N1E1V2/s8/dia1/cb3",
    "V1",
    "N1V1N1/dia1/cb2",
    "V3",
    "V2/dia1/cb",
    "N1V1/dia1/cb",
    "V1E1/s16/cb",
)
GROWING = ("N1/cb", "E1/s8/dia1/cb", "V2", "V4", "N1E1V2/s8/dia1/cb3")
GROWING_SEED = 0
NUM_CURVE_POINTS = 8

HALF_COSTS_POINTS = 1.5  # at least, of the best of all
CHEAPEST_LACKS_POINTS = 8.0
TRIALS_TAU = 0.6


class Bench(EmbeddedTrainings):
    """What is trained, on what, how.

    Args:
        task: name of the embedded data, of its recipe, and with `-vit` of its space.
        long_epochs: of the long trainings.
        trial_epochs: of a search's trial; None: of the recipe.
        num_placements: of the table.
        seeds: of every placement.

    Attributes:
        placements: of the table, by ascending MACs.
        trial_epochs: of a search's trial.
        long_epochs: of the long trainings.
        seeds: of every placement.
        half_macs: MACs of the first half of the all-vanilla network's layers.
    """

    def __init__(
        self,
        task: str,
        *,
        long_epochs: int = LONG_EPOCHS,
        trial_epochs: int | None = None,
        num_placements: int = NUM_PLACEMENTS,
        seeds: Sequence[int] = SEEDS,
    ) -> None:
        super().__init__(task)
        self.long_epochs = long_epochs
        self.trial_epochs = trial_epochs or self._recipe.epochs
        self.seeds = tuple(seeds)
        halves = [stage.max_depth // 2 for stage in describe(self.backbone).stages]
        self.half_macs = self.macs(str(Placement.all_vanilla(halves)))
        self.placements = sorted(_placements(self.space, num_placements), key=self.macs)

    def jobs(self) -> list[Job]:
        """Every training, seed by seed, named placements first: a part of them is a table too."""
        named = [placement for placement in NAMED if placement in self.placements]
        ordered = [*named, *(p for p in self.placements if p not in NAMED)]
        jobs: dict[Job, None] = {}
        for seed in self.seeds:
            for placement in ordered:
                for epochs in (self.trial_epochs, self.long_epochs):
                    jobs[Job(placement=placement, seed=seed, epochs=epochs)] = None
            if seed == GROWING_SEED:
                for epochs in self.growing_epochs():
                    for placement in self.growing():
                        jobs[Job(placement=placement, seed=seed, epochs=epochs)] = None
        return list(jobs)

    def growing(self) -> list[str]:
        """The placements that are trained at more lengths than two."""
        return [placement for placement in self.placements if placement in GROWING]

    def growing_epochs(self) -> list[int]:
        """The lengths that show how long helps: half and twice the long one, and the two."""
        lengths = {self.trial_epochs, self.long_epochs // 2, self.long_epochs}
        return sorted({*lengths, 2 * self.long_epochs} - {0})

    def validated_epochs(self, job: Job) -> range:
        """About `NUM_CURVE_POINTS` epochs, evenly."""
        step = max(1, job.epochs // NUM_CURVE_POINTS)
        return range(step, job.epochs, step)


def _placements(space: BudgetedSpace, count: int) -> list[str]:
    """The named placements, then others drawn evenly over MACs."""
    drawn = StratifiedSampler(space, NUM_STRATA).sample_many(random.Random(0), count)
    others = [str(placement) for placement in drawn if str(placement) not in NAMED]
    # Those drawn come by ascending MACs; what the named take the place of is spread over them.
    random.Random(0).shuffle(others)
    return [*NAMED, *others][:count]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One placement of the table.

    Attributes:
        placement: its text.
        macs: of one image.
        params: of the network.
        long: validation top-1 after the long training, one a seed.
        trial: the same after a trial.
    """

    placement: str
    macs: int
    params: int
    long: tuple[float, ...]
    trial: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of the long trainings."""
        return statistics.mean(self.long)

    @property
    def error(self) -> float:
        """Standard error of the mean; NaN of one seed."""
        return _standard_error(self.long)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the table comes to.

    Attributes:
        best: of all.
        best_half: of those with at most `Bench.half_macs`.
        cheapest: that mixes tokens, which every member of the space does.
        tau: of trials with long means.
        macs_tau: of MACs with long means.
        params_tau: of params with long means.
        seeds: of every placement.
    """

    best: Line
    best_half: Line
    cheapest: Line
    tau: Estimate
    macs_tau: Estimate
    params_tau: Estimate
    seeds: tuple[int, ...]

    @property
    def half_costs(self) -> float:
        """Points that half the MACs cost."""
        return _points(self.best, self.best_half)

    @property
    def cheapest_lacks(self) -> float:
        """Points that the cheapest lacks."""
        return _points(self.best, self.cheapest)


def lines_of(bench: Bench, rows: Rows) -> tuple[list[Line], tuple[int, ...]]:
    """The placements that have all trainings of the seeds that most have, by MACs.

    Returns:
        The lines; the seeds: all, or while trainings are missing the first of them.
    """
    for num_seeds in range(len(bench.seeds), 0, -1):
        seeds = bench.seeds[:num_seeds]
        lines = [
            line
            for placement in bench.placements
            if (line := _line(bench, rows, placement, seeds))
        ]
        if len(lines) == len(bench.placements) or (num_seeds == 1 and lines):
            return lines, seeds
    return [], ()


def _line(bench: Bench, rows: Rows, placement: str, seeds: tuple[int, ...]) -> Line | None:
    long = [rows.get(placement, seed, bench.long_epochs) for seed in seeds]
    trial = [rows.get(placement, seed, bench.trial_epochs) for seed in seeds]
    if None in long or None in trial:
        return None
    return Line(
        placement=placement,
        macs=bench.macs(placement),
        params=bench.params(placement),
        long=tuple(row.top1 for row in long if row),
        trial=tuple(row.top1 for row in trial if row),
    )


def figures_of(bench: Bench, lines: Sequence[Line], seeds: tuple[int, ...]) -> Figures | None:
    """The figures, or None of too few placements."""
    half = [line for line in lines if line.macs <= bench.half_macs]
    if len(lines) < 3 or not half:
        return None
    trials = list(zip(*(line.trial for line in lines), strict=True))
    means = [line.mean for line in lines]
    return Figures(
        best=max(lines, key=lambda line: line.mean),
        best_half=max(half, key=lambda line: line.mean),
        cheapest=min(lines, key=lambda line: line.macs),
        tau=estimate_mean_tau(trials, means, np.random.default_rng(0)),
        macs_tau=tau_of([line.macs for line in lines], lines),
        params_tau=tau_of([line.params for line in lines], lines),
        seeds=seeds,
    )


def tau_of(ranking: Sequence[float], lines: Sequence[Line]) -> Estimate:
    """Kendall's tau of a number per placement with the long means."""
    return estimate_tau(ranking, [line.mean for line in lines], np.random.default_rng(0))


def supernet_tau(bench: Bench, lines: Sequence[Line], seed: int) -> tuple[Estimate, float]:
    """How well a supernet of the task ranks placements, and its accuracy's mean over them.

    Args:
        bench: the task.
        lines: the placements.
        seed: of the supernet.
    """
    found, _, _ = inherited_top1(
        bench.space,
        bench.task,
        bench.recipe(bench.trial_epochs),
        SUPERNET_RECIPES[bench.task],
        [Placement.parse(line.placement) for line in lines],
        seed=seed,
    )
    return tau_of(found, lines), statistics.mean(found)


def _points(one: Line, other: Line) -> float:
    return 100 * (one.mean - other.mean)


def _standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def print_table(bench: Bench, rows: Rows) -> None:
    lines, seeds = lines_of(bench, rows)
    print(
        f"{len(bench.jobs()) - len(rows.missing())} of {len(bench.jobs())} trainings; "
        f"{len(lines)} of {len(bench.placements)} placements on seeds "
        f"{', '.join(map(str, seeds)) or 'none'}\n"
    )
    print(f"| placement | MACs | {bench.long_epochs} epochs | {bench.trial_epochs} epochs |")
    print("|---|---|---|---|")
    for line in lines:
        error = "" if math.isnan(line.error) else f" ± {line.error:.3f}"
        print(
            f"| `{line.placement}` | {line.macs / 1e3:.0f} k | {line.mean:.3f}{error} | "
            f"{statistics.mean(line.trial):.3f} |"
        )
    print_growth(bench, rows)
    figures = figures_of(bench, lines, seeds)
    if figures is None:
        print("\ntoo few trainings for the figures")
        return
    print_rungs(rungs_of(bench, rows, lines, seeds))
    print()
    is_whole = len(lines) == len(bench.placements) and seeds == bench.seeds
    print_figures(figures, is_whole=is_whole)


def print_growth(bench: Bench, rows: Rows) -> None:
    """What placements reach on one seed by the length of the training."""
    lengths = bench.growing_epochs()
    print(f"\n| seed {GROWING_SEED}, epochs | " + " | ".join(map(str, lengths)) + " |")
    print("|---" * (len(lengths) + 1) + "|")
    for placement in bench.growing():
        found = [rows.get(placement, GROWING_SEED, epochs) for epochs in lengths]
        print(
            f"| `{placement}` | " + " | ".join(f"{r.top1:.3f}" if r else "" for r in found) + " |"
        )


def rungs_of(
    bench: Bench, rows: Rows, lines: Sequence[Line], seeds: Sequence[int]
) -> list[tuple[int, float, Estimate]]:
    """How well accuracies on the way of a trial rank placements, as early stopping judges them.

    Returns:
        The epochs at which trials were validated; Kendall's tau, a mean over seeds, of the
        accuracy there with that at the trial's end; and with the long means.
    """
    trials = [
        [rows.get(line.placement, seed, bench.trial_epochs) for line in lines] for seed in seeds
    ]
    found = []
    for epoch in bench.validated_epochs(
        Job(placement=lines[0].placement, seed=0, epochs=bench.trial_epochs)
    ):
        then = [[dict(row.curve)[epoch] for row in of_seed if row] for of_seed in trials]
        ends = [[row.top1 for row in of_seed if row] for of_seed in trials]
        with_end = [kendall_tau(one, end) for one, end in zip(then, ends, strict=True)]
        means = [line.mean for line in lines]
        with_long = estimate_mean_tau(then, means, np.random.default_rng(0))
        found.append((epoch, statistics.mean(with_end), with_long))
    return found


def print_rungs(rungs: Iterable[tuple[int, float, Estimate]]) -> None:
    """What `rungs_of` returns, as a table."""
    print("\n| epoch of a trial | tau with its end | tau with long trainings |\n|---|---|---|")
    for epoch, with_end, with_long in rungs:
        print(f"| {epoch} | {with_end:.2f} | {with_long} |")


def print_figures(figures: Figures, *, is_whole: bool = True) -> None:
    """The three figures, each with its target; of a part of the table, without a verdict."""
    best, half, cheapest = figures.best, figures.best_half, figures.cheapest
    for value, target, text in (
        (
            figures.half_costs,
            HALF_COSTS_POINTS,
            f"{figures.half_costs:.1f} ± {_error_of_difference(best, half):.1f} points from "
            f"{best.placement} to {half.placement}, the best within half the layers' MACs",
        ),
        (
            figures.cheapest_lacks,
            CHEAPEST_LACKS_POINTS,
            f"{figures.cheapest_lacks:.1f} ± {_error_of_difference(best, cheapest):.1f} points "
            f"from it to {cheapest.placement}, the cheapest",
        ),
        (
            figures.tau.value,
            TRIALS_TAU,
            f"Kendall's tau of trials with long trainings {figures.tau}",
        ),
    ):
        reached = "REACHED" if value >= target else "missed"
        if not is_whole:
            reached = "open, the table is not whole"
        print(f"{text} (target at least {target:g}): {reached}")
    print(f"the same of MACs {figures.macs_tau}, of params {figures.params_tau}")


def _error_of_difference(one: Line, other: Line) -> float:
    """Standard error, in points, of the mean over seeds of the difference."""
    return 100 * _standard_error([a - b for a, b in zip(one.long, other.long, strict=True)])


def document_of(bench: Bench, rows: Rows) -> dict[str, Any]:
    """The table and the figures, as a JSON document."""
    lines, seeds = lines_of(bench, rows)
    figures = figures_of(bench, lines, seeds)
    return {
        "trainings": len(bench.jobs()) - len(rows.missing()),
        "of": len(bench.jobs()),
        "long_epochs": bench.long_epochs,
        "trial_epochs": bench.trial_epochs,
        "seeds": seeds,
        "placements": [asdict(line) for line in lines],
        "figures": None
        if figures is None
        else {
            "half_costs_points": figures.half_costs,
            "cheapest_lacks_points": figures.cheapest_lacks,
            "trials_tau": figures.tau.to_json(),
            "macs_tau": figures.macs_tau.to_json(),
            "params_tau": figures.params_tau.to_json(),
            "best": figures.best.placement,
            "best_half": figures.best_half.placement,
            "cheapest": figures.cheapest.placement,
        },
    }


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default=TASK)
    parser.add_argument("--long-epochs", type=int, default=LONG_EPOCHS)
    parser.add_argument("--trial-epochs", type=int, help="default: those of the recipe")
    parser.add_argument("--supernet-seeds", type=whole_numbers, default=())
    add_options(parser, num_placements=NUM_PLACEMENTS, seeds=SEEDS)
    given = parser.parse_args(None if arguments is None else list(arguments))
    make = partial(
        Bench,
        given.task,
        long_epochs=given.long_epochs,
        trial_epochs=given.trial_epochs,
        num_placements=given.placements,
        seeds=given.seeds,
    )
    bench = make()
    rows = Rows(given.rows or TABLES / f"yardstick-{given.task}.jsonl", bench)
    if not given.print_only:
        train_all(rows, make, given.workers)
    if given.json:
        print(json.dumps(document_of(bench, rows), indent=2))
    else:
        print_table(bench, rows)
    lines, _ = lines_of(bench, rows)
    for seed in given.supernet_seeds if lines else ():
        tau, mean = supernet_tau(bench, lines, seed)
        print(f"the same of the supernet of seed {seed} {tau}; its accuracies' mean is {mean:.3f}")


if __name__ == "__main__":
    main()
