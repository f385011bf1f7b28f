"""Regret of the searchers on tables made of rules, whose best front is known.

    python -m benchmarks.searchers [--quick] [--seeds 20] [--trials 200] [--slots 1,8]
        [--tables additive,saturating,interacting] [--searchers random,stratified,...]
        [--rows build/searchers.jsonl] [--json]

Every member of the embedded space has a true accuracy by a rule, and a search sees it with noise:

- additive: what each layer's kind, slots, broadcasting and gate are worth, by position, summed;
- saturating: such a sum through 1 - exp(-4 z), so that the first layers gain most;
- interacting: pairs of kinds in sequence and the place of the first vanilla layer count as well.

The numbers of a rule are drawn anew for each seed. Trials are proposed as in a study, by the same
code; with W slots a trial sees the results of those up to W before it. Regret is 1 less the share
of the best front's hypervolume that the tried placements reach by their true accuracies. `model`
is compared with the best of the others at each number of trials, seed by seed.

`--quick` is 5 seeds and 60 trials. Each finished search is a line of the file of rows; run again,
the script goes on where it was. `gp`, Optuna's GPSampler, is only run by name: it takes hours.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

warnings.filterwarnings("ignore", message=".*torch.jit.*")

import numpy as np  # noqa: E402 (the warning is timm's, at import)
import optuna  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from sharedattn.costs.model import CostModel  # noqa: E402
from sharedattn.errors import InputError  # noqa: E402
from sharedattn.objectives import parse_objectives  # noqa: E402
from sharedattn.placement import Placement  # noqa: E402
from sharedattn.results.front.pareto import hypervolume, hypervolume_history  # noqa: E402
from sharedattn.search.provenance import provenance  # noqa: E402
from sharedattn.search.run import REFERENCE_FACTOR  # noqa: E402
from sharedattn.search.searchers import SEARCHERS, Proposal, Searcher  # noqa: E402
from sharedattn.search.searchers.optuna_search import OptunaSearcher  # noqa: E402
from sharedattn.search.study.context import StudyContext, Visibility  # noqa: E402
from sharedattn.search.study.history import SearchHistory  # noqa: E402
from sharedattn.search.study.proposing import CheckedBounds, Proposer  # noqa: E402
from sharedattn.spaces.budget import BudgetedSpace  # noqa: E402
from sharedattn.spaces.space import Space  # noqa: E402

FloatArray = NDArray[np.float64]

SPACE = "digit-pairs-vit"
OBJECTIVES = parse_objectives(("top1", "macs"))
TABLES = ("additive", "saturating", "interacting")
NOISE_SD = 0.015  # of an accuracy by the seed of its training, as on the embedded task
MARKS = (24, 60, 200)  # numbers of trials at which regrets are compared
TARGETS = {24: 0.75, 60: 0.5, 200: 1.0}  # most regret of `model`, in shares of the best other's
SHARES = (0.95, 0.99)
NUM_RESAMPLES = 10_000
OURS = "model"
ALL = ("random", "stratified", "nsga2", "tpe", OURS)


class GPSearcher(OptunaSearcher):
    """Optuna's Gaussian process over the encoding, as a user would pick it."""

    name = "gp"

    @property
    def num_first_trials(self) -> int:
        return 8

    def make_sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        with warnings.catch_warnings():
            # Optuna calls it experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=self.num_first_trials)


KNOWN = {**SEARCHERS, GPSearcher.name: GPSearcher}


