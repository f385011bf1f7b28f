"""Finished searches on tables as lines of a file, what they say of searchers, and their curves."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sharedattn.results.analysis.plots import PLOT_STYLE

FloatArray = NDArray[np.float64]

MARKS = (24, 60, 200)  # numbers of trials at which regrets are compared
TARGETS = {24: 0.75, 60: 0.5, 200: 1.0}
"""Most regret of `model`, in shares of the best other's; at 200 beyond the interval."""
SHARES = (0.95, 0.99)
NUM_RESAMPLES = 10_000
OURS = "model"
DIGITS = 5  # of a regret in a file

# The palette of Okabe and Ito, safe for colour-blind readers, and grey for the control.
_COLOURS = ("#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000", "#F0E442")
_FIXED_COLOURS = {OURS: "#0072B2", "stratified": "#777777"}
_COLUMNS = 3  # of panels


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRow:
    """One finished search on a table.

    Attributes:
        table: the table's name.
        searcher: name of the searcher.
        seed: of the table, of the noise and of the search.
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

    def to_line(self) -> str:
        """The row as JSON; of the regrets only those that differ from the one before."""
        found: dict[str, float] = {}
        for trial, regret in enumerate(self.regrets, 1):
            if not found or regret != next(reversed(found.values())):
                found[str(trial)] = regret
        row = {**asdict(self), "trials": len(self.regrets), "regrets": found}
        return json.dumps(row)

    @classmethod
    def of_line(cls, line: str) -> SearchRow:
        """The inverse of `to_line`."""
        row = json.loads(line)
        ends = [*(int(trial) for trial in row["regrets"]), row.pop("trials") + 1]
        lengths = (after - begin for begin, after in pairwise(ends))
        regrets = [
            regret
            for regret, length in zip(row["regrets"].values(), lengths, strict=True)
            for _ in range(length)
        ]
        return cls(**{**row, "regrets": tuple(regrets)})


def read_rows(path: Path) -> list[SearchRow]:
    """The rows of a file, compressed if it ends in .gz; none if there is no file."""
    if not path.exists():
        return []
    with _opened(path, "rt") as file:
        return [SearchRow.of_line(line) for line in file if line.strip()]


def append_row(path: Path, row: SearchRow) -> None:
    """Add a row to a file, which is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _opened(path, "at") as file:
        file.write(row.to_line() + "\n")


def _opened(path: Path, mode: Literal["rt", "at"]) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, mode, encoding="utf-8")
    return path.open(mode, encoding="utf-8")


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


def groups_of(rows: Iterable[SearchRow]) -> dict[tuple[str, int], dict[str, list[SearchRow]]]:
    """The rows of each table and number of slots, by searcher."""
    groups: dict[tuple[str, int], dict[str, list[SearchRow]]] = {}
    for row in rows:
        groups.setdefault((row.table, row.slots), {}).setdefault(row.searcher, []).append(row)
    return groups


def comparison(rows: Sequence[SearchRow]) -> list[dict[str, Any]]:
    """The searches of each table and number of slots in numbers, searcher by searcher."""
    found = []
    for (table, slots), by_searcher in groups_of(rows).items():
        marks = [m for m in MARKS if m <= len(rows[0].regrets)]
        for name, of_one in by_searcher.items():
            found.append(
                {
                    "table": table,
                    "slots": slots,
                    "searcher": name,
                    "seeds": len(of_one),
                    "regret": {m: mean_interval(np.array(_at(of_one, m))) for m in marks},
                    "trials_to": {
                        share: float(np.mean([trials_to(row, share) for row in of_one]))
                        for share in SHARES
                    },
                    "repeats": float(np.mean([row.repeats for row in of_one])),
                    "ask_ms": 1000.0 * float(np.mean([row.ask_s for row in of_one])),
                    "ratio": ratios(by_searcher, marks) if name == OURS else {},
                }
            )
    return found


def _at(rows: Iterable[SearchRow], mark: int) -> list[float]:
    """The regrets after some trials."""
    return [row.regrets[mark - 1] for row in rows]


def ratios(
    by_searcher: Mapping[str, Sequence[SearchRow]], marks: Sequence[int]
) -> dict[int, dict[str, Any]]:
    """Our regret in shares of the best other searcher's, at each number of trials.

    Over the seeds that both have; the best other is the one of which ours is the largest share.
    """
    found: dict[int, dict[str, Any]] = {}
    for mark in marks:
        of_seed = {
            name: dict(zip((row.seed for row in rows), _at(rows, mark), strict=True))
            for name, rows in by_searcher.items()
        }
        entries = []
        for other in of_seed.keys() - {OURS}:
            seeds = sorted(of_seed[OURS].keys() & of_seed[other].keys())
            if seeds:
                ours, others = (np.array([of_seed[n][s] for s in seeds]) for n in (OURS, other))
                entries.append((ratio_interval(ours, others), other, len(seeds)))
        if entries:
            ratio, best, num_seeds = max(entries)
            found[mark] = {
                "best": best,
                "seeds": num_seeds,
                "ratio": ratio,
                "target": TARGETS[mark],
                "verdict": verdict(ratio, TARGETS[mark]),
            }
    return found


