"""What early stopping is worth to a search, and what its searcher should be told of it.

    python -m benchmarks.rung_regret [--bench FILE] [--rungs 2,5] [--seeds 20] [--epochs 960]
        [--json]

Searches the measured trainings of PlacementBench, one trial at a time, until their epochs are
spent, in four ways:

- model, whole: no trial is stopped;
- model, first rung: MO-ASHA stops trials, and `model` is told the accuracy at the first rung;
- model, every rung: it is told the accuracies at later rungs and at the end as well, as a study
  does;
- stratified: draws by bands of MACs, stopped alike.

Regret is that of `searchers.py`, of the complete trials alone, after as many epochs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))  # run as a module, by the root's path alone

import numpy as np
from answers import interval
from trained_rows import whole_numbers

from benchmarks.searcher_rows import DIGITS
from benchmarks.searcher_tables import OBJECTIVES, BenchTable
from benchmarks.searchers import parts_of
from sharedattn.results.front.pareto import hypervolume_history
from sharedattn.search.provenance import provenance
from sharedattn.search.pruners import MoAsha, RungPoint, default_rungs
from sharedattn.search.tables import SHIPPED
from sharedattn.search.tables.placement_bench import PlacementBench

PART = "measured"
WHOLE, FIRST, EVERY, CONTROL = (
    "model, whole",
    "model, first rung",
    "model, every rung",
    "stratified",
)
WAYS = (WHOLE, FIRST, EVERY, CONTROL)
TRIALS_OF_MARKS = (12, 24, 60)


@dataclass(frozen=True, slots=True)
class Spent:
    """A search's trials.

    Attributes:
        epochs: spent until each trial's end.
        regrets: of the complete trials until then.
        num_complete: number of complete trials.
    """

    epochs: tuple[int, ...]
    regrets: tuple[float, ...]
    num_complete: int

    def at(self, epochs: int) -> float:
        """The regret when some epochs are spent."""
        ended = int(np.searchsorted(self.epochs, epochs, side="right"))
        return self.regrets[ended - 1] if ended else 1.0


def search(
    bench: PlacementBench, way: str, seed: int, *, rungs: tuple[int, ...], num_epochs: int
) -> Spent:
    """Search the measured part until some epochs are spent.

    Args:
        bench: the table.
        way: one of `WAYS`.
        seed: of the search.
        rungs: where trials are stopped; of no use to the whole ones.
        num_epochs: the epochs.
    """
    table = BenchTable(bench, PART, seed)
    rule = None if way == WHOLE else MoAsha(rungs=rungs)
    num_trials = min(table.space.in_budget, num_epochs // rungs[0])
    name = CONTROL if way == CONTROL else "model"
    _, history, proposer = parts_of(table, name, seed, num_trials=num_trials, slots=1)
    points: dict[int, list[RungPoint]] = {rung: [] for rung in rungs}
    spent, ends, reached = 0, [], []
    worst = (0.0, float(table.reference["macs"]))  # adds nothing to a hypervolume
    for number in range(num_trials):
        if spent >= num_epochs:
            break
        history.tell_before(number)
        proposal = proposer.accept_next()
        assert proposal is not None
        curve = bench.curve(PART, str(proposal.placement), seed)
        macs = table.macs_of(proposal.placement)
        trained = bench.epochs if rule is None else _trained(rule, number, curve, macs, points)
        accuracies = [float(curve[rung - 1]) for rung in rungs if rung <= trained]
        if trained == bench.epochs:
            accuracies.append(float(curve[-1]))
        if rule is None:
            del accuracies[:-1]
        history.end(
            number,
            (accuracies[0], float(macs)),
            accuracies=() if way == FIRST else tuple(accuracies),
        )
        spent += trained
        ends.append(spent)
        is_complete = trained == bench.epochs
        reached.append(table.points([proposal.placement])[0] if is_complete else worst)
    volumes = hypervolume_history(np.array(reached), OBJECTIVES, table.reference)
    return Spent(
        tuple(ends),
        tuple((1.0 - volumes / table.full).tolist()),
        sum(point is not worst for point in reached),
    )


def _trained(
    rule: MoAsha,
    number: int,
    curve: np.ndarray,
    macs: int,
    points: dict[int, list[RungPoint]],
) -> int:
    """The epochs that a trial is trained for; its points at rungs are added."""
    for rung in rule.rungs:
        point = RungPoint(number, float(curve[rung - 1]), macs)
        stops = rule.should_prune(point, rung, points[rung])
        points[rung].append(point)
        if stops:
            return rung
    return len(curve)


def entries_of(
    bench: PlacementBench, *, rungs: tuple[int, ...], num_seeds: int, num_epochs: int
) -> list[dict[str, Any]]:
    """Mean regrets of each way, and its differences from whole trials and from the first rung."""
    found: dict[str, list[Spent]] = {way: [] for way in WAYS}
    for seed in range(num_seeds):
        for way in WAYS:
            found[way].append(search(bench, way, seed, rungs=rungs, num_epochs=num_epochs))
            last = found[way][-1].regrets[-1]
            print(f"seed {seed} {way}: {last:.4f}", file=sys.stderr, flush=True)
    marks = [number * bench.epochs for number in TRIALS_OF_MARKS]
    return [
        {
            "way": way,
            "trials": round(float(np.mean([len(one.epochs) for one in searches])), 1),
            "complete": round(float(np.mean([one.num_complete for one in searches])), 1),
            "regrets": {
                mark: {
                    "mean": round(float(np.mean([one.at(mark) for one in searches])), DIGITS),
                    "over_whole": _difference(searches, found[WHOLE], mark),
                    "over_first": _difference(searches, found[FIRST], mark),
                }
                for mark in marks
                if mark <= num_epochs
            },
        }
        for way, searches in found.items()
    ]


def _difference(
    searches: Sequence[Spent], others: Sequence[Spent], mark: int
) -> dict[str, float] | None:
    """The mean difference of regrets after some epochs, and half its interval."""
    if searches is others:
        return None
    off = [one.at(mark) - other.at(mark) for one, other in zip(searches, others, strict=True)]
    return {
        "mean": round(float(np.mean(off)), DIGITS),
        "half_width": round(interval(off), DIGITS),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bench", type=Path, default=SHIPPED, help="the file of PlacementBench")
    parser.add_argument("--rungs", type=whole_numbers, help="default: those of a study")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=960)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    bench = PlacementBench.load(asked.bench)
    rungs = asked.rungs or default_rungs(bench.epochs)
    entries = entries_of(bench, rungs=rungs, num_seeds=asked.seeds, num_epochs=asked.epochs)
    if asked.json:
        print(json.dumps({"rungs": rungs, "ways": entries, "provenance": provenance()}, indent=2))
        return
    print("| way | trials | complete | epochs | regret | over whole trials | over first rung |")
    print("|" + "---|" * 7)
    for one in entries:
        for mark, row in one["regrets"].items():
            compared = [
                "" if off is None else f"{off['mean']:+.4f} ± {off['half_width']:.4f}"
                for off in (row["over_whole"], row["over_first"])
            ]
            print(
                f"| {one['way']} | {one['trials']:.0f} | {one['complete']:.0f} | {mark} | "
                f"{row['mean']:.4f} | {' | '.join(compared)} |"
            )


if __name__ == "__main__":
    main()
