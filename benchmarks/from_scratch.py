"""Does a search from scratch beat plain networks of other depths and widths, and one another?

    python benchmarks/from_scratch.py FOLDER [--ways supernet,nsga2,model,stratified,tpe]
        [--trials 12] [--seeds 0,1,2,3,4] [--print-only] [--json]

On the embedded default task, each seed of each way gives a front of networks with three training
seeds each, and the front's hypervolume in one box:

- plain: vanilla networks of all depths and three widths, every one trained with three seeds: what
  a person would try who has no search;
- a searcher: `sharedattn search` with some numbers of trials, and its front confirmed. A larger
  number goes on where the smaller one ended;
- supernet: `sharedattn search --evaluator supernet`, the front fine-tuned.

Each has a database of its own, so that none is given another's trainings. CPU time is user and
system time of everything, with one thread a training. A finished row is a line of
`from-scratch.jsonl` in FOLDER, so that it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from answers import interval, timed
from trained_rows import Job, Rows, Trainings, train_all, whole_numbers

from sharedattn.data import DataConfig
from sharedattn.objectives import OBJECTIVES
from sharedattn.placement import BackboneSpec
from sharedattn.recipe import RECIPES
from sharedattn.results.front.pareto import hypervolume
from sharedattn.spaces.space import Space

Document = dict[str, Any]

TASK = "digit-count"
SPACE = f"{TASK}-vit"
DEPTHS, WIDTHS = (1, 2, 3, 4), (12, 18, 24)  # the last of each is the space's own
TRIALS = (12,)
SEEDS = (0, 1, 2, 3, 4)
CONFIRM_SEEDS = 3
PLAIN, SUPERNET = "plain", "supernet"
WAYS = (SUPERNET, "nsga2", "model", "stratified", "tpe")
NUM_PLAIN = len(DEPTHS) * len(WIDTHS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The front of one way and seed.

    Attributes:
        way: `plain`, `supernet`, or name of a searcher.
        trials: of the search; of the plain networks, their number; 0 of a supernet.
        seed: of the search; the plain networks are trained with seeds that no other row has.
        hypervolume: of the front, a fraction of the box.
        cpu_s: CPU seconds of the search and the confirmations of this and all smaller numbers of
            trials; of the plain networks, of their trainings alone.
        members: placements of the front.
    """

    way: str
    trials: int
    seed: int
    hypervolume: float
    cpu_s: float
    members: list[str]


class PlainNetworks(Trainings):
    """Vanilla networks of one width, of every depth.

    Args:
        width: of the tokens.
        seed: of the row; each has training seeds of its own.
    """

    def __init__(self, width: int, seed: int) -> None:
        backbone = Space.load(SPACE).backbone
        text = str(backbone).replace(f"embed_dim={WIDTHS[-1]}", f"embed_dim={width}")
        super().__init__(BackboneSpec.parse(text), DataConfig(name=TASK), RECIPES[TASK])
        self._seeds = range(CONFIRM_SEEDS * seed, CONFIRM_SEEDS * (seed + 1))

    def jobs(self) -> list[Job]:
        """Every training."""
        epochs = RECIPES[TASK].epochs
        return [
            Job(placement=f"V{depth}", seed=seed, epochs=epochs)
            for seed in self._seeds
            for depth in DEPTHS
        ]

    def validated_epochs(self, job: Job) -> Collection[int]:
        """None but the last."""
        del job
        return ()


