"""Alternates two threads: the study loop and a scheduler that runs its tasks.

A scheduler with its own loop, such as Ray Tune's, asks for tasks and delivers events; the study
loop submits tasks and asks for events. Each is written as if it called the other.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque

from sharedattn.search.errors import ClusterLostError
from sharedattn.search.evaluators import Task
from sharedattn.search.executors.base import Event, Reported

_LONGEST_WAIT_S = 0.2


class ClosedError(RuntimeError):
    """The study loop has closed; the scheduler ends."""


class Handover:
    """Passes tasks from the study loop to a scheduler's thread, and events back.

    Like coroutines, only one of the two runs at a time: after an event, the scheduler stands still
    until the loop waits again. By then the loop has recorded and answered the event and submitted
    the next tasks, so the scheduler never sees an empty queue that is about to be filled, and
    neither thread takes the interpreter from the other.

    Events of tickets that are not in flight are dropped: their tasks were considered lost.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._tasks: deque[tuple[int, Task]] = deque()
        self._in_flight: set[int] = set()
        self._events: list[tuple[int, Event]] = []
        self._answers: dict[int, bool] = {}
        self._unanswered: int | None = None
        self._loop_runs = True
        self._closed = False
        self._ended = False
        self._error: BaseException | None = None

    # The study loop's side

    @property
    def num_in_flight(self) -> int:
        """Number of submitted tasks without a last event, except stopped ones."""
        return len(self._in_flight)

    def submit(self, ticket: int, task: Task) -> None:
        """Pass a task to the scheduler."""
        with self._condition:
            self._in_flight.add(ticket)
            self._tasks.append((ticket, task))

    def wait(self, timeout_s: float | None) -> list[tuple[int, Event]]:
        """Let the scheduler run until an event arrives or the time is up.

        Raises:
            ClusterLostError: the scheduler ended.
            RuntimeError: a report is still unanswered.
        """
        with self._condition:
            if self._unanswered is not None:
                raise RuntimeError(
                    f"the report of ticket {self._unanswered} has no answer; answer it before "
                    f"the next wait"
                )
            if not self._events:
                if not self._in_flight:
                    return []
                self._loop_runs = False
                self._condition.notify_all()
                self._wait_for_event(timeout_s)
            if self._ended and not self._events:
                raise ClusterLostError(
                    f"the cluster went away, {_last_line(self._error)}; run the same command "
                    f"again, all finished trials are kept"
                ) from self._error
            events, self._events = self._events, []
            for ticket, event in events:
                if isinstance(event, Reported):
                    self._unanswered = ticket
            return events

    def answer(self, ticket: int, goes_on: bool) -> None:
        """Decide whether a task that reported continues; if not, it leaves the flight."""
        with self._condition:
            self._unanswered = None
            self._answers[ticket] = goes_on
            if not goes_on:
                self._in_flight.discard(ticket)

    def close(self) -> None:
        """End the scheduler's thread at its next call; nothing more is delivered."""
        with self._condition:
            self._closed = True
            self._in_flight.clear()
            self._condition.notify_all()

    # The scheduler's side

    def take(self) -> tuple[int, Task] | None:
        """The next submitted task, or None if there is none yet.

        Raises:
            ClosedError: the study loop closed.
        """
        with self._condition:
            self._check()
            return self._tasks.popleft() if self._tasks else None

    def check(self) -> None:
        """Raise in the scheduler's thread if the study loop has closed.

        Raises:
            ClosedError: the study loop closed.
        """
        with self._condition:
            self._check()

    def held(self) -> list[int]:
        """Tickets in flight that the scheduler has taken."""
        with self._condition:
            return sorted(self._in_flight - {ticket for ticket, _ in self._tasks})

    def deliver(self, ticket: int, event: Event) -> bool:
        """Pass an event to the study loop, and let the loop run until it waits again.

        Returns:
            Whether the task continues.

        Raises:
            ClosedError: the study loop closed.
        """
        with self._condition:
            self._check()
            if ticket not in self._in_flight:
                return False
            if not isinstance(event, Reported):
                self._in_flight.discard(ticket)
            self._events.append((ticket, event))
            self._loop_runs = True
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._closed or not self._loop_runs)
            self._check()
            return self._answers.pop(ticket, False)

    def end(self, error: BaseException | None) -> None:
        """Record that the scheduler ended, with its error."""
        with self._condition:
            self._ended = True
            self._error = error
            self._condition.notify_all()

    def _wait_for_event(self, timeout_s: float | None) -> None:
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while not self._events and not self._ended:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return
            # Wait briefly each time: a Ctrl-C that the system delivers to another thread, such as
            # one of Ray's, reaches this one only when it runs.
            self._condition.wait(min(remaining, _LONGEST_WAIT_S))

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("the study loop wants no more")


def _last_line(error: BaseException | None) -> str:
    """The last line of an error; in a nested traceback it names the cause."""
    lines = str(error).strip().splitlines() if error is not None else []
    return f"Ray says: {lines[-1].strip()}" if lines else "and does not say why"
