"""The interface of executors: slots that take tasks and return events."""

from __future__ import annotations

import errno
import math
import traceback
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Self

from sharedattn.errors import InputError, StartChangedError
from sharedattn.progress import WorkProgress
from sharedattn.results.records import EpochMetrics
from sharedattn.search.evaluators.base import Measurement, Task


@dataclass(frozen=True, slots=True)
class Reported:
    """The evaluation has reached a rung and waits for `go_on` or `stop`."""

    metrics: EpochMetrics


@dataclass(frozen=True, slots=True)
class Progressed:
    """Progress of a running evaluation; a lost or late message does no harm."""

    progress: WorkProgress


@dataclass(frozen=True, slots=True)
class Finished:
    """The evaluator returned.

    Attributes:
        measurement: the evaluator's result.
        threads: torch threads of the worker.
    """

    measurement: Measurement
    threads: int


@dataclass(frozen=True, slots=True)
class Raised:
    """The evaluator raised; `traceback` is the text. A retry would raise again."""

    traceback: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker died, perhaps by the task's fault; `reason` says what is known."""

    reason: str


@dataclass(frozen=True, slots=True)
class Preempted:
    """The slot was taken away, through no fault of the task; `reason` says what is known."""

    reason: str


@dataclass(frozen=True, slots=True)
class DiskFull:
    """The evaluator could not write, so no other trial can either; `reason` says where."""

    reason: str


@dataclass(frozen=True, slots=True)
class StartChanged:
    """The weights to start from are others now, for every other trial too; `reason` says which."""

    reason: str


class EvaluationEndedError(Exception):
    """An evaluation in processes of its own has ended by `event`."""

    def __init__(self, event: Raised | Lost | Preempted | DiskFull | StartChanged) -> None:
        super().__init__(event.traceback if isinstance(event, Raised) else event.reason)
        self.event = event


Event = Reported | Finished | Raised | Lost | Preempted | DiskFull | StartChanged
"""Something that happened to a task and needs an answer or a record."""
Message = Event | Progressed
"""Any message of an executor about a task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResources:
    """The resources of one trial.

    Attributes:
        cpus: number of cores, and of torch threads of its worker; >= 1.
        gpus: number of GPUs; a fraction below 1 shares one, above 1 it is whole.
        custom: amounts of a cluster's own resources, by name.

    Raises:
        InputError: an amount is out of range.
    """

    cpus: int = 1
    gpus: float = 0.0
    custom: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.cpus < 1:
            raise InputError(f"`--cpus-per-trial` is {self.cpus}; it is at least 1")
        if not 0 <= self.gpus < math.inf or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise InputError(
                f"`--gpus-per-trial` is {self.gpus:g}; give a fraction up to 1, or a whole number"
            )
        for name, amount in self.custom.items():
            if not name or not 0 < amount < math.inf:
                raise InputError(
                    f"`--resources-per-trial` is {name}={amount:g}; give NAME=AMOUNT with a "
                    f"positive amount"
                )


class Executor(ABC):
    """Runs tasks in slots; as a context manager, it ends its workers on exit.

    A task holds its slot until `wait` returns an event of it other than `Reported`, or until it is
    stopped. `Progressed` is not an event: an executor passes on the newest progress of each
    worker, or none if that would not be cheap.

    Attributes:
        num_slots: number of tasks that run at once.
    """

    num_slots: int

    @property
    @abstractmethod
    def num_free(self) -> int:
        """Number of slots without a task."""

    @abstractmethod
    def submit(self, ticket: int, task: Task) -> None:
        """Start a task in a free slot; `ticket` identifies it and is never reused."""

    @abstractmethod
    def wait(self, timeout_s: float | None = None) -> list[tuple[int, Message]]:
        """Block until there is a message about a task, or the time is up.

        Returns:
            Tickets with messages, ordered by ticket; empty if the time is up first.
        """

    @abstractmethod
    def go_on(self, ticket: int) -> None:
        """Let a task that has reported continue to its next rung."""

    @abstractmethod
    def stop(self, ticket: int) -> None:
        """End a task that has reported; it produces no further event."""

    @abstractmethod
    def close(self) -> None:
        """End all workers at once, and drop the tasks that still run."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def advance(evaluation: Generator[EpochMetrics, None, Measurement], threads: int) -> Event:
    """Run an evaluation, inside a worker, to its next rung or its end.

    Args:
        evaluation: the generator that `Evaluator.evaluate` returned.
        threads: torch threads of the worker.
    """
    try:
        return Reported(next(evaluation))
    except StopIteration as end:
        return Finished(end.value, threads)
    except EvaluationEndedError as error:
        return error.event
    except StartChangedError as error:
        return StartChanged(str(error))
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskFull(str(error))
        return Raised("".join(traceback.format_exception(error)))
