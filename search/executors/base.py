"""What runs tasks: a number of slots, tasks put in, events taken out."""

from __future__ import annotations

import errno
import math
import traceback
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Self

from sharedattn.errors import InputError
from sharedattn.progress import WorkProgress
from sharedattn.results.records import EpochMetrics
from sharedattn.search.evaluators.base import Measurement, Task


@dataclass(frozen=True, slots=True)
class Reported:
    """The evaluation has reached a rung and waits for `go_on` or `stop`."""

    metrics: EpochMetrics


@dataclass(frozen=True, slots=True)
class Progressed:
    """The evaluation goes on, and is so far; one that is lost, or comes late, does no harm."""

    progress: WorkProgress


@dataclass(frozen=True, slots=True)
class Finished:
    """The evaluator returned.

    Attributes:
        measurement: what it measured.
        threads: torch threads of the worker.
    """

    measurement: Measurement
    threads: int


@dataclass(frozen=True, slots=True)
class Raised:
    """The evaluator raised; `traceback` is its text. Run again it would raise again."""

    traceback: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker died under the task, maybe by the task's fault; `reason` says what is known."""

    reason: str


@dataclass(frozen=True, slots=True)
class Preempted:
    """The slot was taken away, by no fault of the task; `reason` says what is known."""

    reason: str


@dataclass(frozen=True, slots=True)
class DiskFull:
    """The evaluator had no room to write; no other trial will have any. `reason` says where."""

    reason: str


class EvaluationEndedError(Exception):
    """An evaluation that runs in processes of its own has ended; `event` says by what."""

    def __init__(self, event: Raised | Lost | Preempted | DiskFull) -> None:
        super().__init__(event.traceback if isinstance(event, Raised) else event.reason)
        self.event = event


Event = Reported | Finished | Raised | Lost | Preempted | DiskFull
"""What happens to a task, and is answered or recorded."""
Message = Event | Progressed
"""What an executor has to say of a task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResources:
    """What one trial occupies.

    Attributes:
        cpus: cores, which are also the torch threads of its worker; >= 1.
        gpus: GPUs; a fraction below 1 shares one, more than 1 are whole.
        custom: amounts of a cluster's own resources, by name.

    Raises:
        InputError: an amount that cannot be had.
    """

    cpus: int = 1
    gpus: float = 0.0
    custom: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.cpus < 1:
            raise InputError(f"`--cpus-per-trial` is {self.cpus}; it is at least 1")
        if not 0 <= self.gpus < math.inf or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise InputError(
                f"`--gpus-per-trial` is a fraction up to 1, or a whole number, but got "
                f"{self.gpus:g}"
            )
        for name, amount in self.custom.items():
            if not name or not 0 < amount < math.inf:
                raise InputError(
                    f"`--resources-per-trial` is NAME=AMOUNT with a positive amount, but got "
                    f"{name}={amount:g}"
                )


class Executor(ABC):
    """Runs tasks in slots; used as a context manager, which ends its workers.

    A task holds its slot until an event other than `Reported` came out of `wait`, or until it is
    stopped. `Progressed` is no event: an executor passes on what its workers say of how far they
    are, the newest of each where there are several, and none where it has no cheap way.

    Attributes:
        num_slots: tasks that run at once.
    """

    num_slots: int

    @property
    @abstractmethod
    def num_free(self) -> int:
        """Slots without a task."""

    @abstractmethod
    def submit(self, ticket: int, task: Task) -> None:
        """Start a task in a free slot; `ticket` names it from now on, and is never used twice."""

    @abstractmethod
    def wait(self, timeout_s: float | None = None) -> list[tuple[int, Message]]:
        """Block until there is something to say of a task, or the time is up.

        Returns:
            Tickets with messages, in order of tickets; empty when the time is up first.
        """

    @abstractmethod
    def go_on(self, ticket: int) -> None:
        """Let a task that has reported run to its next rung."""

    @abstractmethod
    def stop(self, ticket: int) -> None:
        """End a task that has reported; no further event comes of it."""

    @abstractmethod
    def close(self) -> None:
        """End all workers at once; tasks that still run are dropped."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def advance(evaluation: Generator[EpochMetrics, None, Measurement], threads: int) -> Event:
    """Run an evaluation, inside a worker, to its next rung or its end.

    Args:
        evaluation: of `Evaluator.evaluate`.
        threads: torch threads of the worker.
    """
    try:
        return Reported(next(evaluation))
    except StopIteration as end:
        return Finished(end.value, threads)
    except EvaluationEndedError as error:
        return error.event
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskFull(str(error))
        return Raised("".join(traceback.format_exception(error)))
