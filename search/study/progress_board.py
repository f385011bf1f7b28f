"""The progress of a running study; none of it is stored."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from sharedattn.progress import WorkProgress
from sharedattn.results.records import TrialRole
from sharedattn.search.status import Failed, Progress, Running
from sharedattn.search.study.context import StudyContext


@dataclass(frozen=True, slots=True)
class SearchCounts:
    """Progress of the search.

    Attributes:
        num_ended: number of search trials that are complete, pruned or failed.
        num_left: number of trials not started yet, or None to estimate no time for them.
    """

    num_ended: int
    num_left: int | None


class ProgressBoard:
    """Keeps the running and the failed trials, and reports them to an observer.

    Args:
        context: the study.
        num_slots: number of trials that run at once.
        counts: returns the current progress of the search.
        on_progress: the observer, or None.

    Attributes:
        num_ended: number of confirmations and baselines that are complete or failed, by role.
        num_asked: number of them that were asked for so far, by role.
    """

    def __init__(
        self,
        context: StudyContext,
        num_slots: int,
        counts: Callable[[], SearchCounts],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.num_ended: Counter[TrialRole] = Counter()
        self.num_asked: Counter[TrialRole] = Counter()
        self._context = context
        self._num_slots = num_slots
        self._counts = counts
        self._on_progress = on_progress
        self._running: dict[int, Running] = {}  # by ticket
        self._failed: list[Failed] = []
        self._num_timed = 0  # search trials that ended in this run, and their total slot seconds
        self._timed_s = 0.0
        self._started = time.monotonic()

    def launched(self, ticket: int, running: Running) -> None:
        """Record that something was put into a slot."""
        self._running[ticket] = running

    def progressed(self, ticket: int, progress: WorkProgress) -> None:
        """Record the progress of something that runs."""
        self._running[ticket] = replace(self._running[ticket], progress=progress)

    def reported(self, ticket: int, top1: float) -> None:
        """Record a reported accuracy, a fraction."""
        self._running[ticket] = replace(self._running[ticket], top1=top1)

    def left_slot(self, ticket: int, *, has_ended: bool) -> None:
        """Record that something left its slot; `has_ended` if it is not run again."""
        running = self._running.pop(ticket)
        if has_ended and running.role is TrialRole.SEARCH:
            self._num_timed += 1
            self._timed_s += time.monotonic() - running.started_at

    def failed(self, name: str, placement: str, reason: str) -> None:
        """Record a failed trial; takes the fields of `Failed`."""
        self._failed.append(Failed(name=name, placement=placement, reason=reason))

    def show(self, phase: TrialRole, shared: tuple[Running, ...] = ()) -> None:
        """Report the study's progress to the observer.

        Args:
            phase: current phase of the study.
            shared: running work that is not a trial.
        """
        if self._on_progress is None:
            return
        counts = self._counts()
        self._on_progress(
            Progress(
                phase=phase,
                num_ended=counts.num_ended,
                num_confirmed=self.num_ended[TrialRole.CONFIRM],
                num_baselines=self.num_ended[TrialRole.BASELINE],
                num_asked=self.num_asked[phase],
                running=(*shared, *self._running.values()),
                failed=self._failed,
                search_left_s=(
                    None
                    if phase is not TrialRole.SEARCH or counts.num_left is None
                    else self._search_left_s(counts.num_left)
                ),
                load_rows=lambda: self._context.store.trials.of(self._context.study),
                wall_time_s=time.monotonic() - self._started,
            )
        )

    def _search_left_s(self, num_left: int) -> float | None:
        """Seconds until the last search trial ends, at the mean duration so far.

        None before a trial has ended or estimated its own duration, and once none is left.
        """
        now = time.monotonic()
        running = [r for r in self._running.values() if r.role is TrialRole.SEARCH]
        known = {
            r.number: r.progress.left_s
            for r in running
            if r.progress is not None and r.progress.left_s is not None
        }
        num_timed, timed_s = self._num_timed, self._timed_s
        if not num_timed:
            estimated = [r for r in running if r.number in known]
            num_timed = len(estimated)
            timed_s = sum(now - r.started_at + known[r.number] for r in estimated)
        if not num_timed or (num_left <= 0 and not running):
            return None
        mean_s = timed_s / num_timed
        lefts = [known.get(r.number, max(0.0, mean_s - now + r.started_at)) for r in running]
        in_turn_s = (max(0, num_left) * mean_s + sum(lefts)) / self._num_slots
        return max([in_turn_s, *lefts])
