"""Regret of the searchers on tables of accuracies whose best front is known.

    python -m benchmarks.searchers [--quick] [--seeds 20] [--trials 200] [--slots 1,8]
        [--tables additive,saturating:deit-tiny-any,interacting@67%,measured,surrogate]
        [--searchers random,stratified,...] [--rows build/searchers.jsonl] [--print-only]
        [--curves FILE.svg] [--json]

The true accuracy of every member follows a rule, and a search sees it with noise:

- additive: what each layer's kind, options, broadcasting and DIA unit are worth, summed;
- saturating: such a sum through 1 - exp(-4 z), so that the first layers gain most;
- interacting: pairs of kinds in sequence and the place of the first vanilla layer count as well.

The numbers of a rule are drawn anew for each seed. A rule is over the embedded space, or over the
one after a colon, however large: its best front is found by dynamic programming. After an @ comes
a budget. `measured`, `surrogate` and `inherited` are parts of PlacementBench (`--bench FILE`); see
`searcher_tables.py`.

Trials are proposed as in a study, by the same code; with W slots a trial sees the results of those
up to W before it. Regret is 1 less the share of the best front's hypervolume that the tried
placements reach by their true accuracies. `model` is compared with the best of the others at each
number of trials, seed by seed.

`--quick` is 5 seeds and 60 trials. Each finished search is a line of the file of rows; run again,
the script goes on where it was. Searchers of other tools (`searcher_baselines.py`) are only run by
name, but for `evolution`: they take hours.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

warnings.filterwarnings("ignore", message=".*torch.jit.*")

import numpy as np  # noqa: E402 (the warning is timm's, at import)

from benchmarks.searcher_baselines import BASELINES, EvolutionSearcher  # noqa: E402
from benchmarks.searcher_rows import (  # noqa: E402
    DIGITS,
    OURS,
    SearchRow,
    append_row,
    comparison,
    print_comparison,
    read_rows,
    write_curves,
)
from benchmarks.searcher_tables import (  # noqa: E402
    OBJECTIVES,
    Table,
    TableName,
    Tables,
    all_tables,
)
from sharedattn.errors import InputError  # noqa: E402
from sharedattn.placement import Placement  # noqa: E402
from sharedattn.results.front.pareto import hypervolume_history  # noqa: E402
from sharedattn.search.provenance import provenance  # noqa: E402
from sharedattn.search.searchers import SEARCHERS, Proposal, Searcher  # noqa: E402
from sharedattn.search.study.context import StudyContext, Visibility  # noqa: E402
from sharedattn.search.study.history import SearchHistory  # noqa: E402
from sharedattn.search.study.proposing import CheckedBounds, Proposer  # noqa: E402
from sharedattn.search.tables import SHIPPED  # noqa: E402

ALL = ("random", "stratified", "nsga2", "tpe", EvolutionSearcher.name, OURS)
KNOWN = {**SEARCHERS, **BASELINES}


class _Counted:
    """A searcher's proposals, counted."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.num_asked = 0

    def ask(self, number: int, attempt: int) -> Proposal:
        self.num_asked += 1
        return self.searcher.ask(number, attempt)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.searcher, name)


@dataclass(frozen=True, slots=True)
class Tried:
    """The trials of one search of a table.

    Attributes:
        placements: the members that were tried.
        top1: their accuracies as the search saw them.
        repeats: proposals that were refused because they had been tried.
        ask_s: mean time of a trial's proposal, in seconds.
    """

    placements: list[Placement]
    top1: list[float]
    repeats: int
    ask_s: float


def tried(
    table: Table,
    searcher: str,
    seed: int,
    *,
    num_trials: int,
    slots: int,
    notes: Mapping[str, Any] | None = None,
) -> Tried:
    """Search a table as a study would; of fewer members than trials, all are tried."""
    num_trials = min(num_trials, table.space.in_budget)
    counted, history, proposer = parts_of(
        table, searcher, seed, num_trials=num_trials, slots=slots, notes=notes
    )
    placements, found, ask_s = [], [], 0.0
    for number in range(num_trials):
        history.tell_before(number)
        begun = time.perf_counter()
        proposal = proposer.accept_next()
        ask_s += time.perf_counter() - begun
        placements.append(proposal.placement)
        found.append(table.seen(proposal.placement))
        history.end(number, (found[-1], float(table.macs_of(proposal.placement))))
    return Tried(placements, found, counted.num_asked - num_trials, ask_s / num_trials)


def parts_of(
    table: Table,
    searcher: str,
    seed: int,
    *,
    num_trials: int,
    slots: int,
    notes: Mapping[str, Any] | None = None,
) -> tuple[_Counted, SearchHistory, Proposer]:
    """The parts of a study that propose its trials; the arguments are those of `search`."""
    counted = _Counted(
        KNOWN[searcher](
            table.space,
            OBJECTIVES,
            seed=seed,
            num_trials=num_trials,
            study_attributes=notes or {},
        )
    )
    context = StudyContext(
        store=SimpleNamespace(searcher_attributes=lambda study: {}),
        driver=None,
        study=SimpleNamespace(record=SimpleNamespace(num_trials=num_trials)),
        space=table.space,
        objectives=OBJECTIVES,
        evaluator=None,
    )
    history = SearchHistory(counted, Visibility(waits=True, lag=slots))
    proposer = Proposer(context, counted, history, CheckedBounds(context, None, lambda: None))
    return counted, history, proposer


