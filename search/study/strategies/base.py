"""The interface of search strategies, which create a study's search trials."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from sharedattn.results.records import TrialParameters
from sharedattn.search.evaluators import Task
from sharedattn.search.study.confirming import Confirmer
from sharedattn.search.study.context import StudyContext
from sharedattn.search.study.front_tracker import FrontTracker
from sharedattn.search.study.history import SearchHistory
from sharedattn.search.study.judging import RungJudge
from sharedattn.search.study.progress_board import ProgressBoard, SearchCounts
from sharedattn.search.study.proposing import Proposer
from sharedattn.search.study.recording import RunningTrial, StudyFiles
from sharedattn.search.study.running import TrialRunner, TrialStarter


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyParts:
    """The parts of a study's loop, one job each.

    Attributes:
        context: the study, its database and its space.
        history: the search trials, and which of them the searcher knows.
        proposer: finds a placement for each search trial.
        judge: judges trials at rungs.
        front: the search's front.
        files: weights and checkpoints.
        board: reports progress.
        runner: runs trials in slots.
        starter: creates rows of trials and starts them.
        confirmer: confirms the front.
    """

    context: StudyContext
    history: SearchHistory
    proposer: Proposer
    judge: RungJudge
    front: FrontTracker
    files: StudyFiles
    board: ProgressBoard
    runner: TrialRunner
    starter: TrialStarter
    confirmer: Confirmer


class SearchStrategy(ABC):
    """Creates the search trials of one study; the database holds all its lasting state."""

    @abstractmethod
    def restore(self, parts: StudyParts) -> list[TrialParameters]:
        """Restore history, judge and front from the database.

        Returns:
            Search trials that were running when the driver ended.
        """

    @abstractmethod
    def search(
        self, parts: StudyParts, restarted: Sequence[RunningTrial]
    ) -> Sequence[RunningTrial]:
        """Run until all requested search trials are finished.

        Args:
            parts: the loop's parts.
            restarted: trials that were running when the driver ended, not yet started again.

        Returns:
            Trials of `restarted` that the confirmation still has to start.
        """

    @abstractmethod
    def counts(self, parts: StudyParts) -> SearchCounts:
        """The search's progress, for display."""

    def adapt(self, task: Task, context: StudyContext) -> Task:
        """Convert a task of the evaluator to the task to run."""
        return task

    def shared_checkpoints(self, context: StudyContext) -> frozenset[str]:
        """Names of checkpoints that do not belong to a trial."""
        return frozenset()

    def finish(self, parts: StudyParts) -> None:  # noqa: B027 (most have nothing to do)
        """Measure what is measured at a study's end, once its front is confirmed."""

    def prepare_confirmation(self, parts: StudyParts, left: Sequence[RunningTrial]) -> None:  # noqa: B027 (most have nothing to do)
        """Prepare the confirmation; `left` is the result of `search`."""
