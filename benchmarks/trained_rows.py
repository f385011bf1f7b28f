"""Resumable trainings of placements on an embedded task: a line of a file for each finished one.

A benchmark says which trainings it needs; those that its file has not are trained by processes of
one thread each. Rows of another recipe, network or data stay in the file and count for nothing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

warnings.filterwarnings("ignore", message=".*torch.jit.*")

import torch  # noqa: E402 (the warning is timm's, at import)

from sharedattn.backbones import resolve  # noqa: E402
from sharedattn.costs.model import CostModel  # noqa: E402
from sharedattn.data import DataConfig, open_data  # noqa: E402
from sharedattn.errors import InputError  # noqa: E402
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement, ResolvedSpec  # noqa: E402
from sharedattn.recipe import RECIPES, Recipe  # noqa: E402
from sharedattn.spaces.budget import BudgetedSpace  # noqa: E402
from sharedattn.spaces.space import Space  # noqa: E402
from sharedattn.training.trainer import train  # noqa: E402

TABLES = Path(__file__).parent / "tables"
KEY_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training.

    Attributes:
        placement: its text.
        seed: of everything drawn.
        epochs: of the recipe, whose schedule ends with them.
    """

    placement: str
    seed: int
    epochs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One finished training.

    Attributes:
        placement: its text.
        seed: of everything drawn.
        epochs: trained for.
        recipe: key of the recipe, its first 12 digits.
        network: key of the network, its first 12 digits.
        data: fingerprint of the data, its first 12 digits.
        top1: on validation data at the end, 0 to 1.
        curve: epoch and validation top-1, at the epochs that the benchmark validates.
        cpu_s: CPU seconds of the training and its evaluations, by one thread.
    """

    placement: str
    seed: int
    epochs: int
    recipe: str
    network: str
    data: str
    top1: float
    curve: list[tuple[int, float]]
    cpu_s: float


class Trainings(ABC):
    """The trainings of a benchmark: placements of one backbone, on one data set, by one recipe.

    Args:
        backbone: of all placements.
        data: what they are trained on.
        recipe: at the length that it has; a training may have another.

    Attributes:
        backbone: as given.
    """

    def __init__(self, backbone: BackboneSpec, data: DataConfig, recipe: Recipe) -> None:
        self.backbone = backbone
        self._recipe = recipe
        self._data = open_data(data)
        self._costs = CostModel(backbone)

    @abstractmethod
    def jobs(self) -> list[Job]:
        """Every training, in the order to do them in: a part of them is a table too."""

    @abstractmethod
    def validated_epochs(self, job: Job) -> Collection[int]:
        """The epochs before the last after which a training is validated."""

    @property
    def data_key(self) -> str:
        """First digits of the data's fingerprint."""
        return self._data.fingerprint[:KEY_DIGITS]

    def macs(self, placement: str) -> int:
        """MACs of one image."""
        return self._costs.totals(Placement.parse(placement)).macs

    def params(self, placement: str) -> int:
        """Parameters of a network."""
        return self._costs.totals(Placement.parse(placement)).params

    def recipe(self, epochs: int) -> Recipe:
        """The task's recipe at another length, with the warm-up that it has."""
        warmup = min(self._recipe.warmup_epochs, epochs)
        return self._recipe.with_changes(epochs=epochs, warmup_epochs=warmup)

    def keys(self, job: Job) -> tuple[str, str, str]:
        """First digits of the keys of the recipe, the network and the data."""
        recipe, network = self.recipe(job.epochs).key, self._spec(job.placement).key
        return recipe[:KEY_DIGITS], network[:KEY_DIGITS], self.data_key

    def train(self, job: Job) -> Row:
        """Train one placement on one seed."""
        started = time.process_time()
        training = train(
            self._spec(job.placement),
            self._data,
            self.recipe(job.epochs),
            seed=job.seed,
            validate_at=self.validated_epochs(job),
        )
        return self.row(
            job,
            top1=training.metrics.quality,
            curve=[(e.epoch, e.validation.quality) for e in training.curve if e.validation],
            cpu_s=round(time.process_time() - started, 1),
        )

    def row(self, job: Job, *, top1: float, curve: list[tuple[int, float]], cpu_s: float) -> Row:
        """The row of a finished training; arguments as in `Row`."""
        recipe, network, data = self.keys(job)
        return Row(
            **asdict(job),
            recipe=recipe,
            network=network,
            data=data,
            top1=top1,
            curve=curve,
            cpu_s=cpu_s,
        )

    def _spec(self, placement: str) -> ResolvedSpec:
        return resolve(NetworkSpec(self.backbone, Placement.parse(placement)))


