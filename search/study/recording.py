"""Ends of trials: committed first, then passed to searcher and front; and file clean-up."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sharedattn.results.artifacts.checkpoints import CheckpointStore
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.results.failures import reason_of, shown_reason
from sharedattn.results.records import (
    AttemptOutcome,
    EvaluationRecord,
    StoredEvaluation,
    TrialRole,
    TrialRow,
    TrialState,
)
from sharedattn.search.evaluators import Task, evaluation_record
from sharedattn.search.executors import Finished
from sharedattn.search.executors.retries import Retries
from sharedattn.search.study.context import StudyContext
from sharedattn.search.study.front_tracker import CompleteTrial, FrontChange, FrontTracker
from sharedattn.search.study.history import SearchHistory
from sharedattn.search.study.judging import RungJudge
from sharedattn.search.study.progress_board import ProgressBoard


@dataclass(frozen=True, slots=True)
class RunningTrial:
    """A trial that the database records as running.

    Attributes:
        trial_id: id of its row.
        attempt: number of its attempt; results of earlier attempts are refused.
        role: its purpose.
        number: its number within its role.
        task: the evaluation.
        retries: how often it has lost its worker or its slot in this run.
    """

    trial_id: int
    attempt: int
    role: TrialRole
    number: int
    task: Task
    retries: Retries = Retries()

    @property
    def name(self) -> str:
        """Display name; a confirmation is identified by its placement and seed."""
        if self.role is TrialRole.CONFIRM:
            return f"seed {self.task.seed}"
        return f"{self.role.value} {self.number}"


class StudyFiles:
    """The weights and checkpoints of a study's trials.

    Args:
        context: the study.
        weights: store of the evaluator's weights, or None if it keeps none.
        checkpoints: store of unfinished trainings, or None to keep none.
    """

    def __init__(
        self,
        context: StudyContext,
        weights: WeightsStore | None,
        checkpoints: CheckpointStore | None,
    ) -> None:
        self._context = context
        self._weights = weights
        self._checkpoints = checkpoints

    def sweep_checkpoints(self, kept: Collection[str]) -> None:
        """Delete the study's checkpoints except those named."""
        if self._checkpoints is not None:
            self._checkpoints.sweep(frozenset(kept), f"{self._context.name}/")

    def forget_checkpoint(self, name: str | None) -> None:
        """Delete a checkpoint; no effect if `name` is None."""
        if self._checkpoints is not None and name is not None:
            self._checkpoints.delete(name)

    def drop_weights(self, evaluation_key: str) -> None:
        """Delete weights of an evaluation that the database does not record."""
        if self._weights is not None:
            self._weights.delete(evaluation_key)

    def forget_weights(self, evaluation_key: str) -> None:
        """Delete weights that left the front, unless another study may have them on its own.

        The database records it first.
        """
        if (
            self._weights is not None
            and self._weights.has(evaluation_key)
            and not self._context.store.other_studies_with(evaluation_key, self._context.study)
        ):
            self._context.driver.record_weights(evaluation_key, None)
            self._weights.delete(evaluation_key)

    def keep_weights_of(self, spec_keys: Collection[str], rows: Sequence[TrialRow]) -> None:
        """Delete the weights of all trials except those of some specs.

        Args:
            spec_keys: sha256 of the specs to keep.
            rows: the study's trials.
        """
        if self._weights is None:
            return
        kept = self._weights.keys()
        for row in rows:
            if row.evaluation_key is None or row.evaluation_key not in kept:
                continue
            if row.spec_key not in spec_keys:
                self.forget_weights(row.evaluation_key)
            elif row.weights_sha256 is not None:
                # An abandoned attempt may have written others, perhaps after the trial's end.
                self._weights.delete(row.evaluation_key, but=row.weights_sha256)


