"""Write a study's trials and results, in transactions fenced to the study's one driver.

Each method is one transaction, so a driver killed at any moment leaves consistent rows: a trial is
RUNNING with an open attempt, or finished, with its evaluation written, its attempt closed and its
searcher's notes written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Connection

from sharedattn.results.database.models import utc_now
from sharedattn.results.database.upserts import columns_of, insert_or_find
from sharedattn.results.database.writing.fence import Fence
from sharedattn.results.database.writing.rows import (
    StudyRows,
    insert_attempt,
    save_evaluation,
    save_rung,
    save_spec,
    save_weights,
)
from sharedattn.results.failures import reason_of, shown_reason
from sharedattn.results.records import (
    AttemptOutcome,
    Document,
    EpochMetrics,
    EvaluationRecord,
    FrontSnapshot,
    LatencyRecord,
    ScoredTrial,
    SpecRecord,
    StoredEvaluation,
    TrialRole,
    TrialState,
)

_UNFINISHED = (AttemptOutcome.FAILED, AttemptOutcome.LOST, AttemptOutcome.PREEMPTED)


class StudyWriter:
    """Writes to one study while `Store.drive` holds its lock.

    Results of a trial carry their attempt's number, and are refused unless that attempt is the
    open one: a worker considered lost may still answer.

    Args:
        transaction: begins a writing transaction of the store.
        study_id: id of the study's row.
    """

    def __init__(
        self, transaction: Callable[[], AbstractContextManager[Connection]], study_id: int
    ) -> None:
        self._fence = Fence(transaction, study_id)
        self._rows = StudyRows(study_id)

    def set_totals(self, *, num_trials: int, confirm_seeds: int) -> None:
        """Change the study's totals, which are not part of its fingerprint.

        Args:
            num_trials: total number of search trials.
            confirm_seeds: total number of seeds per front member.
        """
        self._fence.write(num_trials=num_trials, confirm_seeds=confirm_seeds)

    def begin_trial(
        self,
        *,
        number: int,
        spec: SpecRecord,
        role: TrialRole = TrialRole.SEARCH,
        replicate: int = 0,
        proposed: Document | None = None,
        repaired: Document | None = None,
        sampler_attributes: Document | None = None,
        searcher_attributes: Mapping[str, Any] | None = None,
    ) -> int:
        """Insert a RUNNING trial with its first attempt, its spec and the searcher's notes.

        Args:
            number: number within the study and role; the database refuses taken ones.
            spec: inserted unless its key exists.
            role: its purpose.
            replicate: r; the training seed is the study's seed + r.
            proposed: the searcher's parameters, or None for confirmations.
            repaired: the parameters to evaluate.
            sampler_attributes: the searcher's notes on this trial.
            searcher_attributes: new or changed notes on the study.

        Returns:
            The trial's id.
        """

        def write(connection: Connection) -> int:
            trial_id = self._rows.insert_trial(
                connection,
                role=role,
                number=number,
                replicate=replicate,
                spec_id=save_spec(connection, spec),
                proposed=proposed or {},
                repaired=repaired or {},
                sampler_attributes=sampler_attributes or {},
            )
            self._rows.save_searcher_attributes(connection, searcher_attributes)
            return trial_id

        def find(connection: Connection) -> int:
            return self._rows.trial_id(connection, role, number)

        return self._fence.commit(write, find, finished_at=None)

    def restart_trial(
        self,
        trial_id: int,
        *,
        attempt: int,
        outcome: AttemptOutcome = AttemptOutcome.LOST,
        traceback: str | None = None,
    ) -> int:
        """Close the open attempt of a RUNNING trial and begin the next one.

        Args:
            trial_id: the trial, which keeps its number and parameters.
            attempt: number of the open attempt.
            outcome: how it ended: FAILED, LOST if its worker or driver died, or PREEMPTED.
            traceback: traceback or reason, if known.

        Returns:
            The number of the new attempt, at least 2.

        Raises:
            StaleAttemptError: the attempt is not the open one.
        """
        _check_unfinished(outcome)

        def write(connection: Connection) -> None:
            self._rows.close_attempt(connection, trial_id, attempt, outcome, traceback=traceback)
            insert_attempt(connection, trial_id, attempt + 1)

        self._fence.write(write)
        return attempt + 1

    def report_rung(self, trial_id: int, metrics: EpochMetrics, *, attempt: int) -> None:
        """Write a trial's metrics at a rung after which it continues.

        Nothing is written if the rung is there already: a restarted trial passes it again, and the
        first decision stays.

        Args:
            trial_id: a RUNNING trial.
            metrics: its metrics at the rung.
            attempt: number of the reporting attempt.

        Raises:
            StaleAttemptError: the attempt is not the open one.
        """

        def write(connection: Connection) -> None:
            self._rows.check_open(connection, trial_id, attempt)
            save_rung(connection, trial_id, metrics, goes_on=True)

        self._fence.write(write)

    def finish_trial(
        self,
        trial_id: int,
        evaluation: EvaluationRecord | StoredEvaluation,
        *,
        attempt: int,
        snapshot: FrontSnapshot | None = None,
    ) -> None:
        """Complete a trial with an evaluation, which is inserted unless it is stored already.

        If another study has stored the same evaluation meanwhile, that one is linked and marked as
        reused. But if this one has weights, it replaces the other: the weights file of their key
        is now this one's, and a measurement must belong to its weights.

        Args:
            trial_id: a RUNNING trial.
            evaluation: evaluation of the trial's spec, new or from `Store.find_evaluation`.
            attempt: number of the open attempt.
            snapshot: the front if this trial changed it, or None; replaces one with as many
                complete trials.

        Raises:
            StaleAttemptError: the attempt is not the open one.
        """
        record = evaluation if isinstance(evaluation, EvaluationRecord) else evaluation.record

        def write(connection: Connection) -> None:
            spec_id = self._rows.close_attempt(
                connection,
                trial_id,
                attempt,
                AttemptOutcome.COMPLETE,
                spec_key=record.identity.spec_key,
            )
            evaluation_id, is_there = (
                save_evaluation(connection, spec_id, record)
                if isinstance(evaluation, EvaluationRecord)
                else (evaluation.id, True)
            )
            self._rows.end_trial(
                connection,
                trial_id,
                TrialState.COMPLETE,
                evaluation_id=evaluation_id,
                reused=is_there,
            )
            self._rows.save_snapshot(connection, snapshot)

        self._fence.write(write)

    def prune_trial(self, trial_id: int, metrics: EpochMetrics, *, attempt: int) -> None:
        """End a trial that was stopped early.

        Args:
            trial_id: a RUNNING trial.
            metrics: its metrics at the rung that stopped it.
            attempt: number of the stopped attempt.

        Raises:
            StaleAttemptError: the attempt is not the open one.
        """

        def write(connection: Connection) -> None:
            self._rows.close_attempt(connection, trial_id, attempt, AttemptOutcome.PRUNED)
            save_rung(connection, trial_id, metrics, goes_on=False)
            self._rows.end_trial(connection, trial_id, TrialState.PRUNED)

        self._fence.write(write)

    def fail_trial(
        self,
        trial_id: int,
        traceback: str,
        *,
        attempt: int,
        outcome: AttemptOutcome = AttemptOutcome.FAILED,
    ) -> None:
        """End a trial that raised, or lost its slot too often, with its traceback.

        Args:
            trial_id: a RUNNING trial.
            traceback: the whole traceback; `reason_of` extracts the trial's error from it.
            attempt: number of its last attempt.
            outcome: how that attempt ended: FAILED, LOST or PREEMPTED.

        Raises:
            StaleAttemptError: the attempt is not the open one.
        """
        _check_unfinished(outcome)
        # It may have megabytes; the column for people gets one line.
        error = shown_reason(reason_of(traceback))

        def write(connection: Connection) -> None:
            self._rows.close_attempt(connection, trial_id, attempt, outcome, traceback=traceback)
            self._rows.end_trial(
                connection,
                trial_id,
                TrialState.FAILED,
                error=error,
            )

        self._fence.write(write)

    def record_scored(
        self,
        trials: Sequence[ScoredTrial],
        *,
        searcher_attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Insert search trials that are already complete, all of them or none.

        They had no attempts of their own: one evaluation of shared weights scored many.

        Args:
            trials: the trials; the database refuses taken numbers.
            searcher_attributes: new or changed notes on the study.
        """

        def write(connection: Connection) -> None:
            self._rows.insert_scored(connection, trials)
            self._rows.save_searcher_attributes(connection, searcher_attributes)

        self._fence.write(write, finished_at=None)

    def save_searcher_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Write notes on the study, replacing those of the same name."""
        self._fence.write(
            lambda connection: self._rows.save_searcher_attributes(connection, attributes)
        )

    def record_weights(self, evaluation_key: str, weights_sha256: str | None) -> None:
        """Write which weights of an evaluation are on disk.

        Args:
            evaluation_key: the evaluation's key, which names the file.
            weights_sha256: hash of the file, or None before the file is deleted.
        """

        self._fence.write(
            lambda connection: save_weights(connection, evaluation_key, weights_sha256)
        )

    def record_latency(self, spec: SpecRecord, latency: LatencyRecord) -> None:
        """Insert the latency of a spec in this study, unless there is one.

        Args:
            spec: inserted unless its key exists; it need not become a trial.
            latency: the measurement.
        """

        def write(connection: Connection) -> None:
            insert_or_find(
                connection,
                "latencies",
                study_id=self._rows.study_id,
                spec_id=save_spec(connection, spec),
                **columns_of(latency),
            )

        self._fence.write(write)

    def finish_study(self) -> None:
        """Mark the study finished; the next trial to begin removes the mark."""
        self._fence.write(finished_at=utc_now())


def _check_unfinished(outcome: AttemptOutcome) -> None:
    if outcome not in _UNFINISHED:
        raise ValueError(
            f"`outcome` of an attempt without a result is one of {', '.join(_UNFINISHED)}, "
            f"but got {outcome}"
        )
