"""What a running study says of itself, to whoever watches; none of it is stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sharedattn.progress import WorkProgress
from sharedattn.results.records import TrialRole, TrialRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """One thing that runs in a slot.

    Attributes:
        name: what it is, for people: `search 12`, `seed 4` for a confirmation, `supernet`,
            `scoring`.
        placement: text of the placement; empty where it is not about one.
        role: of a trial; None: it is work that all placements share.
        number: of the trial, within its role; None likewise.
        progress: how far it is, as it last said; None: it has not said yet.
        top1: validation accuracy that it last reported, a fraction; None: none yet.
        started_at: when it was put into its slot, by `time.monotonic`.
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
        name: as of `Running`.
        placement: text of the placement.
        reason: the last line of its traceback, or what is known of its end, without secrets.
    """

    name: str
    placement: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a study is.

    Attributes:
        phase: search, or confirm once all search trials are finished.
        num_ended: search trials that are complete, pruned or failed.
        num_confirmed: trainings of the confirmation that are complete or failed.
        running: what runs, in the order of its start.
        failed: the trials that failed in this run, in the order of their ends; it grows.
        search_left_s: estimated seconds until the last search trial ends; None: not known yet, or
            the search is over.
        load_rows: reads every trial with its results from the database.
        wall_time_s: seconds since this run began.
    """

    phase: TrialRole
    num_ended: int
    num_confirmed: int
    running: tuple[Running, ...]
    failed: Sequence[Failed]
    search_left_s: float | None
    load_rows: Callable[[], list[TrialRow]]
    wall_time_s: float
