"""What a study says of itself while it runs; none of it is stored."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from sharedattn.progress import WorkProgress
from sharedattn.results.records import TrialRole
from sharedattn.search.status import Failed, Progress, Running
from sharedattn.search.study.context import StudyContext


@dataclass(frozen=True, slots=True)
class SearchCounts:
    """How far the search is.

    Attributes:
        num_ended: search trials that are complete, pruned or failed.
        num_left: those that no slot has had yet; None: no time is estimated for them.
    """

    num_ended: int
    num_left: int | None


class ProgressBoard:
    """Keeps what runs and what has failed, and tells whoever watches.

    Args:
        context: the study.
        num_slots: trials that run at once.
        counts: how far the search is, at the moment.
        on_progress: is told; None: nobody watches.

    Attributes:
        num_confirmed: trainings of the confirmation that are complete or failed.
    """

    def __init__(
        self,
        context: StudyContext,
        num_slots: int,
        counts: Callable[[], SearchCounts],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.num_confirmed = 0
        self._context = context
        self._num_slots = num_slots
        self._counts = counts
        self._on_progress = on_progress
        self._running: dict[int, Running] = {}  # by ticket
        self._failed: list[Failed] = []
        self._num_timed = 0  # search trials that ended in this run, and their seconds in slots
        self._timed_s = 0.0
        self._started = time.monotonic()

    def launched(self, ticket: int, running: Running) -> None:
        """Something has been put into a slot."""
        self._running[ticket] = running

    def progressed(self, ticket: int, progress: WorkProgress) -> None:
        """What runs has said how far it is."""
        self._running[ticket] = replace(self._running[ticket], progress=progress)

    def reported(self, ticket: int, top1: float) -> None:
        """What runs has reported an accuracy, a fraction."""
        self._running[ticket] = replace(self._running[ticket], top1=top1)

    def left_slot(self, ticket: int, *, has_ended: bool) -> None:
        """What ran has left its slot; `has_ended`: it is not run again."""
        running = self._running.pop(ticket)
        if has_ended and running.role is TrialRole.SEARCH:
            self._num_timed += 1
            self._timed_s += time.monotonic() - running.started_at

    def failed(self, name: str, placement: str, reason: str) -> None:
        """A trial has failed; arguments as of `Failed`."""
        self._failed.append(Failed(name=name, placement=placement, reason=reason))

    def show(self, phase: TrialRole, shared: tuple[Running, ...] = ()) -> None:
        """Tell whoever watches how far the study is.

        Args:
            phase: where it is.
            shared: what runs that is no trial.
        """
        if self._on_progress is None:
            return
        counts = self._counts()
        self._on_progress(
            Progress(
                phase=phase,
                num_ended=counts.num_ended,
                num_confirmed=self.num_confirmed,
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
        """Seconds until the last search trial ends, if the others take as long as those so far.

        None before a trial has ended or said how long it takes, and once none is left.
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
