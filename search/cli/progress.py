"""What a running search or training shows: what runs, how far it is, and the front so far.

On a terminal all of it stands in one place and is drawn anew by a thread of rich's, so that times
move while nothing happens. Where there is no terminal, lines are printed now and then.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, OverflowMethod, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import SegmentLines
from rich.table import Table
from rich.text import Text

from sharedattn.objectives import Objective
from sharedattn.progress import ScoringProgress, TrainingProgress, WorkProgress
from sharedattn.results.failures import MAX_SHOWN
from sharedattn.results.front.confirmation import Candidate, study_front
from sharedattn.results.records import StudyRecord, TrialRole
from sharedattn.search.cli.tables import members_table
from sharedattn.search.status import Failed, Progress, Running

REFRESHES_PER_S = 1.0
FIRST_LINE_AFTER_S = 10.0
LINE_EVERY_S = 60.0
FRONT_SHARE = 0.05  # of the driver's time, at most, that reading the front for the display takes
_MIN_FRONT_ROWS = 3
_MAX_BAR = 40  # columns


class Display(ABC):
    """Something shown in place on a terminal, and in lines where there is none.

    Args:
        console: where to show; the command line gives standard error.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._is_live = console.is_terminal and not console.is_dumb_terminal
        self._lock = threading.Lock()  # between what is told and the thread that draws it
        self._live: Live | None = None
        self._begun_at = time.monotonic()
        self._printed_at: float | None = None

    def __enter__(self) -> Self:
        if self._is_live:
            self._live = Live(
                console=self._console,
                refresh_per_second=REFRESHES_PER_S,
                transient=True,
                get_renderable=self._locked_picture,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    @abstractmethod
    def _picture(self) -> RenderableType:
        """What a terminal shows now."""

    @abstractmethod
    def _lines(self) -> Iterable[str]:
        """What a log says now."""

    def _locked_picture(self) -> RenderableType:
        with self._lock:
            return self._picture()

    def _log(self) -> None:
        """Print lines where they are due, and there is no terminal."""
        if self._is_live:
            return
        now = time.monotonic()
        last, every_s = self._begun_at, FIRST_LINE_AFTER_S
        if self._printed_at is not None:
            last, every_s = self._printed_at, LINE_EVERY_S
        if now - last < every_s:
            return
        self._printed_at = now
        for line in self._lines():
            self._print(line)

    def _print(self, line: str, style: str | None = None) -> None:
        """Print a line for good, above what is shown in place."""
        self._console.print(line, style=style, markup=False, highlight=False)

    @property
    def _width(self) -> int:
        return self._console.width

    @property
    def _overflow(self) -> OverflowMethod:
        """How what is too long ends: rich's ellipsis is no ASCII."""
        return "ellipsis" if self._console.encoding.lower().startswith("utf") else "crop"


class StudyDisplay(Display):
    """A running study: its trials, what is in its slots, and its front so far.

    Args:
        console: as of `Display`.
        record: the study.
        objectives: what its front is drawn in.
    """

    def __init__(
        self, console: Console, record: StudyRecord, objectives: tuple[Objective, ...]
    ) -> None:
        super().__init__(console)
        self._record = record
        self._objectives = objectives
        self._progress: Progress | None = None
        self._told_at = 0.0
        self._num_failures = 0
        self._reasons: set[str] = set()
        self._front: tuple[Candidate, ...] = ()
        self._front_of: tuple[int, int] | None = None  # trials and trainings ended by then
        self._front_due_at = 0.0
        self._drawing: tuple[object, RenderableType] | None = None

    def update(self, progress: Progress) -> None:
        """Take in how far the study is."""
        if self._is_live:
            self._read_front(progress)
        with self._lock:
            self._progress = progress
            self._told_at = time.monotonic()
        self._tell_failures(progress.failed)
        self._log()

    def _read_front(self, progress: Progress) -> None:
        """Read the front where trials have ended since; seldom where it takes long."""
        ended = (progress.num_ended, progress.num_confirmed)
        begun_at = time.monotonic()
        if ended == self._front_of or begun_at < self._front_due_at:
            return
        front = study_front(progress.load_rows(), self._objectives, self._record.confirm_seeds)
        with self._lock:
            self._front = front.members
        self._front_of = ended
        now = time.monotonic()
        self._front_due_at = now + max(1.0 / REFRESHES_PER_S, (now - begun_at) / FRONT_SHARE)

    def _tell_failures(self, failed: Sequence[Failed]) -> None:
        """Print why trials failed, as they do; each reason once."""
        for one in failed[self._num_failures :]:
            if one.reason not in self._reasons and len(self._reasons) < MAX_SHOWN:
                self._reasons.add(one.reason)
                self._print(f"{one.name} failed: {one.reason}  ({one.placement})", style="yellow")
        self._num_failures = len(failed)

    def _picture(self) -> RenderableType:
        progress = self._progress
        if progress is None:
            return Text("")
        now = time.monotonic()
        since = now - self._told_at
        total = self._record.num_trials
        texts = (
            "trials",
            f"{progress.num_ended:,}/{total:,}",
            f"{clock(progress.wall_time_s + since)}{self._left(progress, since)}",
        )
        taken = sum(map(len, texts)) + 2 * len(texts)
        width = max(5, min(_MAX_BAR, self._width - taken))
        bar = Table.grid(padding=(0, 2))
        for _ in range(len(texts) + 1):
            bar.add_column(no_wrap=True, overflow=self._overflow)
        bar.add_row(texts[0], ProgressBar(total, progress.num_ended, width=width), *texts[1:])
        parts: list[RenderableType] = [bar]
        if progress.running:
            parts += [Text(""), slots_table(progress.running, now, overflow=self._overflow)]
        if self._front:
            room = self._console.height - 5 - len(progress.running) - 3
            parts += [Text(""), self._drawn_front(max(_MIN_FRONT_ROWS, room))]
        return Group(*parts)

    def _drawn_front(self, num_rows: int) -> RenderableType:
        """The front as drawn before, unless it or its room has changed: it takes the longest."""
        key = (self._front, num_rows, self._width)
        if self._drawing is None or self._drawing[0] != key:
            lines = self._console.render_lines(Group(*self._front_so_far(num_rows)), pad=False)
            self._drawing = (key, SegmentLines(lines, new_lines=True))
        return self._drawing[1]

    def _front_so_far(self, num_rows: int) -> Iterator[RenderableType]:
        """The front in at most so many rows, spread evenly over it where it has more."""
        members = self._front
        count = len(members)
        if count > num_rows:
            places = [round(i * (count - 1) / (num_rows - 1)) for i in range(num_rows)]
            members = tuple(members[place] for place in places)
        yield members_table(members, self._objectives, one_line=True, overflow=self._overflow)
        if count > num_rows:
            yield Text(f"{num_rows} of the {count} on the front so far", style="dim")

    def _left(self, progress: Progress, since: float) -> str:
        if progress.phase is TrialRole.CONFIRM:
            return f", {_confirmations(progress)}"
        if progress.search_left_s is None:
            return ""
        return f", {about(max(0.0, progress.search_left_s - since))} left"

    def _lines(self) -> Iterator[str]:
        progress = self._progress
        assert progress is not None
        now = time.monotonic()
        yield (
            f"{clock(progress.wall_time_s)}  {progress.num_ended:,} of "
            f"{self._record.num_trials:,} trials finished{self._left(progress, 0.0)}"
        )
        for running in progress.running:
            yield f"  {slot_line(running, now)}"


class TrainingDisplay(Display):
    """One training; `tell` is its callback.

    Args:
        console: as of `Display`.
        name: what it is, for people.
        placement: text of the placement.
    """

    def __init__(self, console: Console, name: str, placement: str) -> None:
        super().__init__(console)
        self._running = Running(
            name=name, placement=placement, started_at=time.monotonic(), progress=None
        )

    def tell(self, progress: WorkProgress) -> None:
        """Take in how far the training is."""
        running = Running(
            name=self._running.name,
            placement=self._running.placement,
            started_at=self._running.started_at,
            progress=progress,
        )
        with self._lock:
            self._running = running
        self._log()

    def _picture(self) -> RenderableType:
        return slots_table([self._running], time.monotonic(), overflow=self._overflow)

    def _lines(self) -> Iterator[str]:
        yield slot_line(self._running, time.monotonic())


def slots_table(
    running: Sequence[Running], now: float, *, overflow: OverflowMethod = "ellipsis"
) -> Table:
    """What runs, a row each; a placement that is too long for its row is cut.

    Args:
        running: what runs.
        now: by `time.monotonic`.
        overflow: rich's name for how a text is cut.
    """
    table = Table(box=None, header_style="dim", pad_edge=False, expand=False)
    has_top1 = any(one.top1 is not None for one in running)
    table.add_column("running", no_wrap=True, overflow=overflow)
    # The one column that may be narrower than its texts, which are cut and not wrapped.
    table.add_column("placement")
    for name in ("epoch", "images/s", "loss", *(("top1",) if has_top1 else ()), "time", "left"):
        table.add_column(name, justify="right", no_wrap=True, overflow=overflow)
    for one in running:
        epoch, speed, loss, left = _cells(one.progress)
        top1 = "" if one.top1 is None else f"{one.top1:.3f}"
        table.add_row(
            one.name,
            # As a plain text its brackets would be markup.
            Text(_what(one), no_wrap=True, overflow=overflow),
            epoch,
            speed,
            loss,
            *((top1,) if has_top1 else ()),
            clock(now - one.started_at),
            left,
        )
    return table


def slot_line(running: Running, now: float) -> str:
    """What runs in one slot, for a log.

    Args:
        running: what runs.
        now: by `time.monotonic`.
    """
    progress = running.progress
    parts = [running.name, running.placement]
    if isinstance(progress, TrainingProgress):
        epoch, speed, loss, left = _cells(progress)
        parts.append(f"epoch {epoch}")
        parts.append("validating" if progress.is_validating else speed and f"{speed} images/s")
        parts.append(loss and f"loss {loss}")
        parts.append(left and f"{left} left")
    elif isinstance(progress, ScoringProgress):
        parts.append(f"{progress.share:.0%} of {progress.placements:,} placements")
        parts.append(progress.left_s is not None and f"{clock(progress.left_s)} left" or "")
    else:
        parts.append(f"for {clock(now - running.started_at)}")
    if running.top1 is not None:
        parts.append(f"top1 {running.top1:.3f}")
    return "  ".join(filter(None, parts))


def clock(seconds: float) -> str:
    """A duration as 0:42, 12:05 or 1:02:11."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def about(seconds: float) -> str:
    """An estimated duration, in no more figures than it deserves."""
    if seconds < 60:
        return "less than a minute"
    if seconds < 90 * 60:
        return f"about {seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"about {hours:.1f} h" if hours < 10 else f"about {hours:.0f} h"


def _what(running: Running) -> str:
    if isinstance(running.progress, ScoringProgress):
        return f"{running.progress.placements:,} placements"
    return running.placement


def _cells(progress: WorkProgress | None) -> tuple[str, str, str, str]:
    """Epoch, images per second, loss and time left, each empty where it is not known."""
    if progress is None:
        return "", "", "", ""
    left = "" if progress.left_s is None else clock(progress.left_s)
    if isinstance(progress, ScoringProgress):
        return f"{progress.share:.0%}", "", "", left
    speed = progress.images_per_s
    return (
        f"{progress.epoch}/{progress.epochs}",
        "validating" if progress.is_validating else "" if speed is None else f"{speed:,.0f}",
        "" if progress.loss is None else f"{progress.loss:.3f}",
        left,
    )


def _confirmations(progress: Progress) -> str:
    runs = "1 run" if progress.num_confirmed == 1 else f"{progress.num_confirmed} runs"
    return f"confirming: {runs} finished"