class Bench:
    """Makes the rows of one folder.

    Args:
        folder: keeps everything.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def plain(self, seed: int) -> Row:
        """The front of the plain networks."""
        points, cpu_s = [], 0.0
        for width in WIDTHS:
            make = partial(PlainNetworks, width, seed)
            networks = make()
            rows = Rows(self._folder / f"plain-{width}.jsonl", networks)
            train_all(rows, make, 1)
            top1s = defaultdict(list)
            for job in networks.jobs():
                row = rows.get(job.placement, job.seed, job.epochs)
                assert row is not None
                top1s[job.placement].append(row.top1)
                cpu_s += row.cpu_s
            points += [(statistics.mean(top1s[text]), networks.macs(text)) for text in top1s]
        return Row(
            way=PLAIN,
            trials=NUM_PLAIN,
            seed=seed,
            hypervolume=volume(points),
            cpu_s=round(cpu_s, 1),
            members=[],
        )

    def searched(self, way: str, seed: int, trials: int, before: Row | None) -> Row:
        """The front of a searcher after some trials, or of a supernet.

        Args:
            way: as in `Row`.
            seed: of the search.
            trials: their number; not of a supernet.
            before: the row of fewer trials of the same search, or None.
        """
        out = self._study(way, seed, trials)
        shutil.rmtree(out, ignore_errors=True)  # of a run that was killed
        if before is not None:
            shutil.copytree(self._study(way, seed, before.trials), out)
        asked = (
            ("--evaluator", "supernet")
            if way == SUPERNET
            else ("--searcher", way, "--trials", trials)
        )
        printed = self._folder / "front.json"
        cpu_s = timed(
            *("search", *asked, "--seed", seed, "--confirm-seeds", CONFIRM_SEEDS),
            *("--baselines", "none", "--deterministic", "--out", out, "--json"),
            to=printed,
        )
        document: Document = json.loads(printed.read_text())
        front = document["front"]
        return Row(
            way=way,
            trials=trials,
            seed=seed,
            hypervolume=volume([(one["top1"], one["macs"]) for one in front]),
            cpu_s=round(cpu_s + (before.cpu_s if before else 0.0), 1),
            members=[one["placement"] for one in front],
        )

    def _study(self, way: str, seed: int, trials: int) -> Path:
        return self._folder / "studies" / f"{way}-{trials}-{seed}"


def volume(points: Sequence[tuple[float, int]]) -> float:
    """The hypervolume of accuracies and MACs, from guessing and four vanilla layers."""
    objectives = [OBJECTIVES["top1"], OBJECTIVES["macs"]]
    full = PlainNetworks(WIDTHS[-1], 0).macs(f"V{DEPTHS[-1]}")
    # A network of exactly these MACs shall count, so the corner lies a little beyond it.
    reference = {"top1": 1 / 4, "macs": 1.05 * full}
    return hypervolume(np.array(points, dtype=float), objectives, reference)


def read_rows(path: Path) -> list[Row]:
    """The finished rows of a file."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return [Row(**json.loads(line)) for line in lines]


def print_table(rows: Sequence[Row]) -> None:
    """Means over seeds, and differences from the controls, paired by seed."""
    print("| way | trials | seeds | hypervolume | over plain | over nsga2 | CPU s |")
    print("|" + "---|" * 7)
    for way, trials in dict.fromkeys((row.way, row.trials) for row in rows):
        own = [row for row in rows if (row.way, row.trials) == (way, trials)]
        compared = [
            _mean_of([row.hypervolume - of[row.seed] for row in own if row.seed in of], "+")
            for control in (PLAIN, "nsga2")
            for of in (_by_seed(rows, control, trials) if control != way else {},)
        ]
        print(
            f"| {way} | {trials:,} | {len(own)} | {_mean_of([r.hypervolume for r in own])} | "
            f"{' | '.join(compared)} | {statistics.mean(r.cpu_s for r in own):.0f} |"
        )


def _by_seed(rows: Sequence[Row], control: str, trials: int) -> dict[int, float]:
    """Hypervolumes of a control, of a searcher after as many trials."""
    own = [row for row in rows if row.way == control]
    return {row.seed: row.hypervolume for row in own if control == PLAIN or row.trials == trials}


def _mean_of(values: Sequence[float], sign: str = "") -> str:
    """A mean with half its 95 % interval, if there is one."""
    if not values:
        return ""
    half_width = interval(values)
    shown = "" if math.isnan(half_width) else f" ± {half_width:.4f}"
    return f"{statistics.mean(values):{sign}.4f}{shown}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--trials", type=whole_numbers, default=TRIALS)
    parser.add_argument("--seeds", type=whole_numbers, default=SEEDS)
    parser.add_argument("--print-only", action="store_true", help="train nothing")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    path = asked.folder / "from-scratch.jsonl"
    rows = read_rows(path)
    if not asked.print_only:
        asked.folder.mkdir(parents=True, exist_ok=True)
        for row in missing_rows(Bench(asked.folder), rows, asked):
            with path.open("a") as file:
                file.write(json.dumps(asdict(row)) + "\n")
            print(f"{row.way} seed {row.seed}: {row.hypervolume:.4f}", file=sys.stderr, flush=True)
    if asked.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        print_table(rows)


def missing_rows(bench: Bench, rows: list[Row], asked: argparse.Namespace) -> Iterator[Row]:
    """Make what is not among `rows`, add it to them, and yield it; one seed of all ways first."""
    done = {(row.way, row.seed, row.trials): row for row in rows}
    for seed in asked.seeds:
        if (PLAIN, seed, NUM_PLAIN) not in done:
            rows.append(bench.plain(seed))
            yield rows[-1]
        for way in asked.ways.split(","):
            before = None
            for trials in (0,) if way == SUPERNET else sorted(asked.trials):
                row = done.get((way, seed, trials))
                if row is None:
                    row = bench.searched(way, seed, trials, before)
                    rows.append(row)
                    yield row
                before = row


if __name__ == "__main__":
    main()
