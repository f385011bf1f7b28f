"""What runs tasks: a number of slots, tasks put in, outcomes taken out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

from search.evaluators.base import Measurement, Task


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
    """The evaluator raised; `traceback` is its text."""

    traceback: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker died under the task; `reason` says what is known."""

    reason: str


@dataclass(frozen=True, slots=True)
class DiskFull:
    """The evaluator had no room to write; no other trial will have any. `reason` says where."""

    reason: str


Outcome = Finished | Raised | Lost | DiskFull


class Executor(ABC):
    """Runs tasks in slots; used as a context manager, which ends its workers.

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
        """Start a task in a free slot; `ticket` names it in `wait`."""

    @abstractmethod
    def wait(self, timeout_s: float | None = None) -> list[tuple[int, Outcome]]:
        """Block until a task ends or the time is up.

        Returns:
            Tickets with outcomes, in order of tickets; empty when the time is up first.
        """

    @abstractmethod
    def close(self) -> None:
        """End all workers at once; tasks that still run are dropped."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
