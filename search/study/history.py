"""The search trials so far, and which of them the searcher has been told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sharedattn.placement import Placement
from sharedattn.search.searchers import PastTrial, Searcher
from sharedattn.search.study.context import Visibility


class SearchHistory:
    """Keeps the search trials by number, and tells the searcher each when visibility allows.

    Args:
        searcher: a new searcher; it is fed only here.
        visibility: determines which trials a proposal may use.

    Attributes:
        trials: the trials by number.
        seen: placements that must not be proposed again.
    """

    def __init__(self, searcher: Searcher, visibility: Visibility) -> None:
        self.trials: list[PastTrial] = []
        self.seen: set[Placement] = set()
        self._searcher = searcher
        self._visibility = visibility
        self._unfinished: set[int] = set()
        self._pending_tells: list[int] = []  # ended trials that the searcher was not told yet

    @property
    def num_ended(self) -> int:
        """Number of trials that are complete, pruned or failed."""
        return len(self.trials) - len(self._unfinished)

    def may_start(self, number: int) -> bool:
        """Whether all trials that the proposal of trial `number` waits for have ended."""
        visibility = self._visibility
        return not visibility.waits or (
            min(self._unfinished, default=number) > number - visibility.lag
        )

    def restore(self, trial: PastTrial, *, has_ended: bool) -> None:
        """Add the next stored trial; `replay` passes it to the searcher."""
        self.trials.append(trial)
        self.seen.add(trial.placement)
        if has_ended:
            self._pending_tells.append(trial.number)
        else:
            self._unfinished.add(trial.number)

    def replay(self) -> None:
        """Feed the searcher the restored trials, each after the results known at its proposal."""
        for trial in self.trials:
            self.tell_before(trial.number)
            self._searcher.accept(trial)

    def replay_at_once(self) -> None:
        """Feed the searcher all restored trials before any of their results."""
        for trial in self.trials:
            self._searcher.accept(trial)

    def start(self, trial: PastTrial, parameters: Mapping[str, Any]) -> None:
        """Add the next trial, which runs now.

        Args:
            trial: the trial.
            parameters: its placement's parameters by the searcher's encoding.
        """
        self.trials.append(trial)
        self.seen.add(trial.placement)
        self._unfinished.add(trial.number)
        self._searcher.accept(trial, parameters)

    def end(
        self,
        number: int,
        values: tuple[float, ...] | None,
        *,
        failed: bool = False,
        accuracies: tuple[float, ...] = (),
    ) -> None:
        """Record the end of a trial.

        Args:
            number: the trial's number.
            values: the values to tell, one per objective, or None if it failed.
            failed: whether it failed.
            accuracies: as in `PastTrial`.
        """
        self.trials[number] = replace(
            self.trials[number], values=values, failed=failed, accuracies=accuracies
        )
        self._unfinished.discard(number)
        self._pending_tells.append(number)

    def tell_before(self, number: int) -> None:
        """Tell the searcher the results that trial `number` may use, by number."""
        newest = number - self._visibility.lag
        self._tell(sorted(n for n in self._pending_tells if n <= newest))
        self._pending_tells = [n for n in self._pending_tells if n > newest]

    def tell_all(self) -> None:
        """Tell the searcher every trial that has ended, in the order in which they ended."""
        self._tell(self._pending_tells)
        self._pending_tells = []

    def _tell(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._searcher.tell(self.trials[number])
