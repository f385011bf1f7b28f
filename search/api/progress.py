"""Progress display of a study: a bar in a notebook, otherwise the command line's display."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from importlib import import_module
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from sharedattn.search.cli.progress import StudyDisplay, about, clock
from sharedattn.search.run import Prepared
from sharedattn.search.status import Progress

_EVERY_S = 0.5


class NotebookDisplay:
    """A bar below a notebook's cell, redrawn in place.

    Args:
        name: name of the study.
        num_trials: requested number of trials.
    """

    def __init__(self, name: str, num_trials: int) -> None:
        self._name = name
        self._num_trials = num_trials
        self._handle: Any = None
        self._drawn_at = 0.0
        self._newest: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._newest is not None:
            self._draw(self._newest)

    def update(self, progress: Progress) -> None:
        """Show new progress."""
        self._newest = progress
        if time.monotonic() - self._drawn_at >= _EVERY_S:
            self._draw(progress)

    def _draw(self, progress: Progress) -> None:
        # Not a dependency: a notebook provides it.
        notebook: Any = import_module("IPython.display")
        self._drawn_at = time.monotonic()
        picture = notebook.HTML(self.html(progress))
        if self._handle is None:
            self._handle = notebook.display(picture, display_id=True)
        else:
            self._handle.update(picture)

    def html(self, progress: Progress) -> str:
        """The bar with its texts, as HTML."""
        texts = [
            f"{progress.num_ended:,} of {self._num_trials:,} trials",
            clock(progress.wall_time_s),
        ]
        if progress.search_left_s is not None:
            texts.append(f"{about(progress.search_left_s)} left")
        if progress.num_confirmed:
            texts.append(f"{progress.num_confirmed} confirmations")
        if progress.num_baselines:
            texts.append(f"{progress.num_baselines} baselines")
        if progress.failed:
            last = progress.failed[-1]
            texts.append(f"{len(progress.failed)} failed, the last by {last.reason}")
        return (
            f"<b>{escape(self._name)}</b> "
            f'<progress value="{progress.num_ended}" max="{self._num_trials}"></progress> '
            f"{escape('; '.join(texts))}"
        )


@contextmanager
def watcher(
    prepared: Prepared, errors: Console, shows: bool
) -> Iterator[Callable[[Progress], None] | None]:
    """Yield a callback for the study's progress, or None; its display stays open meanwhile.

    Args:
        prepared: the study.
        errors: the display's console, outside of a notebook.
        shows: whether to display anything.
    """
    if not shows:
        yield None
        return
    display: NotebookDisplay | StudyDisplay
    if _is_notebook():
        display = NotebookDisplay(prepared.record.name, prepared.record.num_trials)
    else:
        display = StudyDisplay(errors, prepared.record, prepared.objectives)
    with display:
        yield display.update


def _is_notebook() -> bool:
    # A notebook has already imported IPython.
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel")
