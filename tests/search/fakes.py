"""Evaluators that cost nothing, and ones that go wrong in each way there is."""

import errno
import hashlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from sharedattn.distributed import ALONE, Rank
from sharedattn.errors import InputError, StartChangedError
from sharedattn.progress import TrainingProgress
from sharedattn.results.records import EpochMetrics, Fidelity
from sharedattn.search.evaluators import Evaluator, Measurement
from sharedattn.search.executors import Lost, Preempted, Reported, advance
from sharedattn.search.executors.in_process import InProcessExecutor


@dataclass(frozen=True)
class Fake(Evaluator):
    """Accuracy from the number of attending layers and a hash of placement and seed."""

    noise: float = 0.05

    @property
    def recipe_key(self):
        return "1" * 64

    @property
    def data_fingerprint(self):
        return "2" * 64

    @property
    def fidelity(self):
        return Fidelity(epochs=1, image_size=16)

    def evaluate(self, task, on_progress=None):
        yield from ()
        return self.measure(task)

    def measure(self, task):
        digest = hashlib.sha256(f"{task.spec.placement} {task.seed}".encode()).digest()
        noise = self.noise * int.from_bytes(digest[:4], "big") / 2**32
        attending = sum(layer.kind in "VL" for layer in task.spec.placement.layers)
        return Measurement(
            split="validation",
            top1=0.3 + 0.1 * attending + noise,
            loss=0.5,
            num_images=100,
            wall_time_s=0.0,
        )


@dataclass(frozen=True)
class Slow(Fake):
    """Takes its time, longer for some placements than for others."""

    seconds: float = 0.02

    def evaluate(self, task, on_progress=None):
        time.sleep(self.seconds * (1 + hash(str(task.spec.placement)) % 3))
        return (yield from super().evaluate(task))


@dataclass(frozen=True)
class Raising(Fake):
    """Raises, or gives NaN, on placements with an external layer."""

    nan: bool = False

    def evaluate(self, task, on_progress=None):
        measured = yield from super().evaluate(task)
        if any(layer.kind == "E" for layer in task.spec.placement.layers):
            if self.nan:
                return Measurement(
                    split="validation",
                    top1=float("nan"),
                    loss=0.5,
                    num_images=100,
                    wall_time_s=0.0,
                )
            raise MemoryError("the network does not fit")
        return measured


@dataclass(frozen=True)
class Dying(Fake):
    """Kills its own process: once per placement in `folder`, or always without one."""

    folder: str | None = None

    def evaluate(self, task, on_progress=None):
        if self.folder is None:
            os.kill(os.getpid(), signal.SIGKILL)
        mark = os.path.join(self.folder, task.identity.key)
        if not os.path.exists(mark):
            open(mark, "x").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return (yield from super().evaluate(task))


@dataclass(frozen=True)
class Staged(Fake):
    """Three epochs with a rung after each but the last, better by a tenth from one to the next."""

    @property
    def fidelity(self):
        return Fidelity(epochs=3, image_size=16)

    @property
    def rungs(self):
        return (1, 2)

    def evaluate(self, task, on_progress=None):
        measured = self.measure(task)
        for epoch in self.rungs:
            yield EpochMetrics(epoch=epoch, top1=measured.top1 - 0.1 * (3 - epoch), loss=0.5)
        return replace(
            measured,
            learning_curve=[
                {
                    "epoch": epoch,
                    "train_loss": 0.5,
                    "validation": {
                        "top1": measured.top1 - 0.1 * (3 - epoch),
                        "loss": 0.5,
                        "num_images": 100,
                    },
                }
                for epoch in (1, 2, 3)
            ],
        )


@dataclass(frozen=True)
class Ranked(Staged):
    """One of the processes of a trial; it writes its id into `folder` and says how far it is."""

    folder: str = ""
    device: str = "cpu"
    rank: Rank = ALONE
    RAISING: ClassVar[int] = 7  # with this seed, process 1 raises, and the others wait for it

    def evaluate(self, task, on_progress=None):
        path = os.path.join(self.folder, str(self.rank.index))
        with open(path, "x") as file:
            file.write(str(os.getpid()))
        if on_progress is not None:
            on_progress(progress_at(1, 2))
        # Each has said what it says before one of them raises.
        self.rank.sum_(torch.zeros(1))
        if task.seed == self.RAISING and self.rank.index == 1:
            threads = torch.get_num_threads()
            raise ArithmeticError(f"in process 1 of {self.rank.world_size}, on {threads} threads")
        self.rank.sum_(torch.zeros(1))
        return (yield from super().evaluate(task))


