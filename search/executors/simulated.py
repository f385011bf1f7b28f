"""Execution by a clock of its own: evaluations end in the order in which trainings would."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from sharedattn.search.evaluators.base import Task
from sharedattn.search.evaluators.table import BenchEvaluator
from sharedattn.search.executors.base import Message, Reported
from sharedattn.search.executors.in_process import InProcessExecutor


class SimulatedExecutor(InProcessExecutor):
    """Looks up tasks in this process; each holds its slot for the seconds that it stands for.

    Args:
        evaluator: looks up evaluations.
        num_slots: number of simulated slots.

    Attributes:
        now_s: simulated seconds since the beginning.
    """

    def __init__(self, evaluator: BenchEvaluator, num_slots: int) -> None:
        super().__init__(evaluator, num_slots)
        self.now_s = 0.0
        self._table = evaluator
        self._epochs: dict[int, int] = {}  # finished, by ticket
        self._due_s: dict[int, float] = {}

    def submit(self, ticket: int, task: Task) -> None:
        super().submit(ticket, task)
        self._epochs[ticket] = 0
        self._go_to_next_report(ticket)

    def next_ticket(self) -> int:
        """The held task whose next report or end is first, on a tie the one of least ticket."""
        return min(self.held, key=lambda ticket: (self._due_s[ticket], ticket))

    def step(self, ticket: int) -> Message:
        self.now_s = max(self.now_s, self._due_s[ticket])
        event = super().step(ticket)
        if isinstance(event, Reported):
            self._epochs[ticket] = event.metrics.epoch
        return event

    def go_on(self, ticket: int) -> None:
        super().go_on(ticket)
        self._go_to_next_report(ticket)

    def _go_to_next_report(self, ticket: int) -> None:
        task, _ = self.held[ticket]
        epochs = self._table.fidelity.epochs
        begun = self._epochs[ticket]
        until = next((rung for rung in self._table.rungs if rung > begun), epochs)
        try:
            seconds = self._table.simulated_s(task) * (until - begun) / epochs
        except KeyError:
            seconds = 0.0  # the evaluation raises it again, which is then recorded
        self._due_s[ticket] = self.now_s + seconds


def end_times(seconds: Sequence[float], num_slots: int) -> list[float]:
    """When trials end that begin in order, each as soon as one of the slots is free.

    Args:
        seconds: of each trial, by number, such as a simulated study's `wall_time_s`.
        num_slots: number of slots.

    Returns:
        Seconds from the first beginning to each trial's end.
    """
    free_s = [0.0] * num_slots
    ends = []
    for duration_s in seconds:
        ends.append(heapq.heappop(free_s) + duration_s)
        heapq.heappush(free_s, ends[-1])
    return ends
