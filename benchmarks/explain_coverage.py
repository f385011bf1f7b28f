"""Whether the credible intervals of `sharedattn explain` cover what is true.

    python -m benchmarks.explain_coverage [--seeds 16] [--model-seeds 3] [--trials 24,60]
        [--tables additive,saturating,interacting] [--json]

Tables of accuracies made of rules over every member of the embedded space, with noise, as of
`benchmarks.searchers`: for each rule and seed, some trials by draws from bands of MACs
(`stratified`) and by the model-based searcher, which chooses its trials by their results, are
explained as a stored study would be. The truth of an effect is its estimand by true accuracies.
Intervals of 90 % that are right cover 90 % of the truths.

- effects: kinds, depths, broadcasting, DIA units, slots; layers: each kind in each layer;
- prices: gains of the edits that the next point is priced by, which are chosen by the model;
- clear: of the effects and layers called clear, how many have the other sign in truth;
- stand out: of the interactions that stand out, how many are not covered by their joint interval;
- said: share of effects and layers that are clear or negligible; the data cannot say the others.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

warnings.filterwarnings("ignore", message=".*torch.jit.*")

import numpy as np  # noqa: E402 (the warning is timm's, at import)

from benchmarks.searcher_tables import OBJECTIVES, RULES, SPACE, RuleTable  # noqa: E402
from benchmarks.searchers import Tried, tried  # noqa: E402
from sharedattn.errors import InputError  # noqa: E402
from sharedattn.placement import Placement  # noqa: E402
from sharedattn.results.explanation.contrasts import SpaceContrasts  # noqa: E402
from sharedattn.results.explanation.explanation import (  # noqa: E402
    Effect,
    Explainer,
    Explanation,
    Verdict,
)
from sharedattn.results.explanation.observations import Observations  # noqa: E402
from sharedattn.results.front.pareto import non_dominated, to_losses  # noqa: E402
from sharedattn.search.provenance import provenance  # noqa: E402
from sharedattn.spaces.budget import BudgetedSpace  # noqa: E402
from sharedattn.spaces.space import Space  # noqa: E402

DESIGNS = ("stratified", "model")


@dataclass(slots=True)
class Tally:
    """Counts over explanations of one table, design and number of trials.

    Attributes:
        covered: of each group of intervals, whether each covers the truth.
        widths: of each group, the intervals' widths.
        wrong_sign: of the clear effects and layers, whether each has the other sign in truth.
        false: of the interactions that stand out, whether each misses the truth.
        num_said: effects and layers that are clear or negligible.
        num_asked: effects and layers.
    """

    covered: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    widths: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    wrong_sign: list[bool] = field(default_factory=list)
    false: list[bool] = field(default_factory=list)
    num_said: int = 0
    num_asked: int = 0

    def add(self, group: str, truth: float, low: float, high: float) -> None:
        """Count one interval."""
        self.covered[group].append(low <= truth <= high)
        self.widths[group].append(high - low)

    def to_json(self) -> dict[str, Any]:
        """Shares and numbers."""
        return {
            **{
                group: {
                    "covered": float(np.mean(hits)),
                    "of": len(hits),
                    "width": float(np.mean(self.widths[group])),
                }
                for group, hits in self.covered.items()
            },
            "said": self.num_said / max(self.num_asked, 1),
            "clear": {"wrong_sign": int(np.sum(self.wrong_sign)), "of": len(self.wrong_sign)},
            "stand_out": {"false": int(np.sum(self.false)), "of": len(self.false)},
        }


class Truth:
    """The true values of a table's estimands.

    Args:
        contrasts: of its space, all of whose members they have.
        table: the table.
    """

    def __init__(self, contrasts: SpaceContrasts, table: RuleTable) -> None:
        self._top1 = table.points(contrasts.members)[:, 0]
        self._weights = {
            (c.topic, c.stage, c.text): c.weights
            for c in (*contrasts.main, *contrasts.layers, *contrasts.interactions)
        }

    def of(self, effect: Effect) -> float | None:
        """The true value of an effect, or None if it has none over all members."""
        weights = self._weights.get((effect.topic, effect.stage, effect.text))
        if weights is None:
            return None
        return float(weights @ self._top1)


def explained(
    table: RuleTable, trials: Tried, contrasts: SpaceContrasts
) -> tuple[Explanation, Explainer, list[Placement]]:
    """The explanation of some trials on a table, with their front."""
    members = trials.placements
    macs = [table.macs_of(member) for member in members]
    observations = Observations(
        tuple(map(str, members)), tuple(macs), tuple(trials.top1), "accuracies"
    )
    losses = to_losses(np.column_stack([trials.top1, macs]), OBJECTIVES)
    front = sorted(np.flatnonzero(non_dominated(losses)), key=macs.__getitem__)
    explainer = Explainer(table.space, observations, contrasts)
    places = [members[i] for i in front]
    return explainer.explanation("table", places), explainer, places


def count(
    tally: Tally, table: RuleTable, trials: Tried, contrasts: SpaceContrasts, truth: Truth
) -> None:
    """Explain some trials, and count which intervals cover the truth."""
    explanation, explainer, front = explained(table, trials, contrasts)
    for group, effects in (("effects", explanation.effects), ("layers", explanation.layers)):
        for effect in effects:
            true = truth.of(effect)
            tally.num_asked += 1
            tally.num_said += effect.verdict in (Verdict.CLEAR, Verdict.NEGLIGIBLE)
            if effect.top1 is None or true is None:
                continue
            tally.add(group, true, effect.top1.low, effect.top1.high)
            if effect.verdict is Verdict.CLEAR:
                tally.wrong_sign.append(true * effect.top1.mean < 0.0)
    for effect in explanation.interactions:
        true = truth.of(effect)
        if effect.top1 is not None and true is not None:
            tally.false.append(not effect.top1.low <= true <= effect.top1.high)
    for price, edits in zip(explanation.prices, explainer.edits(front).values(), strict=True):
        gains = [table.top1_of(b) - table.top1_of(a) for a, b in edits]
        tally.add("prices", float(np.mean(gains)), price.top1.low, price.top1.high)


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Coverage of each table, design and number of trials."""
    space = BudgetedSpace(Space.load(SPACE))
    contrasts = SpaceContrasts(space)
    tallies: dict[tuple[str, str, int], Tally] = defaultdict(Tally)
    for kind in options.tables:
        for seed in range(max(options.seeds, options.model_seeds)):
            table = RuleTable(space, kind, seed)
            truth = Truth(contrasts, table)
            for design, seeds in zip(DESIGNS, (options.seeds, options.model_seeds), strict=True):
                if seed >= seeds:
                    continue
                trials = tried(table, design, seed, num_trials=max(options.trials), slots=1)
                for num in options.trials:
                    first = Tried(trials.placements[:num], trials.top1[:num], 0, 0.0)
                    count(tallies[kind, design, num], table, first, contrasts, truth)
    return [
        {"table": kind, "design": design, "trials": num, **tally.to_json()}
        for (kind, design, num), tally in sorted(tallies.items())
    ]