def progress_at(step, steps, epoch=1, epochs=1):
    return TrainingProgress(
        epoch=epoch,
        epochs=epochs,
        step=step,
        steps=steps,
        images_per_s=212.4,
        loss=1.2344,
        left_s=42.6,
    )


def disk_full():
    return OSError(errno.ENOSPC, "No space left on device", "weights")


def start_changed():
    return StartChangedError("weights holds other weights; put those back")


@dataclass(frozen=True)
class Blocked(Fake):
    """Evaluates a few tasks, counted in `folder`, and then makes and raises `error` for all."""

    folder: str = ""
    error: Callable[[], Exception] = disk_full
    room: int = 5

    def evaluate(self, task, on_progress=None):
        if len(os.listdir(self.folder)) >= self.room:
            raise self.error()
        open(os.path.join(self.folder, task.identity.key), "x").close()
        return (yield from super().evaluate(task))


@dataclass(frozen=True)
class Obedient(Fake):
    """Does what the order of a task's seed says, and tells where: in files, and as its device.

    Orders: `return`; `raise`; `fill` the disk; `die`; `report` or `report twice`, and then return;
    `wait` for a file named `go`, and then return; `talk`: say three times how far it is, and wait
    after each for a file named `heard` with the step's number; `flood`: say it 20,000 times, and
    then make a file named `flooded`.
    """

    folder: str = ""
    orders: tuple[str, ...] = ()

    def evaluate(self, task, on_progress=None):
        order = self.orders[task.seed]
        where = Path(self.folder, f"{task.seed}.{os.getpid()}.{os.getppid()}")
        where.touch()
        if order == "raise":
            raise MemoryError("the network does not fit")
        if order == "fill":
            raise OSError(errno.ENOSPC, "No space left on device", "weights")
        if order == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if order == "wait":
            self.await_file("go")
        if order == "talk":
            for step in range(1, 4):
                on_progress(progress_at(step, 3))
                self.await_file(f"heard{step}")
        if order == "flood":
            for step in range(1, 20_001):
                on_progress(progress_at(step, 20_000))
            Path(self.folder, "flooded").touch()
        for epoch in range(1, {"report": 2, "report twice": 3}.get(order, 1)):
            try:
                yield EpochMetrics(epoch=epoch, top1=0.25, loss=1.5)
            except GeneratorExit:
                where.with_name(f"{task.seed}.closed").touch()
                raise
        return replace(self.measure(task), device=f"process {os.getpid()}")

    def await_file(self, name):
        while not Path(self.folder, name).exists():
            time.sleep(0.02)


class Inline(InProcessExecutor):
    """Runs tasks in this process, and ends them in an order of its own.

    Args:
        evaluator: measures.
        num_slots: tasks held at once.
        rng: chooses which of the held tasks goes on next; None: the first begun.
        die_after: events after which the driver is "killed", by an exception; None: never.
        deaths: events by which the first attempts at tasks end, one after the other.
    """

    def __init__(self, evaluator, num_slots=1, rng=None, die_after=None, deaths=()):
        super().__init__(evaluator, num_slots)
        self.rng = rng
        self.die_after = die_after
        self.deaths = list(deaths)
        self.num_events = 0
        self.evaluated = []
        self.stopped = []

    def wait(self, timeout_s=None):
        if self.die_after is not None and self.num_events >= self.die_after:
            raise DriverKilledError
        self.num_events += 1
        return super().wait(timeout_s)

    def next_ticket(self):
        return super().next_ticket() if self.rng is None else self.rng.choice(list(self.held))

    def step(self, ticket):
        task, evaluation = self.held[ticket]
        event = self.deaths.pop(0) if self.deaths else advance(evaluation, 1)
        if not isinstance(event, Reported | Lost | Preempted):
            self.evaluated.append(task.identity.key)
        return event

    def stop(self, ticket):
        self.stopped.append(self.held[ticket][0].identity.key)
        super().stop(ticket)


class DriverKilledError(BaseException):
    """Stands for SIGKILL: nothing between the loop and the test may catch it."""


def echo(value):
    """For nodes that are asked something."""
    return value


def complain(text):
    raise InputError(text)


def dawdle():
    time.sleep(600)
