"""What is run again after a worker or a slot has gone, and how often; for trials and other tasks.

The two have rules of their own: a worker that dies may do so by the task's fault, such as a
network too large for the memory; a slot that is taken away says nothing of the task.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

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
)
from sharedattn.search.status import Running

TICK_S = 1.0  # between two looks at what runs, where nothing happens

MAX_DEATHS = 2  # of a task's workers, in one run: more of them are the task's own fault
MAX_PREEMPTIONS = 100  # of a task, in one run: a machine that takes every slot away is no use


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a task has lost what ran it, in one run of the driver.

    Attributes:
        num_deaths: workers that died under it.
        num_preemptions: slots that were taken from it.
    """

    num_deaths: int = 0
    num_preemptions: int = 0

    def after(self, event: Lost | Preempted) -> Retries:
        """The count after one more of them."""
        if isinstance(event, Lost):
            return replace(self, num_deaths=self.num_deaths + 1)
        return replace(self, num_preemptions=self.num_preemptions + 1)

    @property
    def exhausted(self) -> bool:
        """Whether the task is given up."""
        return self.num_deaths >= MAX_DEATHS or self.num_preemptions >= MAX_PREEMPTIONS


def check_room(event: Event) -> None:
    """End a run that has no room to write.

    Raises:
        StorageError: the event says so.
    """
    if isinstance(event, DiskFull):
        raise StorageError(
            f"there is no room for weights and checkpoints: {event.reason}; free some and run the "
            f"same command again, all finished trials are kept"
        )


def run_tasks(
    executor: Executor,
    tasks: Sequence[Task],
    *,
    name: str,
    on_running: Callable[[tuple[Running, ...]], None],
) -> Iterator[tuple[Task, Measurement, int]]:
    """Run tasks that all others wait for, in whatever order they end.

    Args:
        executor: with no task in its slots.
        tasks: those that lose their worker or slot are run again.
        name: what the tasks are, for people.
        on_running: called every `TICK_S` and whenever something has happened, with what runs.

    Yields:
        A task, what it measured, and the torch threads of its worker.

    Raises:
        SharedWorkError: a task raised, or lost its workers too often.
        StorageError: there is no room for what it writes.
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
            check_room(event)
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
                assert not isinstance(event, DiskFull)
                if isinstance(event, Lost | Preempted):
                    raise SharedWorkError(f"{name} failed: {shown_reason(event.reason)}")
                # The traceback is for a caller who asks: people are shown its last line.
                raise SharedWorkError(
                    f"{name} failed: {shown_reason(reason_of(event.traceback))}"
                ) from RuntimeError(event.traceback)