def print_coverage(entries: Sequence[dict[str, Any]]) -> None:
    """Print the coverage as a Markdown table."""
    groups = ("effects", "layers", "prices")
    columns = [*groups, "width of effects (points)", "said", "wrong sign", "false stand out"]
    print(f"| table | design | trials | {' | '.join(columns)} |")
    print("|" + "---|" * (3 + len(columns)))
    for entry in entries:
        cells = ["{covered:.3f} of {of}".format(**entry[group]) for group in groups]
        cells.append(f"{100 * entry['effects']['width']:.1f}")
        cells.append(f"{entry['said']:.2f}")
        cells.append("{wrong_sign} of {of}".format(**entry["clear"]))
        cells.append("{false} of {of}".format(**entry["stand_out"]))
        print(
            f"| {entry['table']} | {entry['design']} | {entry['trials']} | {' | '.join(cells)} |"
        )
    for group in groups:
        total = sum(entry[group]["of"] for entry in entries)
        hits = sum(entry[group]["covered"] * entry[group]["of"] for entry in entries)
        print(f"\n{group}: {hits / total:.3f} of {total} intervals cover", end="")
    print()


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        InputError: an unknown table, or a number below 1.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=16, help="of stratified trials")
    parser.add_argument("--model-seeds", type=int, default=3, help="of model-based trials")
    parser.add_argument("--trials", default="24,60")
    parser.add_argument("--tables", default=",".join(RULES))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    options.trials = [int(number) for number in options.trials.split(",")]
    options.tables = options.tables.split(",")
    if unknown := set(options.tables) - set(RULES):
        raise InputError(
            f"`--tables` has {', '.join(sorted(unknown))}; name some of {', '.join(RULES)}"
        )
    if min(options.seeds, *options.trials) < 1 or options.model_seeds < 0:
        raise InputError("`--seeds` and `--trials` are numbers from 1; raise them")
    return options


def main() -> None:
    options = options_of()
    begun = time.process_time()
    entries = run(options)
    if options.json:
        print(json.dumps({"coverage": entries, "provenance": provenance()}, indent=2))
        return
    print_coverage(entries)
    print(f"{time.process_time() - begun:.0f} CPU seconds")


if __name__ == "__main__":
    main()
