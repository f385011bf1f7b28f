"""Retries after a lost worker or slot, for trials and other tasks.

Workers and slots have separate limits: a worker may die by the task's fault, such as a network too
large for the memory; a slot that is taken away says nothing about the task.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from sharedattn.errors import InputError
from sharedattn.results.database.errors import StorageError
from sharedattn.results.failures import reason_of, shown_reason
from sharedattn.search.errors import SharedWorkError
from sharedattn.search.evaluators import Measurement, Task
from sharedattn.search.executors import (
    DiskFull,
    Event,
    Executor,
    Finished,
    Lost,
    Preempted,
    Progressed,
    Reported,
    StartChanged,
)
from sharedattn.search.status import Running

TICK_S = 1.0  # interval of checks on running tasks when nothing happens

MAX_DEATHS = 2  # of a task's workers in one run; more are the task's own fault
MAX_PREEMPTIONS = 100  # of a task in one run; a machine that takes every slot away is of no use


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a task has lost its worker or slot in one run of the driver.

    Attributes:
        num_deaths: number of workers that died.
        num_preemptions: number of slots that were taken away.
    """

    num_deaths: int = 0
    num_preemptions: int = 0

    def after(self, event: Lost | Preempted) -> Retries:
        """The counts after one more event."""
        if isinstance(event, Lost):
            return replace(self, num_deaths=self.num_deaths + 1)
        return replace(self, num_preemptions=self.num_preemptions + 1)

    @property
    def exhausted(self) -> bool:
        """Whether the task is given up."""
        return self.num_deaths >= MAX_DEATHS or self.num_preemptions >= MAX_PREEMPTIONS


def check_can_go_on(event: Event) -> None:
    """Stop the run if no other trial can be measured either.

    Raises:
        StorageError: the event is `DiskFull`.
        InputError: the event is `StartChanged`.
    """
    if isinstance(event, StartChanged):
        raise InputError(f"{event.reason}; the same command goes on, all finished trials are kept")
    if isinstance(event, DiskFull):
        raise StorageError(
            f"weights and checkpoints cannot be written, since the disk is full: {event.reason}; "
            f"free some space and run the same command again, all finished trials are kept"
        )


def run_tasks(
    executor: Executor,
    tasks: Sequence[Task],
    *,
    name: str,
    on_running: Callable[[tuple[Running, ...]], None],
) -> Iterator[tuple[Task, Measurement, int]]:
    """Run tasks that all trials wait for; yield them in the order in which they end.

    Args:
        executor: an executor without running tasks.
        tasks: the tasks; those that lose their worker or slot are retried.
        name: display name of the tasks.
        on_running: called with the running tasks every `TICK_S` and after every event.

    Yields:
        A task, its measurement, and the torch threads of its worker.

    Raises:
        SharedWorkError: a task raised, or lost its workers too often.
        StorageError: the disk is full.
        InputError: the weights that the tasks start from have changed.
    """
    tickets = itertools.count()
    waiting = [(task, Retries()) for task in reversed(tasks)]
    in_slots: dict[int, tuple[Task, Retries]] = {}
    running: dict[int, Running] = {}
    while waiting or in_slots:
        while waiting and executor.num_free:
            ticket = next(tickets)
            in_slots[ticket] = waiting.pop()
            running[ticket] = Running(name=name, started_at=time.monotonic())
            executor.submit(ticket, in_slots[ticket][0])
        on_running(tuple(running.values()))
        for ticket, event in executor.wait(TICK_S):
            if isinstance(event, Progressed):
                running[ticket] = replace(running[ticket], progress=event.progress)
                continue
            check_can_go_on(event)
            if isinstance(event, Reported):
                running[ticket] = replace(running[ticket], top1=event.metrics.top1)
                executor.go_on(ticket)
                continue
            task, retries = in_slots.pop(ticket)
            del running[ticket]
            if isinstance(event, Finished):
                yield task, event.measurement, event.threads
            elif isinstance(event, Lost | Preempted) and not retries.after(event).exhausted:
                waiting.append((task, retries.after(event)))
            else:
                assert not isinstance(event, DiskFull | StartChanged)
                if isinstance(event, Lost | Preempted):
                    raise SharedWorkError(f"{name} failed: {shown_reason(event.reason)}")
                # The traceback is for a debugging caller: users are shown its last line.
                raise SharedWorkError(
                    f"{name} failed: {shown_reason(reason_of(event.traceback))}"
                ) from RuntimeError(event.traceback)
