"""Time of a proposal by `--searcher model` after many results.

    python -m benchmarks.ask_time [--results 1000] [--running 8] [--asks 16]
        [--spaces digit-pairs-vit,deit-tiny-any]

Of each space, results of an additive rule for as many drawn members, and some that run beside, are
told to a new searcher. Then it proposes, and is told a result after each proposal, so that one
proposal in some fits the scales again. CPU seconds on one thread of BLAS.
"""

from __future__ import annotations

import argparse
import random
import time
import warnings
from collections.abc import Sequence

warnings.filterwarnings("ignore", message=".*torch.jit.*")

import numpy as np  # noqa: E402 (the warning is timm's, at import)

from benchmarks.searcher_tables import OBJECTIVES, SPACE, RuleTable  # noqa: E402
from sharedattn.placement import Placement  # noqa: E402
from sharedattn.search.searchers import PastTrial  # noqa: E402
from sharedattn.search.searchers.model_search import ModelSearcher  # noqa: E402
from sharedattn.spaces.budget import BudgetedSpace  # noqa: E402
from sharedattn.spaces.space import Space  # noqa: E402
from sharedattn.spaces.stratified import StratifiedSampler  # noqa: E402


class Asked:
    """A searcher with results, and how long it takes to propose.

    Args:
        table: the accuracies.
        num_results: results that it is told.
        num_running: trials that run besides.
    """

    def __init__(self, table: RuleTable, num_results: int, num_running: int) -> None:
        self._table = table
        self.searcher = ModelSearcher(
            table.space, OBJECTIVES, seed=0, num_trials=10_000, study_attributes={}
        )
        strata = StratifiedSampler(table.space, 16)
        drawn = strata.sample_many(random.Random(0), num_results + num_running)
        self._running: list[PastTrial] = []
        self._number = 0
        for placement in drawn:
            self._start(placement)
        for _ in range(num_results):
            self._end()

    def _start(self, placement: Placement) -> None:
        trial = PastTrial(number=self._number, placement=placement, attributes={})
        self._number += 1
        self.searcher.accept(trial)
        self._running.append(trial)

    def _end(self) -> None:
        trial = self._running.pop(0)
        placement = trial.placement
        values = self._table.seen(placement), float(self._table.macs_of(placement))
        self.searcher.tell(
            PastTrial(number=trial.number, placement=placement, attributes={}, values=values)
        )

    def seconds(self) -> float:
        """CPU seconds of one proposal, which then runs while the oldest trial ends."""
        begun = time.process_time()
        proposal = self.searcher.ask(self._number, 0)
        taken = time.process_time() - begun
        self._start(proposal.placement)
        self._end()
        return taken


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=int, default=1000)
    parser.add_argument("--running", type=int, default=8)
    parser.add_argument("--asks", type=int, default=16)
    parser.add_argument("--spaces", default=f"{SPACE},deit-tiny-any")
    options = parser.parse_args(arguments)
    print("| space | members | first (s) | median (s) | most (s) |")
    print("|---|---|---|---|---|")
    for name in options.spaces.split(","):
        table = RuleTable(BudgetedSpace(Space.load(name)), "additive", 0)
        asked = Asked(table, options.results, options.running)
        # The first one computes the features of the candidates and fits the scales.
        first, *others = (asked.seconds() for _ in range(options.asks + 1))
        print(
            f"| {name} | {table.space.in_budget:,} | {first:.2f} | {np.median(others):.2f} | "
            f"{max(others):.2f} |"
        )


if __name__ == "__main__":
    main()