class RuleTable:
    """True accuracies of every member of a space, by a rule that a seed draws.

    Args:
        space: the space; its members are listed.
        kind: one of `TABLES`.
        seed: of the rule's numbers.

    Attributes:
        members: the members, by number.
        top1: (n,), their true accuracies.
        macs: (n,), their MACs.
    """

    def __init__(self, space: BudgetedSpace, kind: str, seed: int) -> None:
        self._rng = np.random.default_rng([seed, TABLES.index(kind)])
        self.space = space
        self.members = tuple(space.enumerate())
        costs = CostModel(space.space.backbone)
        self.macs = np.array([float(costs.totals(member).macs) for member in self.members])
        worth = self._worth(interacts=kind == "interacting")
        scaled = (worth - worth.min()) / np.ptp(worth)
        if kind == "additive":
            self.top1 = 0.55 + 0.4 * scaled
        else:
            bend = 4.0 if kind == "saturating" else 2.0
            self.top1 = 0.52 + 0.44 * np.expm1(-bend * scaled) / np.expm1(-bend)
        self._place = {member: i for i, member in enumerate(self.members)}
        self.full = hypervolume(self.points(range(len(self.members))), OBJECTIVES, self.reference)

    @property
    def reference(self) -> dict[str, float]:
        """The reference point of a study of the space."""
        classes = self.space.space.backbone.num_classes
        return {"top1": 1.0 / classes, "macs": REFERENCE_FACTOR * self.space.macs_range[1]}

    def place(self, placement: Placement) -> int:
        """The number of a member."""
        return self._place[placement]

    def points(self, places: Iterable[int]) -> FloatArray:
        """True accuracies and MACs (k, 2) of members by number."""
        chosen = list(places)
        return np.column_stack([self.top1[chosen], self.macs[chosen]])

    def _worth(self, *, interacts: bool) -> FloatArray:
        """What each member is worth, before it is scaled."""
        rng, depth = self._rng, max(self.space.space.automaton.depths)
        means = {"V": 1.0, "L": 0.8, "E": 0.5, "N": 0.1}
        kind = {letter: rng.normal(mean, 0.3, depth) for letter, mean in means.items()}
        slots = {8: 0.0, 16: rng.uniform(0.0, 0.1), 32: rng.uniform(0.0, 0.2)}
        broadcasting = rng.normal(0.1, 0.15, depth)
        cells = np.array([0.0, *rng.normal(0.1, 0.15, 2)])
        pairs = {one + other: rng.normal(0.0, 0.35) for one in means for other in means}
        first = rng.normal(0.0, 0.4, depth + 1)
        worth = []
        for member in self.members:
            layers = member.layers
            kinds = "".join(layer.kind for layer in layers)
            total = cells[len({layer.gate for layer in layers if layer.gate is not None})]
            for i, layer in enumerate(layers):
                total += kind[layer.kind][i] + layer.cb * broadcasting[i]
                total += slots[layer.option("slots") or 8]
            if interacts:
                total += sum(pairs[kinds[i : i + 2]] for i in range(len(kinds) - 1))
                total += first[kinds.index("V") if "V" in kinds else depth]
            worth.append(float(total))
        return np.array(worth)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRow:
    """One finished search on a table.

    Attributes:
        table: the rule's kind.
        searcher: name of the searcher.
        seed: of the rule, of the noise and of the search.
        slots: trials at once.
        regrets: after each trial.
        repeats: proposals that were refused because they had been tried.
        ask_s: mean time of a trial's proposal, in seconds.
    """

    table: str
    searcher: str
    seed: int
    slots: int
    regrets: tuple[float, ...]
    repeats: int
    ask_s: float

    @property
    def key(self) -> tuple[str, str, int, int, int]:
        """What a row is of."""
        return self.table, self.searcher, self.seed, self.slots, len(self.regrets)


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
        places: numbers of the members that were tried.
        top1: their accuracies with noise.
        repeats: proposals that were refused because they had been tried.
        ask_s: mean time of a trial's proposal, in seconds.
    """

    places: list[int]
    top1: list[float]
    repeats: int
    ask_s: float


def tried(table: RuleTable, searcher: str, seed: int, *, num_trials: int, slots: int) -> Tried:
    """Search a table as a study would."""
    counted = _Counted(
        KNOWN[searcher](
            table.space, OBJECTIVES, seed=seed, num_trials=num_trials, study_attributes={}
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
    noise = np.random.default_rng([seed, 7]).normal(0.0, NOISE_SD, len(table.members))
    places, found, ask_s = [], [], 0.0
    for number in range(num_trials):
        history.tell_before(number)
        begun = time.perf_counter()
        proposal = proposer.accept_next()
        ask_s += time.perf_counter() - begun
        place = table.place(proposal.placement)
        places.append(place)
        top1 = float(np.clip(table.top1[place] + noise[place], 0.0, 1.0))
        found.append(top1)
        history.end(number, (top1, float(table.macs[place])))
    return Tried(places, found, counted.num_asked - num_trials, ask_s / num_trials)


def search(
    table: RuleTable, kind: str, searcher: str, seed: int, *, num_trials: int, slots: int
) -> SearchRow:
    """Search a table as a study would, and return the regret after each trial."""
    trials = tried(table, searcher, seed, num_trials=num_trials, slots=slots)
    reached = hypervolume_history(table.points(trials.places), OBJECTIVES, table.reference)
    return SearchRow(
        table=kind,
        searcher=searcher,
        seed=seed,
        slots=slots,
        regrets=tuple((1.0 - reached / table.full).round(6).tolist()),
        repeats=trials.repeats,
        ask_s=trials.ask_s,
    )


def read_rows(path: Path) -> dict[tuple[str, str, int, int, int], SearchRow]:
    """The rows of a file, by key; none if there is no file."""
    if not path.exists():
        return {}
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line)
    found = (SearchRow(**{**row, "regrets": tuple(row["regrets"])}) for row in rows)
    return {row.key: row for row in found}


def run(options: argparse.Namespace) -> list[SearchRow]:
    """All searches that are asked for, those of the file of rows first."""
    space = BudgetedSpace(Space.load(SPACE))
    known = read_rows(options.rows)
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    chosen = []
    for kind in options.tables:
        for seed in range(options.seeds):
            table = None
            for slots in options.slots:
                for searcher in options.searchers:
                    key = (kind, searcher, seed, slots, options.trials)
                    if key not in known:
                        table = table or RuleTable(space, kind, seed)
                        known[key] = search(
                            table, kind, searcher, seed, num_trials=options.trials, slots=slots
                        )
                        with options.rows.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(asdict(known[key])) + "\n")
                    chosen.append(known[key])
    return chosen


def mean_interval(values: FloatArray) -> tuple[float, float, float]:
    """A mean over seeds and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    drawn = values[rng.integers(len(values), size=(NUM_RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


def ratio_interval(ours: FloatArray, others: FloatArray) -> tuple[float, float, float]:
    """A ratio of mean regrets and its 95 % bootstrap interval, the same seeds in both."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(ours), size=(NUM_RESAMPLES, len(ours)))
    ratios = ours[drawn].mean(axis=1) / np.maximum(others[drawn].mean(axis=1), 1e-12)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(ours.mean() / max(others.mean(), 1e-12)), float(low), float(high)


def trials_to(row: SearchRow, share: float) -> int:
    """Trials until a share of the best hypervolume is reached, or all of them."""
    return next(
        (i for i, regret in enumerate(row.regrets, 1) if regret <= 1.0 - share), len(row.regrets)
    )


def comparison(rows: Sequence[SearchRow]) -> list[dict[str, Any]]:
    """The searches of each table and number of slots in numbers, searcher by searcher."""
    groups: dict[tuple[str, int], dict[str, list[SearchRow]]] = {}
    for row in rows:
        of_table = groups.setdefault((row.table, row.slots), {})
        of_table.setdefault(row.searcher, []).append(row)
    found = []
    for (table, slots), by_searcher in groups.items():
        marks = [m for m in MARKS if m <= len(rows[0].regrets)]
        regrets = {
            (name, mark): np.array([row.regrets[mark - 1] for row in of_one])
            for name, of_one in by_searcher.items()
            for mark in marks
        }
        for name, of_one in by_searcher.items():
            found.append(
                {
                    "table": table,
                    "slots": slots,
                    "searcher": name,
                    "seeds": len(of_one),
                    "regret": {m: mean_interval(regrets[name, m]) for m in marks},
                    "trials_to": {
                        share: float(np.mean([trials_to(row, share) for row in of_one]))
                        for share in SHARES
                    },
                    "repeats": float(np.mean([row.repeats for row in of_one])),
                    "ask_ms": 1000.0 * float(np.mean([row.ask_s for row in of_one])),
                    "ratio": _ratios(name, list(by_searcher), marks, regrets),
                }
            )
    return found


def _ratios(
    name: str,
    names: Sequence[str],
    marks: Sequence[int],
    regrets: Mapping[tuple[str, int], FloatArray],
) -> dict[int, dict[str, Any]]:
    """Our regret in shares of the best other searcher's, at each number of trials."""
    others = [other for other in names if other != OURS]
    if name != OURS or not others:
        return {}
    found = {}
    for mark in marks:
        best = min(others, key=lambda other: float(regrets[other, mark].mean()))
        found[mark] = {
            "best": best,
            "ratio": ratio_interval(regrets[name, mark], regrets[best, mark]),
            "target": TARGETS[mark],
        }
    return found


def print_comparison(entries: Sequence[Mapping[str, Any]]) -> None:
    """Print the comparison as Markdown tables."""
    for table, slots in dict.fromkeys((e["table"], e["slots"]) for e in entries):
        here = [e for e in entries if (e["table"], e["slots"]) == (table, slots)]
        marks = list(here[0]["regret"])
        print(f"\n{table}, {slots} at once, {here[0]['seeds']} seeds\n")
        columns = [*(f"regret at {m}" for m in marks), "to 95 %", "to 99 %", "repeats", "ask (ms)"]
        print(f"| searcher | {' | '.join(columns)} |")
        print("|" + "---|" * (1 + len(columns)))
        for entry in here:
            cells = ["{:.4f} ({:.4f} to {:.4f})".format(*entry["regret"][m]) for m in marks]
            cells += [f"{entry['trials_to'][share]:.0f}" for share in SHARES]
            cells += [f"{entry['repeats']:.0f}", f"{entry['ask_ms']:.0f}"]
            print(f"| {entry['searcher']} | {' | '.join(cells)} |")
        print()
        for mark, found in next((e["ratio"] for e in here if e["ratio"]), {}).items():
            ratio, low, high = found["ratio"]
            print(
                f"- at {mark}: {OURS} has {ratio:.2f} ({low:.2f} to {high:.2f}) of the regret of "
                f"{found['best']}, the best other (target at most {found['target']:g})"
            )


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
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--searchers", default=",".join(ALL))
    parser.add_argument("--rows", type=Path, default=Path("build", "searchers.jsonl"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    options.seeds = options.seeds if options.seeds is not None else (5 if options.quick else 20)
    options.trials = (
        options.trials if options.trials is not None else (60 if options.quick else 200)
    )
    options.slots = [int(number) for number in options.slots.split(",")]
    for name, known in (("tables", TABLES), ("searchers", tuple(KNOWN))):
        chosen = getattr(options, name).split(",")
        setattr(options, name, chosen)
        if unknown := set(chosen) - set(known):
            raise InputError(
                f"`--{name}` has {', '.join(sorted(unknown))}; name some of {', '.join(known)}"
            )
    if min(options.seeds, options.trials, *options.slots) < 1:
        raise InputError("`--seeds`, `--trials` and `--slots` are numbers from 1; raise them")
    return options


def main() -> None:
    options = options_of()
    begun = time.perf_counter()
    entries = comparison(run(options))
    if options.json:
        print(json.dumps({"searches": entries, "provenance": provenance()}, indent=2))
        return
    print_comparison(entries)
    print(f"\n{time.perf_counter() - begun:.0f} s; every search is a row of {options.rows}")


if __name__ == "__main__":
    main()