class TrialRecorder:
    """Commits the outcome of a trial, then informs searcher and front.

    Args:
        context: the study.
        history: the search trials.
        judge: knows their accuracy at rungs.
        front: the search's front.
        files: weights and checkpoints of trials.
        board: shows confirmations and failures.
    """

    def __init__(
        self,
        context: StudyContext,
        history: SearchHistory,
        judge: RungJudge,
        front: FrontTracker,
        files: StudyFiles,
        board: ProgressBoard,
    ) -> None:
        self._context = context
        self._driver = context.driver
        self._history = history
        self._judge = judge
        self._front = front
        self._files = files
        self._board = board

    def finish(self, trial: RunningTrial, event: Finished) -> None:
        """Record a measurement; NaN makes the trial fail."""
        try:
            evaluation = evaluation_record(trial.task.identity, event.measurement, event.threads)
        except ValueError as error:
            self.fail(trial, f"ValueError: {error}")
            self._files.drop_weights(trial.task.identity.key)
            return
        self._complete(trial, evaluation, evaluation.top1)
        if trial.role is TrialRole.BASELINE:
            self._files.forget_weights(evaluation.identity.key)

    def reuse(self, trial: RunningTrial, known: StoredEvaluation) -> None:
        """Complete a trial with a stored evaluation."""
        if trial.role is TrialRole.SEARCH:
            self._judge.let_pass(
                trial.number,
                trial.task.spec.placement,
                known.record,
                trial_id=trial.trial_id,
                attempt=trial.attempt,
            )
        self._complete(trial, known, known.record.top1)

    def _complete(
        self, trial: RunningTrial, evaluation: EvaluationRecord | StoredEvaluation, top1: float
    ) -> None:
        change = self._end(trial, TrialState.COMPLETE, top1)
        self._driver.finish_trial(
            trial.trial_id,
            evaluation,
            attempt=trial.attempt,
            snapshot=None if change is None else change.snapshot,
        )
        self._forget_after(trial, change)

    def fail(
        self,
        trial: RunningTrial,
        traceback: str,
        outcome: AttemptOutcome = AttemptOutcome.FAILED,
    ) -> None:
        """Record a trial as failed.

        Args:
            trial: the trial.
            traceback: of its error, or what is known of its end.
            outcome: outcome of its last attempt.
        """
        reason = shown_reason(reason_of(traceback))
        self._board.failed(trial.name, str(trial.task.spec.placement), reason)
        self._end(trial, TrialState.FAILED)
        self._driver.fail_trial(trial.trial_id, traceback, attempt=trial.attempt, outcome=outcome)
        self._forget_after(trial)

    def prune(self, trial: RunningTrial) -> None:
        """Record that a trial was stopped; its judgement is already stored."""
        self._end(trial, TrialState.PRUNED)
        self._forget_after(trial)

    def _end(
        self, trial: RunningTrial, state: TrialState, top1: float | None = None
    ) -> FrontChange | None:
        """Update the history and the front with a trial's end.

        Args:
            trial: the trial.
            state: its final state.
            top1: accuracy of a complete trial.

        Returns:
            The change of the search's front, or None for other runs and incomplete trials.
        """
        if trial.role is not TrialRole.SEARCH:
            self._board.num_ended[trial.role] += 1
            return None
        costs = self._context.costs_of(self._history.trials[trial.number].placement)
        told = self._judge.told_accuracies(trial.number, state, top1)
        values = self._context.values(told[0], costs) if told else None
        self._history.end(trial.number, values, failed=state is TrialState.FAILED, accuracies=told)
        if top1 is None:
            return None
        return self._front.add(
            CompleteTrial(
                number=trial.number,
                evaluation_key=trial.task.identity.key,
                values=self._context.values(top1, costs),
            )
        )

    def _forget_after(self, trial: RunningTrial, change: FrontChange | None = None) -> None:
        """Delete an ended trial's checkpoint, and the weights of trials off the front."""
        self._files.forget_checkpoint(trial.task.checkpoint)
        for key in change.off if change is not None else ():
            self._files.forget_weights(key)
