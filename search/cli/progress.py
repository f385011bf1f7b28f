"""Display of a running search or training: its state, its progress, and the front so far.

On a terminal, a thread of rich redraws it in place, so that times advance while nothing happens.
Elsewhere it prints lines from time to time.
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
from sharedattn.tasks import CLASSIFY, QUALITIES

REFRESHES_PER_S = 1.0
FIRST_LINE_AFTER_S = 10.0
LINE_EVERY_S = 60.0
FRONT_SHARE = 0.05  # largest share of the driver's time for reading the displayed front
_MIN_FRONT_ROWS = 3
_MAX_BAR = 40  # columns


class Display(ABC):
    """A display redrawn in place on a terminal, or printed as lines elsewhere.

    Args:
        console: output; standard error in commands.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._is_live = console.is_terminal and not console.is_dumb_terminal
        self._lock = threading.Lock()  # guards the state between updates and the drawing thread
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
        """The current content for a terminal."""

    @abstractmethod
    def _lines(self) -> Iterable[str]:
        """The current lines for a log."""

    def _locked_picture(self) -> RenderableType:
        with self._lock:
            return self._picture()

    def _log(self) -> None:
        """Print the lines if they are due and there is no terminal."""
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
        """Print a permanent line above the redrawn part."""
        self._console.print(line, style=style, markup=False, highlight=False)

    @property
    def _width(self) -> int:
        return self._console.width

    @property
    def _overflow(self) -> OverflowMethod:
        """How overlong text ends: rich's ellipsis is not ASCII."""
        return "ellipsis" if self._console.encoding.lower().startswith("utf") else "crop"


class StudyDisplay(Display):
    """Display of a running study: its trials, its slots, and its front so far.

    Args:
        console: as in `Display`.
        record: the study.
        objectives: the objectives that the front shows.
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
        self._front_of: tuple[int, int] | None = None  # trials and trainings ended when read
        self._front_due_at = 0.0
        self._drawing: tuple[object, RenderableType] | None = None

    def update(self, progress: Progress) -> None:
        """Update the study's progress."""
        if self._is_live:
            self._read_front(progress)
        with self._lock:
            self._progress = progress
            self._told_at = time.monotonic()
        self._tell_failures(progress.failed)
        self._log()

    def _read_front(self, progress: Progress) -> None:
        """Read the front if trials have ended since; less often if reading is slow."""
        ended = (progress.num_ended, progress.num_confirmed)
        begun_at = time.monotonic()
        if ended == self._front_of or begun_at < self._front_due_at:
            return
        front = study_front(
            progress.load_rows(),
            self._objectives,
            self._record.confirm_seeds,
            retrains=self._record.retrains,
        )
        with self._lock:
            self._front = front.members
        self._front_of = ended
        now = time.monotonic()
        self._front_due_at = now + max(1.0 / REFRESHES_PER_S, (now - begun_at) / FRONT_SHARE)

    def _tell_failures(self, failed: Sequence[Failed]) -> None:
        """Print each reason for which trials failed, once."""
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
            parts += [
                Text(""),
                slots_table(progress.running, now, self._record.quality, overflow=self._overflow),
            ]
        if self._front:
            room = self._console.height - 5 - len(progress.running) - 3
            parts += [Text(""), self._drawn_front(max(_MIN_FRONT_ROWS, room))]
        return Group(*parts)

    def _drawn_front(self, num_rows: int) -> RenderableType:
        """The front, drawn again only if it or its size changed, as drawing is slowest."""
        key = (self._front, num_rows, self._width)
        if self._drawing is None or self._drawing[0] != key:
            lines = self._console.render_lines(Group(*self._front_so_far(num_rows)), pad=False)
            self._drawing = (key, SegmentLines(lines, new_lines=True))
        return self._drawing[1]

    def _front_so_far(self, num_rows: int) -> Iterator[RenderableType]:
        """The front in at most `num_rows` rows, spread evenly over its members."""
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
            return f", confirming: {_runs(progress.num_confirmed, progress.num_asked)} finished"
        if progress.phase is TrialRole.BASELINE:
            return f", baselines: {_runs(progress.num_baselines, progress.num_asked)} finished"
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
            yield f"  {slot_line(running, now, self._record.quality)}"


class TrainingDisplay(Display):
    """Display of one training; pass `tell` as its callback.

    Args:
        console: as in `Display`.
        name: name for display.
        placement: the placement's text.
    """

    def __init__(self, console: Console, name: str, placement: str) -> None:
        super().__init__(console)
        self._running = Running(
            name=name, placement=placement, started_at=time.monotonic(), progress=None
        )

    def tell(self, progress: WorkProgress) -> None:
        """Update the training's progress."""
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
    running: Sequence[Running],
    now: float,
    quality: str = QUALITIES[CLASSIFY],
    *,
    overflow: OverflowMethod = "ellipsis",
) -> Table:
    """A table of running work, one row each; placements too long for a row are cut.

    Args:
        running: running work.
        now: current `time.monotonic`.
        quality: name of what is reported.
        overflow: rich's overflow method.
    """
    table = Table(box=None, header_style="dim", pad_edge=False, expand=False)
    has_quality = any(one.top1 is not None for one in running)
    table.add_column("running", no_wrap=True, overflow=overflow)
    # Only this column may be narrower than its texts, which are cut, not wrapped.
    table.add_column("placement")
    for name in (
        "epoch",
        "images/s",
        "loss",
        *((quality,) if has_quality else ()),
        "time",
        "left",
    ):
        table.add_column(name, justify="right", no_wrap=True, overflow=overflow)
    for one in running:
        epoch, speed, loss, left = _cells(one.progress)
        top1 = "" if one.top1 is None else f"{one.top1:.3f}"
        table.add_row(
            one.name,
            # `Text`, since a plain string's brackets would be markup.
            Text(_what(one), no_wrap=True, overflow=overflow),
            epoch,
            speed,
            loss,
            *((top1,) if has_quality else ()),
            clock(now - one.started_at),
            left,
        )
    return table


def slot_line(running: Running, now: float, quality: str = QUALITIES[CLASSIFY]) -> str:
    """One log line for the work in one slot.

    Args:
        running: the work.
        now: current `time.monotonic`.
        quality: name of what is reported.
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
        parts.append(f"{quality} {running.top1:.3f}")
    return "  ".join(filter(None, parts))


def clock(seconds: float) -> str:
    """Format a duration as 0:42, 12:05 or 1:02:11."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def about(seconds: float) -> str:
    """Format an estimated duration with few digits."""
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
    """Epoch, images per second, loss and time left; unknown ones are empty."""
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


def _runs(count: int, asked: int) -> str:
    return f"{count} of {asked} run" if asked == 1 else f"{count} of {asked} runs"
