"""Do the data sets of `small_folders.py` need the layers of their network?

    python benchmarks/needs_layers.py FOLDER [--data clutter,pairs,textures,shapes]
        [--epochs 24,48,96] [--seeds 0,1,2] [--workers 2] [--print-only]

A cut from a trained network loses something only where its layers are needed. The network of six
vanilla layers and the first half of them are trained from scratch by the recipe `small`, for
several lengths: what counts is the length that is best for the whole network. Every finished
training is a line of a file in FOLDER; run again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from answers import interval
from small_folders import DEPTH, NUM_CLASSES, backbone_of, config_of
from trained_rows import Job, Rows, Trainings, train_all, whole_numbers

from sharedattn.recipe import RECIPES

WHOLE, HALF = f"V{DEPTH}", f"V{DEPTH // 2}"
EPOCHS = (24, 48, 96)
SEEDS = (0, 1, 2)
LEAST_POINTS = 2.0  # that half the layers lack


class HalfAndWhole(Trainings):
    """The whole network and its half, of several lengths and seeds.

    Args:
        data: name of the data set.
        root: folder of the data sets.
        epochs: lengths of the trainings.
        seeds: of each.
    """

    def __init__(
        self, data: str, root: Path, *, epochs: Sequence[int], seeds: Sequence[int]
    ) -> None:
        super().__init__(backbone_of(data), config_of(data, root), RECIPES["small"])
        self.epochs = tuple(epochs)
        self.seeds = tuple(seeds)

    def jobs(self) -> list[Job]:
        """Every training, the short ones first."""
        return [
            Job(placement=placement, seed=seed, epochs=epochs)
            for epochs in self.epochs
            for seed in self.seeds
            for placement in (WHOLE, HALF)
        ]

    def validated_epochs(self, job: Job) -> Collection[int]:
        """None but the last."""
        del job
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A data set and a length.

    Attributes:
        epochs: of the trainings.
        whole: top-1 of the whole network, seed by seed.
        half: the same of its half.
    """

    epochs: int
    whole: tuple[float, ...]
    half: tuple[float, ...]

    @property
    def points(self) -> list[float]:
        """What the half lacks, seed by seed."""
        return [100 * (a - b) for a, b in zip(self.whole, self.half, strict=True)]


def lines_of(trainings: HalfAndWhole, rows: Rows) -> list[Line]:
    """The lengths of which both networks have a seed, with all seeds that both have."""
    lines = []
    for epochs in trainings.epochs:
        pairs = [
            (whole.top1, half.top1)
            for seed in trainings.seeds
            if (whole := rows.get(WHOLE, seed, epochs)) and (half := rows.get(HALF, seed, epochs))
        ]
        if pairs:
            whole, half = zip(*pairs, strict=True)
            lines.append(Line(epochs=epochs, whole=whole, half=half))
    return lines


def verdict(lines: Sequence[Line], trainings: HalfAndWhole) -> str:
    """Whether the half lacks enough at the length that is best for the whole network."""
    finished = [line for line in lines if len(line.whole) == len(trainings.seeds)]
    if len(finished) < len(trainings.epochs):
        return "open, trainings are missing"
    best = max(finished, key=lambda line: statistics.mean(line.whole))
    points = statistics.mean(best.points)
    reached = "needs its layers" if points >= LEAST_POINTS else "does not need its layers"
    return f"{reached}: {points:.1f} points at {best.epochs} epochs (target {LEAST_POINTS:g})"


def print_table(data: str, trainings: HalfAndWhole, rows: Rows) -> None:
    lines = lines_of(trainings, rows)
    for line in lines:
        half_width = interval(line.points)
        shown = "" if math.isnan(half_width) else f" ± {half_width:.1f}"
        print(
            f"| {data} | {line.epochs} | {len(line.whole)} | {statistics.mean(line.whole):.3f} | "
            f"{statistics.mean(line.half):.3f} | {statistics.mean(line.points):.1f}{shown} |"
        )
    print(f"| {data}: {verdict(lines, trainings)} | | | | | |")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default=",".join(NUM_CLASSES))
    parser.add_argument("--epochs", type=whole_numbers, default=EPOCHS)
    parser.add_argument("--seeds", type=whole_numbers, default=SEEDS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--print-only", action="store_true", help="train nothing")
    asked = parser.parse_args(arguments)
    made = {}
    for data in asked.data.split(","):
        make = partial(
            HalfAndWhole, data, asked.folder / "data", epochs=asked.epochs, seeds=asked.seeds
        )
        trainings = make()
        rows = Rows(asked.folder / f"needs-layers-{data}.jsonl", trainings)
        made[data] = trainings, rows
        if not asked.print_only:
            train_all(rows, make, asked.workers)
    print(f"| data | epochs | seeds | {WHOLE} | {HALF} | points that {HALF} lacks |")
    print("|---|---|---|---|---|---|")
    for data, (trainings, rows) in made.items():
        print_table(data, trainings, rows)


if __name__ == "__main__":
    main()
