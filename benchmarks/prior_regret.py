"""What the accuracies of an earlier study are worth to a search that begins with them.

    python -m benchmarks.prior_regret [--bench FILE] [--seeds 20] [--trials 24] [--json]

Searches the measured trainings of PlacementBench by `model`, with nothing known, and with what
`sharedattn search --prior` would keep of an earlier study:

- inherited: accuracies of 400 members by a supernet's weights;
- short: those of 60 measured placements after a third of the epochs, other ones for each seed.
  Who has none can have as many whole trials more for their epochs, which is the control.

Regret is that of `searchers.py`. Besides, Kendall's tau of what is known with the whole trainings
says how much there is to know.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))  # run as a module, by the root's path alone

import numpy as np
from answers import interval
from rank_correlation import kendall_tau

from benchmarks.searcher_rows import DIGITS
from benchmarks.searcher_tables import BenchTable
from benchmarks.searchers import search
from sharedattn.results.accuracy_model.fitting import evenly
from sharedattn.search.provenance import provenance
from sharedattn.search.searchers.prior import PRIOR_NOTE
from sharedattn.search.tables import SHIPPED
from sharedattn.search.tables.placement_bench import PlacementBench

PART = "measured"
NONE, INHERITED, SHORT = "none", "inherited", "short"
NUM_SHORT = 60
MARKS = (8, 12, 24, 60)


def known(bench: PlacementBench, prior: str, seed: int) -> dict[str, float]:
    """The accuracies that a search begins with, by placement."""
    if prior == INHERITED:
        rows = evenly(len(bench.placements))
        return {bench.placements[i]: float(bench.inherited[i]) for i in rows}
    if prior == SHORT:
        texts = list(bench.truth(PART))
        rows = np.random.default_rng(seed).choice(len(texts), NUM_SHORT, replace=False)
        epoch = bench.epochs // 3
        return {texts[i]: float(bench.curve(PART, texts[i], seed)[epoch - 1]) for i in rows}
    return {}


def entries_of(bench: PlacementBench, *, num_seeds: int, num_trials: int) -> list[dict[str, Any]]:
    """Mean regrets of each prior after some numbers of trials, and what it adds to none.

    Returns:
        For each prior its `tau` with the whole trainings, and by number of trials in `regrets` the
        mean, and the mean difference from no prior of the same seeds with half its 95 % interval,
        after as many trials, and of `short` after as many epochs.
    """
    truth = bench.truth(PART)
    more = round(NUM_SHORT * (bench.epochs // 3) / bench.epochs)
    regrets: dict[str, list[tuple[float, ...]]] = {}
    taus: dict[str, list[float]] = {}
    for seed in range(num_seeds):
        for prior in (NONE, INHERITED, SHORT):
            found = known(bench, prior, seed)
            row = search(
                BenchTable(bench, PART, seed),
                PART,
                "model",
                seed,
                num_trials=num_trials + (more if prior == NONE else 0),
                slots=1,
                notes={PRIOR_NOTE: found},
            )
            regrets.setdefault(prior, []).append(row.regrets)
            taus.setdefault(prior, []).append(_tau(found, truth))
            print(f"seed {seed} {prior}: {row.regrets[-1]:.4f}", file=sys.stderr, flush=True)
    without = np.array(regrets[NONE])
    return [
        {
            "prior": prior,
            "seeds": num_seeds,
            "tau": None if prior == NONE else round(float(np.mean(taus[prior])), 2),
            "regrets": {
                mark: {
                    "mean": round(float(np.mean([row[mark - 1] for row in rows])), DIGITS),
                    "over_none": _difference(rows, without, mark, mark),
                    "at_equal_cost": _difference(rows, without, mark, mark + more)
                    if prior == SHORT
                    else None,
                }
                for mark in MARKS
                if mark <= num_trials
            },
        }
        for prior, rows in regrets.items()
    ]


def _tau(found: Mapping[str, float], truth: Mapping[str, float]) -> float:
    both = [text for text in found if text in truth]
    if len(both) < 2:
        return 0.0
    return kendall_tau(
        np.array([found[text] for text in both]), np.array([truth[text] for text in both])
    )


def _difference(
    rows: Sequence[tuple[float, ...]], without: np.ndarray, mark: int, mark_without: int
) -> dict[str, float]:
    """The mean difference of regrets after some numbers of trials, with half its interval."""
    differences = np.array([row[mark - 1] for row in rows]) - without[:, mark_without - 1]
    return {
        "mean": round(float(differences.mean()), DIGITS),
        "half_width": round(interval(differences.tolist()), DIGITS),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bench", type=Path, default=SHIPPED, help="the file of PlacementBench")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    bench = PlacementBench.load(asked.bench)
    entries = entries_of(bench, num_seeds=asked.seeds, num_trials=asked.trials)
    if asked.json:
        print(json.dumps({"priors": entries, "provenance": provenance()}, indent=2))
        return
    print("| prior | tau | trials | regret | over none | over none at equal cost |")
    print("|" + "---|" * 6)
    for one in entries:
        tau = "" if one["tau"] is None else f"{one['tau']:.2f}"
        for mark, row in one["regrets"].items():
            compared = [
                f"{found['mean']:+.4f} ± {found['half_width']:.4f}"
                if found is not None and one["prior"] != NONE
                else ""
                for found in (row["over_none"], row["at_equal_cost"])
            ]
            print(
                f"| {one['prior']} | {tau} | {mark} | {row['mean']:.4f} | {' | '.join(compared)} |"
            )


if __name__ == "__main__":
    main()
