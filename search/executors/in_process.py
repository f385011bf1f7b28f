"""Execution in this process, without workers or pickling.

For debuggers, notebooks, and evaluators that cost less than a process. A task runs during `wait`,
to its next rung or its end; a crash of the task is a crash of the driver.
"""

from __future__ import annotations

from collections.abc import Generator

import torch

from sharedattn.results.records import EpochMetrics
from sharedattn.search.evaluators.base import Evaluator, Measurement, Task
from sharedattn.search.executors.base import Executor, Message, Reported, advance


class InProcessExecutor(Executor):
    """Runs tasks in this process, one after the other.

    Args:
        evaluator: measures placements.
        num_slots: number of tasks held at once; one runs at a time.
    """

    def __init__(self, evaluator: Evaluator, num_slots: int = 1) -> None:
        self.evaluator = evaluator
        self.num_slots = num_slots
        self.held: dict[int, tuple[Task, Generator[EpochMetrics, None, Measurement]]] = {}
        self.waiting: set[int] = set()  # tickets at a rung

    @property
    def num_free(self) -> int:
        return self.num_slots - len(self.held)

    def submit(self, ticket: int, task: Task) -> None:
        assert self.num_free
        self.held[ticket] = task, self.evaluator.evaluate(task)

    def wait(self, timeout_s: float | None = None) -> list[tuple[int, Message]]:
        assert not self.waiting, "an evaluation at a rung must be answered"
        if not self.held:
            return []
        ticket = self.next_ticket()
        event = self.step(ticket)
        if isinstance(event, Reported):
            self.waiting.add(ticket)
        else:
            del self.held[ticket]
        return [(ticket, event)]

    def next_ticket(self) -> int:
        """The held task that continues next: the one begun first."""
        return next(iter(self.held))

    def step(self, ticket: int) -> Message:
        """Run a held task to its next rung or its end."""
        return advance(self.held[ticket][1], torch.get_num_threads())

    def go_on(self, ticket: int) -> None:
        self.waiting.remove(ticket)

    def stop(self, ticket: int) -> None:
        self.waiting.remove(ticket)
        _, evaluation = self.held.pop(ticket)
        evaluation.close()

    def close(self) -> None:
        for _, evaluation in self.held.values():
            evaluation.close()
        self.held.clear()
        self.waiting.clear()