class EmbeddedTrainings(Trainings):
    """The trainings of a benchmark on an embedded task.

    Args:
        task: name of the embedded data, of its recipe, and with `-vit` of its space.

    Attributes:
        task: as given.
        space: the task's space, without a budget.
    """

    def __init__(self, task: str) -> None:
        self.task = task
        self.space = BudgetedSpace(Space.load(f"{task}-vit"))
        super().__init__(self.space.space.backbone, DataConfig(name=task), RECIPES[task])


class Rows:
    """The finished trainings of a file, one JSON document a line.

    Args:
        path: the file; it need not be there.
        trainings: say which of the rows are of today's data, recipe and networks.

    Raises:
        InputError: a training stands twice with different accuracies, or an accuracy is not from
            0 to 1.
    """

    def __init__(self, path: Path, trainings: Trainings) -> None:
        self._path = path
        self._trainings = trainings
        self._by_job: dict[Job, Row] = {}
        for line in path.read_text().splitlines() if path.is_file() else []:
            try:
                document = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut off when the process was killed
            document["curve"] = [(epoch, top1) for epoch, top1 in document["curve"]]
            self._keep(Row(**document))

    def __len__(self) -> int:
        return len(self._by_job)

    def get(self, placement: str, seed: int, epochs: int) -> Row | None:
        """A training, or None where it is not finished."""
        return self._by_job.get(Job(placement=placement, seed=seed, epochs=epochs))

    def missing(self) -> list[Job]:
        """What is still to be trained, in the order to do it in."""
        return [job for job in self._trainings.jobs() if job not in self._by_job]

    def append(self, row: Row) -> None:
        """Write a finished training to the end of the file, and to the disk."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                # The line before was cut off: it stays one of its own.
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(asdict(row)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._keep(row)

    def _keep(self, row: Row) -> None:
        job = Job(placement=row.placement, seed=row.seed, epochs=row.epochs)
        if self._trainings.keys(job) != (row.recipe, row.network, row.data):
            return
        for top1 in (row.top1, *(top1 for _, top1 in row.curve)):
            if not 0 <= top1 <= 1:
                raise InputError(
                    f"top1 is from 0 to 1, but {self._path} has {top1} for {row.placement}, seed "
                    f"{row.seed}; leave that line out"
                )
        known = self._by_job.setdefault(job, row)
        if (known.top1, known.curve) != (row.top1, row.curve):
            raise InputError(
                f"{self._path} has {row.placement}, seed {row.seed}, {row.epochs} epochs twice, "
                f"with top1 {known.top1} and {row.top1}; leave one of the lines out"
            )


_trainings: Trainings | None = None  # of a worker process


def _start_worker(make: Callable[[], Trainings]) -> None:
    global _trainings
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _trainings = make()


def _end_with_parent() -> None:
    """End this process when its parent has: a pool's workers outlive a parent that is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _train_in_worker(job: Job) -> Row:
    assert _trainings is not None
    return _trainings.train(job)


def train_all(rows: Rows, make: Callable[[], Trainings], num_workers: int) -> None:
    """Train what is missing, by processes of one thread each.

    Args:
        rows: finished trainings, to which the others are added.
        make: makes the trainings again in each process; can be pickled.
        num_workers: number of processes.
    """
    jobs = rows.missing()
    if not jobs:
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(num_workers, initializer=_start_worker, initargs=(make,)) as pool:
        for number, row in enumerate(pool.imap_unordered(_train_in_worker, jobs), start=1):
            rows.append(row)
            print(
                f"{number}/{len(jobs)} {row.placement} seed {row.seed}, {row.epochs} epochs: "
                f"{row.top1:.3f}, {row.cpu_s:.0f} CPU s",
                file=sys.stderr,
                flush=True,
            )


def add_options(
    parser: argparse.ArgumentParser, *, num_placements: int, seeds: Sequence[int]
) -> None:
    """Add the options that benchmarks of trainings share, with these defaults."""
    parser.add_argument("--rows", type=Path, help="default: beside this script, in tables/")
    parser.add_argument("--placements", type=int, default=num_placements)
    parser.add_argument("--seeds", type=whole_numbers, default=seeds)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--print-only", action="store_true", help="train nothing")
    parser.add_argument("--json", action="store_true")


def whole_numbers(text: str) -> tuple[int, ...]:
    """Numbers that an option gives between commas."""
    return tuple(int(part) for part in text.split(","))
