"""What a search strategy is: it makes the search trials of a study, with the loop's parts."""

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
        context: the study, its database, its space.
        history: the search trials, and what the searcher has heard of them.
        proposer: gets a placement for each search trial.
        judge: judges trials at rungs.
        front: the search's front.
        files: weights and checkpoints.
        board: tells whoever watches.
        runner: runs trials in slots.
        starter: makes rows of trials, and begins them.
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
    """Makes the search trials of one study; holds nothing that the database does not."""

    @abstractmethod
    def restore(self, parts: StudyParts) -> list[TrialParameters]:
        """Feed history, judge and front from the database.

        Returns:
            Search trials that ran when the driver went away.
        """

    @abstractmethod
    def search(
        self, parts: StudyParts, restarted: Sequence[RunningTrial]
    ) -> Sequence[RunningTrial]:
        """Run until all asked search trials are finished.

        Args:
            parts: the loop's.
            restarted: trials that ran when the driver went away, not begun again yet.

        Returns:
            Those of them that are left to begin once the front is to be confirmed.
        """

    @abstractmethod
    def counts(self, parts: StudyParts) -> SearchCounts:
        """How far the search is, for people."""

    def adapt(self, task: Task, context: StudyContext) -> Task:
        """What is run for a task of the evaluator."""
        return task

    def shared_checkpoints(self, context: StudyContext) -> frozenset[str]:
        """Names of the checkpoints of what is no trial."""
        return frozenset()

    def prepare_confirmation(self, parts: StudyParts, left: Sequence[RunningTrial]) -> None:  # noqa: B027 (most have nothing to do)
        """Make what the confirmation needs; `left`: what `search` has returned."""