def verdict(ratio: tuple[float, float, float], target: float) -> str:
    """Whether a ratio with its interval meets a target.

    A target of 1 is to be not worse, which an interval that reaches to 1 allows.
    """
    mean, low, high = ratio
    if target == 1.0:
        return "met" if low <= target else "missed"
    if mean <= target:
        return "met" if high <= target else "met by the mean, not by the whole interval"
    return "missed" if low > target else "missed by the mean, not by the whole interval"


def print_comparison(entries: Sequence[Mapping[str, Any]]) -> None:
    """Print the comparison as Markdown tables."""
    for table, slots in dict.fromkeys((e["table"], e["slots"]) for e in entries):
        here = [e for e in entries if (e["table"], e["slots"]) == (table, slots)]
        marks = list(here[0]["regret"])
        print(f"\n`{table}`, {slots} at once\n")
        columns = [*(f"regret at {m}" for m in marks), "to 95 %", "to 99 %", "repeats", "ask (ms)"]
        print(f"| searcher | seeds | {' | '.join(columns)} |")
        print("|" + "---|" * (2 + len(columns)))
        for entry in here:
            cells = ["{:.4f} ({:.4f} to {:.4f})".format(*entry["regret"][m]) for m in marks]
            cells += [f"{entry['trials_to'][share]:.0f}" for share in SHARES]
            cells += [f"{entry['repeats']:.0f}", f"{entry['ask_ms']:.0f}"]
            print(f"| {entry['searcher']} | {entry['seeds']} | {' | '.join(cells)} |")
    print_ratios(entries)


def print_ratios(entries: Sequence[Mapping[str, Any]]) -> None:
    """Print our regret beside the best other searcher's as a Markdown table."""
    ours = [entry for entry in entries if entry["ratio"]]
    if not ours:
        return
    print(f"\nRegret of `{OURS}` in shares of the best other searcher's\n")
    print("| table | at once | trials | best other | seeds | share | target | |")
    print("|" + "---|" * 8)
    for entry in ours:
        for mark, found in entry["ratio"].items():
            print(
                f"| `{entry['table']}` | {entry['slots']} | {mark} | {found['best']} | "
                f"{found['seeds']} | {{:.2f}} ({{:.2f}} to {{:.2f}}) | {found['target']:g} | "
                f"{found['verdict']} |".format(*found["ratio"])
            )


def write_curves(path: Path, rows: Sequence[SearchRow]) -> None:
    """Draw the regret after each trial, a panel for each table and number of slots.

    Lines are means over seeds, bands their 95 % bootstrap intervals.

    Args:
        path: an .svg or .png file.
        rows: the finished searches.

    Raises:
        OSError: the file cannot be written.
    """
    groups = groups_of(rows)
    names = list(dict.fromkeys(row.searcher for row in rows))
    others = [name for name in names if name not in _FIXED_COLOURS]
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(others)}
    columns = min(_COLUMNS, len(groups))
    num_rows = -(-len(groups) // columns)
    with matplotlib.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(3.4 * columns, 2.6 * num_rows + 0.5), layout="constrained")
        panels = figure.subplots(num_rows, columns, squeeze=False, sharex=True, sharey=True)
        panels = panels.ravel()
        for axes in panels[len(groups) :]:
            axes.set_axis_off()
        for axes, ((table, slots), by_searcher) in zip(panels, groups.items(), strict=False):
            axes.set_title(f"{table}, {slots} at once" if slots > 1 else table)
            for name, of_one in by_searcher.items():
                _draw(axes, name, of_one, {**colours, **_FIXED_COLOURS}[name])
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.tick_params(labelbottom=True)
        for axes in panels[::columns]:
            axes.set_ylabel("regret")
        for axes in panels[-columns:]:
            axes.set_xlabel("trials")
        handles = {
            label: handle
            for axes in panels[: len(groups)]
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=min(8, len(names))
        )
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)


def _draw(axes: Axes, name: str, rows: Sequence[SearchRow], colour: str) -> None:
    """Draw the mean of a searcher's curves, with its band."""
    curves = np.array([row.regrets for row in rows])
    trials = np.arange(1, curves.shape[1] + 1)
    intervals = np.array([mean_interval(column) for column in curves.T])
    mean, low, high = np.maximum(intervals, 10.0**-DIGITS).T
    axes.fill_between(trials, low, high, color=colour, alpha=0.15, linewidth=0)
    width = 2.0 if name == OURS else 1.2
    axes.plot(trials, mean, color=colour, linewidth=width, label=name)
