"""Test whether a search finds real differences: its front with more seeds, against all-vanilla.

    python benchmarks/front_separation.py [STUDY] [--out sharedattn-out] [--seeds 8] [--json]

Trains every member of a study's front, and the all-vanilla network at full depth, with further
seeds under the study's recipe. Prints means, standard deviations and standard errors, the
differences between neighbours on the front in standard errors, and whether the best member reaches
the all-vanilla mean minus one standard deviation.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import sys
import warnings
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore", message=".*torch.jit.*")

from sharedattn.backbones import describe  # noqa: E402
from sharedattn.costs.model import CostModel  # noqa: E402
from sharedattn.data import DataConfig  # noqa: E402
from sharedattn.placement import NetworkSpec, Placement  # noqa: E402
from sharedattn.recipe import Recipe  # noqa: E402
from sharedattn.results.database.store import Store  # noqa: E402 (the warning is timm's, at import)
from sharedattn.results.front.summary import StudySummary  # noqa: E402
from sharedattn.search.evaluators.scratch import ScratchEvaluator  # noqa: E402
from sharedattn.search.executors import Finished  # noqa: E402
from sharedattn.search.executors.local import LocalExecutor  # noqa: E402
from sharedattn.search.provenance import provenance  # noqa: E402


def accuracies(
    specs: list[NetworkSpec], evaluator: ScratchEvaluator, seeds: range
) -> dict[NetworkSpec, list[float]]:
    """Validation accuracies of each spec over the seeds."""
    jobs = list(itertools.product(specs, seeds))
    found: dict[NetworkSpec, list[float]] = {spec: [] for spec in specs}
    num_ended = 0
    waiting = iter(enumerate(jobs))
    num_cores = len(os.sched_getaffinity(0))
    with LocalExecutor(evaluator, num_slots=num_cores) as executor:
        while num_ended < len(jobs):
            while executor.num_free and (job := next(waiting, None)) is not None:
                ticket, (spec, seed) = job
                executor.submit(ticket, evaluator.task(spec, seed))
            for ticket, outcome in executor.wait():
                if not isinstance(outcome, Finished):
                    raise RuntimeError(f"{jobs[ticket][0]}: {outcome}")
                found[jobs[ticket][0]].append(outcome.measurement.top1)
                num_ended += 1
                print(f"\r{num_ended}/{len(jobs)} trainings", end="", file=sys.stderr)
    print(file=sys.stderr)
    return found


def describe_member(spec: NetworkSpec, top1: list[float]) -> dict[str, Any]:
    """Mean, spread and cost of a placement."""
    deviation = statistics.stdev(top1)
    return {
        "placement": str(spec.placement),
        "macs": CostModel(spec.backbone).totals(spec.placement).macs,
        "top1": statistics.mean(top1),
        "standard_deviation": deviation,
        "standard_error": deviation / math.sqrt(len(top1)),
        "seeds": len(top1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", nargs="?")
    parser.add_argument("--out", type=Path, default=Path("sharedattn-out"))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with Store.open(f"sqlite:///{arguments.out / 'sharedattn.db'}", read_only=True) as store:
        study = store.study(arguments.study) if arguments.study else store.studies()[-1]
        summary = StudySummary.read(store, study)
        specs = [
            NetworkSpec.from_json(store.spec(member.spec_key).document)
            for member in summary.front.members
        ]
    backbone = specs[0].backbone
    vanilla = NetworkSpec(backbone, Placement.all_vanilla(describe(backbone).depths))
    evaluator = ScratchEvaluator(
        data=DataConfig.from_json(study.record.data["config"]),
        recipe=Recipe.from_json(study.record.recipe),
    )
    # Seeds that neither the search nor its confirmation used.
    first = study.record.seed + 1000
    found = accuracies(
        [*specs, *([] if vanilla in specs else [vanilla])],
        evaluator,
        range(first, first + arguments.seeds),
    )
    members = [describe_member(spec, found[spec]) for spec in specs]
    baseline = describe_member(vanilla, found[vanilla])
    gaps = [
        (after["top1"] - before["top1"])
        / math.hypot(before["standard_error"], after["standard_error"])
        for before, after in itertools.pairwise(members)
    ]
    best = max(members, key=lambda member: float(member["top1"]))
    bar = baseline["top1"] - baseline["standard_deviation"]
    document = {
        "study": study.record.name,
        "front": members,
        "gaps_in_standard_errors": gaps,
        "separated_neighbours": sum(gap > 2 for gap in gaps),
        "all_vanilla": baseline,
        "best_reaches_all_vanilla_less_one_sd": best["top1"] >= bar,
        "provenance": provenance(),
    }
    if arguments.json:
        print(json.dumps(document, indent=2))
        return
    for member, gap in zip(members, [None, *gaps], strict=True):
        apart = "" if gap is None else f"  {gap:+.1f} standard errors from the one above"
        print(
            f"{member['placement']:28} {member['macs']:>9,} MACs  top1 {member['top1']:.4f}"
            f" ± {member['standard_error']:.4f} (SD {member['standard_deviation']:.4f}){apart}"
        )
    print(f"{document['separated_neighbours']} neighbours differ by more than 2 standard errors")
    print(
        f"all-vanilla {baseline['placement']}: {baseline['top1']:.4f} "
        f"(SD {baseline['standard_deviation']:.4f}); best member {best['top1']:.4f}, "
        f"{'at least' if best['top1'] >= bar else 'BELOW'} {bar:.4f}"
    )


if __name__ == "__main__":
    main()
