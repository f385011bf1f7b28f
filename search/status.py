"""The progress of a running study, for observers; none of it is stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sharedattn.progress import WorkProgress
from sharedattn.results.records import TrialRole, TrialRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Something that runs in a slot.

    Attributes:
        name: display name: `search 12`, `seed 4` for a confirmation, `supernet`, `scoring`.
        placement: text of the placement; empty if it does not concern one.
        role: role of the trial, or None for work shared by all placements.
        number: number of the trial within its role, or None for shared work.
        progress: last reported progress, or None before the first report.
        top1: last reported validation accuracy, a fraction, or None before the first report.
        started_at: time at which it was put into its slot, by `time.monotonic`.
    """

    name: str
    placement: str = ""
    role: TrialRole | None = None
    number: int | None = None
    progress: WorkProgress | None = None
    top1: float | None = None
    started_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A trial that failed in this run.

    Attributes:
        name: as in `Running`.
        placement: text of the placement.
        reason: last line of its traceback, or what is known of its end, without secrets.
    """

    name: str
    placement: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress of a study.

    Attributes:
        phase: search, confirm once all search trials are finished, or baseline once the front is
            confirmed.
        num_ended: number of search trials that are complete, pruned or failed.
        num_confirmed: number of trainings of the confirmation that are complete or failed.
        num_baselines: number of trainings of baselines that are complete or failed.
        num_asked: number of trainings that the phase consists of as far as is known: confirmed
            seeds may change the front, and ask for more; 0 during the search.
        running: what runs, in the order of its start.
        failed: the trials that failed in this run so far, in the order of their ends.
        search_left_s: estimated seconds until the last search trial ends, or None if not known
            yet or if the search is over.
        load_rows: reads every trial with its results from the database.
        wall_time_s: seconds since this run began.
    """

    phase: TrialRole
    num_ended: int
    num_confirmed: int
    num_baselines: int
    num_asked: int
    running: tuple[Running, ...]
    failed: Sequence[Failed]
    search_left_s: float | None
    load_rows: Callable[[], list[TrialRow]]
    wall_time_s: float
