"""What a supernet's scores are worth to a search of trainings that begins with them.

    python -m benchmarks.prior_regret [--bench FILE] [--seeds 20] [--trials 24] [--known 400]

Searches the measured and the predicted trainings of PlacementBench by `model`, with nothing known,
and with the inherited accuracies of `--known` members as `sharedattn search --prior` keeps them.
Regret is that of `searchers.py`. Besides, Kendall's tau of inherited with trained accuracies says
how much there is to know.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
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

MARKS = (8, 12, 24, 60)


def entry(
    bench: PlacementBench, part: str, *, num_seeds: int, num_trials: int, num_known: int
) -> dict[str, Any]:
    """Regrets of one part of the table, with and without a prior, and what a supernet says of it.

    Returns:
        `tau`, and by number of trials in `regrets` the means `without` and `with`, and the mean
        difference of the same seeds with half its 95 % interval.
    """
    known = dict(zip(bench.placements, map(float, bench.inherited), strict=True))
    texts = list(known)
    notes = {PRIOR_NOTE: {texts[i]: known[texts[i]] for i in evenly(len(texts), num_known)}}
    truth = bench.truth(part)  # type: ignore[arg-type]
    found: dict[str, list[tuple[float, ...]]] = {"without": [], "with": []}
    for seed in range(num_seeds):
        table = BenchTable(bench, part, seed)
        for name, given in (("without", None), ("with", notes)):
            row = search(table, part, "model", seed, num_trials=num_trials, slots=1, notes=given)
            found[name].append(row.regrets)
            print(f"{part} seed {seed} {name}: {row.regrets[-1]:.4f}", file=sys.stderr)
    without, with_prior = (np.array(found[name]) for name in ("without", "with"))
    differences = with_prior - without
    return {
        "part": part,
        "seeds": num_seeds,
        "tau": round(kendall_tau([known[text] for text in truth], list(truth.values())), 2),
        "regrets": {
            mark: {
                "without": round(float(without[:, mark - 1].mean()), DIGITS),
                "with": round(float(with_prior[:, mark - 1].mean()), DIGITS),
                "difference": round(float(differences[:, mark - 1].mean()), DIGITS),
                "half_width": round(interval(differences[:, mark - 1].tolist()), DIGITS),
            }
            for mark in MARKS
            if mark <= num_trials
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bench", type=Path, default=SHIPPED, help="the file of PlacementBench")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--known", type=int, default=400, help="inherited accuracies")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    bench = PlacementBench.load(asked.bench)
    entries = [
        entry(bench, part, num_seeds=asked.seeds, num_trials=asked.trials, num_known=asked.known)
        for part in ("measured", "surrogate")
    ]
    if asked.json:
        print(json.dumps({"entries": entries, "provenance": provenance()}, indent=2))
        return
    print("| table | tau | trials | without | with | difference |")
    print("|" + "---|" * 6)
    for one in entries:
        for mark, row in one["regrets"].items():
            print(
                f"| `{one['part']}` | {one['tau']} | {mark} | {row['without']:.4f} | "
                f"{row['with']:.4f} | {row['difference']:+.4f} ± {row['half_width']:.4f} |"
            )


if __name__ == "__main__":
    main()