def search(
    table: Table,
    name: str,
    searcher: str,
    seed: int,
    *,
    num_trials: int,
    slots: int,
    notes: Mapping[str, Any] | None = None,
) -> SearchRow:
    """Search a table as a study would, and return the regret after each trial.

    Args:
        table: the table.
        name: its name.
        searcher: name of the searcher.
        seed: of the search.
        num_trials: their number.
        slots: trials at once.
        notes: notes on the study that the searcher begins with, by key.
    """
    trials = tried(table, searcher, seed, num_trials=num_trials, slots=slots, notes=notes)
    points = table.points(trials.placements)
    reached = hypervolume_history(points, OBJECTIVES, table.reference)
    regrets = (1.0 - reached / table.full).round(DIGITS)
    # Once all members of a small table have been tried, there is no more to gain.
    regrets = np.pad(regrets, (0, num_trials - len(regrets)), mode="edge")
    return SearchRow(
        table=name,
        searcher=searcher,
        seed=seed,
        slots=slots,
        regrets=tuple(regrets.tolist()),
        repeats=trials.repeats,
        ask_s=round(trials.ask_s, DIGITS),
    )


class Wanted(NamedTuple):
    """A search that is asked for: of a table, by a searcher, with a seed and slots."""

    table: str
    searcher: str
    seed: int
    slots: int


def wanted(options: argparse.Namespace) -> Iterator[Wanted]:
    """The searches that are asked for, all of a seed before the next one's."""
    for seed in range(options.seeds):
        for slots in options.slots:
            for table in options.tables:
                for searcher in options.searchers:
                    yield Wanted(table, searcher, seed, slots)


def run(options: argparse.Namespace) -> list[SearchRow]:
    """All searches that are asked for, those that the file of rows lacks after the others.

    Raises:
        InputError: a table cannot be opened.
    """
    tables = Tables(options.bench)
    known = {
        Wanted(row.table, row.searcher, row.seed, row.slots): row
        for row in read_rows(options.rows)
        if len(row.regrets) == options.trials
    }
    chosen = []
    for one in wanted(options):
        if one not in known:
            if options.print_only:
                continue
            table = tables.table(one.table, one.seed)
            known[one] = search(table, *one[:3], num_trials=options.trials, slots=one.slots)
            append_row(options.rows, known[one])
        chosen.append(known[one])
    return chosen


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        InputError: an unknown table or searcher, or a number below 1.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="5 seeds and 60 trials")
    parser.add_argument("--seeds", type=int, help="default: 20, or 5 with --quick")
    parser.add_argument("--trials", type=int, help="default: 200, or 60 with --quick")
    parser.add_argument("--slots", default="1", help="trials at once, for example 1,8")
    parser.add_argument("--tables", help="default: rules on both spaces, PlacementBench if there")
    parser.add_argument("--bench", type=Path, default=SHIPPED, help="the file of PlacementBench")
    parser.add_argument("--searchers", default=",".join(ALL))
    parser.add_argument("--rows", type=Path, default=Path("build", "searchers.jsonl"))
    parser.add_argument("--print-only", action="store_true", help="of the rows that are there")
    parser.add_argument("--curves", type=Path, help="draw regrets by trials, .svg or .png")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    options.seeds = options.seeds if options.seeds is not None else (5 if options.quick else 20)
    options.trials = (
        options.trials if options.trials is not None else (60 if options.quick else 200)
    )
    options.slots = [int(number) for number in options.slots.split(",")]
    options.tables = options.tables.split(",") if options.tables else all_tables(options.bench)
    for table in options.tables:
        TableName.parse(table)
    options.searchers = options.searchers.split(",")
    if unknown := set(options.searchers) - set(KNOWN):
        raise InputError(
            f"`--searchers` has {', '.join(sorted(unknown))}; name some of {', '.join(KNOWN)}"
        )
    if min(options.seeds, options.trials, *options.slots) < 1:
        raise InputError("`--seeds`, `--trials` and `--slots` are numbers from 1; raise them")
    return options


def main() -> None:
    options = options_of()
    begun = time.perf_counter()
    rows = run(options)
    if options.curves is not None:
        write_curves(options.curves, rows)
    entries = comparison(rows)
    if options.json:
        print(json.dumps({"searches": entries, "provenance": provenance()}, indent=2))
        return
    print_comparison(entries)
    print(f"\n{time.perf_counter() - begun:.0f} s; every search is a row of {options.rows}")


if __name__ == "__main__":
    main()
