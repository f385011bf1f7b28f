"""What a running search shows: how far it is, and the front so far."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from results.front import study_front
from results.pareto import Objective
from results.records import StudyRecord, TrialRole
from search.study import Progress
from search.tables import front_table

REFRESH_S = 0.5
LINE_EVERY_S = 10.0


class ProgressDisplay:
    """A live bar and front on a terminal; a line now and then where there is none.

    Args:
        console: where to show; the command line gives standard error.
        record: the study.
        objectives: what its front is drawn in.
    """

    def __init__(
        self, console: Console, record: StudyRecord, objectives: tuple[Objective, ...]
    ) -> None:
        self._console = console
        self._record = record
        self._objectives = objectives
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._shown_at = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def update(self, progress: Progress) -> None:
        """Show how far the study is, now and then."""
        now = time.monotonic()
        if now - self._shown_at < (REFRESH_S if self._console.is_terminal else LINE_EVERY_S):
            return
        self._shown_at = now
        if self._console.is_terminal:
            self._live.update(self._picture(progress), refresh=True)
        else:
            self._console.print(self._line(progress), highlight=False)

    def _line(self, progress: Progress) -> str:
        what = f"{progress.num_ended} of {self._record.num_trials} trials"
        if progress.phase is TrialRole.CONFIRM:
            rows = progress.load_rows()
            ended = sum(r.role is TrialRole.CONFIRM and r.finished_at is not None for r in rows)
            what += f", {ended} trainings with further seeds"
        doing = f"; {progress.doing}" if progress.doing else ""
        return f"{progress.wall_time_s:5.0f} s  {what} finished{doing}"

    def _picture(self, progress: Progress) -> Group:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            "trials",
            ProgressBar(self._record.num_trials, progress.num_ended, width=40),
            f"{progress.num_ended}/{self._record.num_trials}",
            f"{progress.wall_time_s:.0f} s",
        )
        doing = "confirming" if progress.phase is TrialRole.CONFIRM else "training"
        running = Text(
            progress.doing or f"{doing}  {'   '.join(progress.running) or '-'}",
            style="dim",
            overflow="ellipsis",
            no_wrap=True,
        )
        front = study_front(progress.load_rows(), self._objectives, self._record.confirm_seeds)
        return Group(bar, running, front_table(front))
