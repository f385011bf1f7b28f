"""Write a study's trials and results, each transaction fenced to the study's one driver.

Each method is one transaction, so a driver killed at any moment leaves whole rows: a trial is
RUNNING with an open attempt, or it is finished with its evaluation, its attempt closed and its
searcher's notes written.

A transaction begins with one update of the study's row, which does three things. It matches the
driver's epoch, so that a driver that has lost its lock unseen (a restarted server, a network
disk) is stopped once another one has begun. It locks the row, so that no other driver can begin
between this check and the commit. And it numbers the transaction: one whose connection was lost
while it was being committed is run again, and finds by the number whether it had been.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from sqlalchemy import Connection, bindparam, insert, select, update

from sharedattn.results.database.errors import StaleAttemptError, StorageError
from sharedattn.results.database.models import Base, utc_now
from sharedattn.results.database.retry import retry_on_lost_connection
from sharedattn.results.database.upserts import insert_or_find, insert_or_replace
from sharedattn.results.failures import reason_of, shown_reason
from sharedattn.results.records import (
    AttemptOutcome,
    Document,
    EvaluationRecord,
    FrontSnapshot,
    LatencyRecord,
    RungReport,
    ScoredTrial,
    SpecRecord,
    StoredEvaluation,
    TrialRole,
    TrialState,
)

_T = TypeVar("_T")

_STUDIES = Base.metadata.tables["studies"]
_SPECS = Base.metadata.tables["specs"]
_TRIALS = Base.metadata.tables["trials"]
_ATTEMPTS = Base.metadata.tables["attempts"]
_EVALUATIONS = Base.metadata.tables["evaluations"]

_UNFINISHED = (AttemptOutcome.FAILED, AttemptOutcome.LOST, AttemptOutcome.PREEMPTED)

# Built once, since building a statement takes SQLAlchemy longer than SQLite takes to run it.
# Names that begin with `b_` are bound in conditions; the columns of an update are its other keys.
_INSERT_TRIAL = insert(_TRIALS).returning(_TRIALS.c.id)
_INSERT_ATTEMPT = insert(_ATTEMPTS)
_BEGIN_TO_DRIVE = (
    update(_STUDIES)
    .where(_STUDIES.c.id == bindparam("b_study_id"))
    .values(driver_epoch=_STUDIES.c.driver_epoch + 1, driver_write=0)
    .returning(_STUDIES.c.driver_epoch)
)
_BEGIN_TO_WRITE = update(_STUDIES).where(
    _STUDIES.c.id == bindparam("b_study_id"),
    _STUDIES.c.driver_epoch == bindparam("b_driver_epoch"),
    _STUDIES.c.driver_write < bindparam("b_driver_write"),
)
_SELECT_EPOCH = select(_STUDIES.c.driver_epoch).where(_STUDIES.c.id == bindparam("b_study_id"))
_SELECT_TRIAL_ID = select(_TRIALS.c.id).where(
    _TRIALS.c.study_id == bindparam("b_study_id"),
    _TRIALS.c.role == bindparam("b_role"),
    _TRIALS.c.number == bindparam("b_number"),
)
_SELECT_OPEN_ATTEMPT = (
    select(_TRIALS.c.state, _ATTEMPTS.c.number)
    .outerjoin(
        _ATTEMPTS, (_ATTEMPTS.c.trial_id == _TRIALS.c.id) & _ATTEMPTS.c.finished_at.is_(None)
    )
    .where(_TRIALS.c.id == bindparam("b_trial_id"), _TRIALS.c.study_id == bindparam("b_study_id"))
)
_UPDATE_TRIAL = update(_TRIALS).where(_TRIALS.c.id == bindparam("b_trial_id"))
_SPEC_ID = select(_TRIALS.c.spec_id).where(_TRIALS.c.id == bindparam("b_trial_id"))
_CLOSE_ATTEMPT = (
    update(_ATTEMPTS)
    .where(
        _ATTEMPTS.c.number == bindparam("b_attempt"),
        _ATTEMPTS.c.finished_at.is_(None),
        _ATTEMPTS.c.trial_id.in_(
            select(_TRIALS.c.id).where(
                _TRIALS.c.id == bindparam("b_trial_id"),
                _TRIALS.c.study_id == bindparam("b_study_id"),
            )
        ),
    )
    .returning(
        _SPEC_ID.scalar_subquery().label("spec_id"),
        # No join: what SQLite returns names its columns without their tables.
        select(_SPECS.c.key)
        .where(_SPECS.c.id == _SPEC_ID.scalar_subquery())
        .scalar_subquery()
        .label("spec_key"),
    )
)
_UPDATE_EVALUATION = update(_EVALUATIONS).where(_EVALUATIONS.c.key == bindparam("b_key"))


def _nothing(_: Connection) -> None:
    """A transaction's further statements, or its result, where there are none."""


class StudyWriter:
    """Writes to one study while `Store.drive` holds its lock.

    What it is told of a trial carries the number of the attempt that it comes from, and is
    refused unless that is the open one: a worker that was taken for lost may still answer.

    Args:
        transaction: begins a writing transaction of the store.
        study_id: the study's row.
    """

    def __init__(
        self, transaction: Callable[[], AbstractContextManager[Connection]], study_id: int
    ) -> None:
        self._transaction = transaction
        self._study_id = study_id
        self._bound = {"b_study_id": study_id}
        self._num_writes = 0
        self._epoch = retry_on_lost_connection(self._begin_to_drive)

    def set_totals(self, *, num_trials: int, confirm_seeds: int) -> None:
        """Change how much the study is asked for, which is no part of its fingerprint.

        Args:
            num_trials: search trials, a total.
            confirm_seeds: seeds per front member, a total.
        """
        self._write(num_trials=num_trials, confirm_seeds=confirm_seeds)

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
        """Write a RUNNING trial with its first attempt, its spec and the searcher's notes.

        Args:
            number: within the study and role; taken numbers are refused by the database.
            spec: written unless its key is there.
            role: search or confirm.
            replicate: r; the training seed is the study's seed + r.
            proposed: the searcher's parameters; None for confirmations.
            repaired: the parameters of what will be evaluated.
            sampler_attributes: the searcher's notes on this trial.
            searcher_attributes: the notes on the study that were added or changed.

        Returns:
            The trial's id.
        """

        def write(connection: Connection) -> int:
            trial_id = connection.execute(
                _INSERT_TRIAL,
                {
                    "study_id": self._study_id,
                    "role": role,
                    "number": number,
                    "replicate": replicate,
                    "state": TrialState.RUNNING,
                    "spec_id": _spec_id(connection, spec),
                    "proposed": proposed or {},
                    "repaired": repaired or {},
                    "sampler_attributes": sampler_attributes or {},
                },
            ).scalar_one()
            connection.execute(_INSERT_ATTEMPT, {"trial_id": trial_id, "number": 1})
            self._save_searcher_attributes(connection, searcher_attributes)
            return int(trial_id)

        def find(connection: Connection) -> int:
            bound = {**self._bound, "b_role": role, "b_number": number}
            return int(connection.execute(_SELECT_TRIAL_ID, bound).scalar_one())

        return self._commit(write, find, finished_at=None)

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
            outcome: how it ended: FAILED, LOST when its worker or its driver went away, or
                PREEMPTED.
            traceback: what is known of it.

        Returns:
            The number of the new attempt, from 2.

        Raises:
            StaleAttemptError: that attempt is not the open one.
        """
        _check_unfinished(outcome)

        def write(connection: Connection) -> None:
            self._close_attempt(connection, trial_id, attempt, outcome, traceback=traceback)
            connection.execute(_INSERT_ATTEMPT, {"trial_id": trial_id, "number": attempt + 1})

        self._write(write)
        return attempt + 1

    def report_rung(self, trial_id: int, report: RungReport, *, attempt: int) -> None:
        """Write what a trial has come to at a rung that it goes on from.

        Nothing is written for a rung that is there already: a trial that was started again
        passes it again, and what was decided then stands.

        Args:
            trial_id: a RUNNING trial.
            report: with `goes_on`; a trial that is stopped is for `prune_trial`.
            attempt: number of the attempt that reports.

        Raises:
            StaleAttemptError: that attempt is not the open one.
        """
        if not report.goes_on:
            raise ValueError(
                f"`report` says that the trial is stopped: {report}; hand it to prune_trial"
            )

        def write(connection: Connection) -> None:
            self._check_open(connection, trial_id, attempt)
            _save_rung(connection, trial_id, report)

        self._write(write)

    def finish_trial(
        self,
        trial_id: int,
        evaluation: EvaluationRecord,
        *,
        attempt: int,
        snapshot: FrontSnapshot | None = None,
    ) -> None:
        """Write an evaluation and complete its trial with it.

        Where another study has written the same evaluation meanwhile, that one is linked and
        shown as reused. If this one has weights, it takes the other's place: the file of their
        key is now ours, and a measurement stands with the weights that it is of.

        Args:
            trial_id: a RUNNING trial.
            evaluation: what was measured; its spec is the trial's.
            attempt: number of the attempt that measured it.
            snapshot: the front that this trial has changed, kept in place of one with as many
                complete trials; None: it has not.

        Raises:
            StaleAttemptError: that attempt is not the open one.
        """

        def write(connection: Connection) -> None:
            spec_id = self._close_attempt(
                connection,
                trial_id,
                attempt,
                AttemptOutcome.COMPLETE,
                spec_key=evaluation.identity.spec_key,
            )
            evaluation_id, is_there = _save_evaluation(connection, spec_id, evaluation)
            self._end_trial(
                connection,
                trial_id,
                TrialState.COMPLETE,
                evaluation_id=evaluation_id,
                reused=is_there,
            )
            self._save_snapshot(connection, snapshot)

        self._write(write)

    def reuse_evaluation(
        self,
        trial_id: int,
        evaluation: StoredEvaluation,
        *,
        attempt: int,
        snapshot: FrontSnapshot | None = None,
    ) -> None:
        """Complete a trial with an evaluation that is there already.

        Args:
            trial_id: a RUNNING trial.
            evaluation: from `Store.find_evaluation`, of the trial's spec.
            attempt: number of the open attempt.
            snapshot: as in `finish_trial`.

        Raises:
            StaleAttemptError: that attempt is not the open one.
        """

        def write(connection: Connection) -> None:
            self._close_attempt(
                connection,
                trial_id,
                attempt,
                AttemptOutcome.COMPLETE,
                spec_key=evaluation.record.identity.spec_key,
            )
            self._end_trial(
                connection,
                trial_id,
                TrialState.COMPLETE,
                evaluation_id=evaluation.id,
                reused=True,
            )
            self._save_snapshot(connection, snapshot)

        self._write(write)

    def prune_trial(
        self,
        trial_id: int,
        report: RungReport,
        *,
        attempt: int,
    ) -> None:
        """End a trial that was stopped early.

        Args:
            trial_id: a RUNNING trial.
            report: of the rung at which it was stopped.
            attempt: number of the attempt that was stopped.

        Raises:
            StaleAttemptError: that attempt is not the open one.
        """
        if report.goes_on:
            raise ValueError(f"`report` says that the trial goes on: {report}")

        def write(connection: Connection) -> None:
            self._close_attempt(connection, trial_id, attempt, AttemptOutcome.PRUNED)
            _save_rung(connection, trial_id, report)
            self._end_trial(connection, trial_id, TrialState.PRUNED)

        self._write(write)

    def fail_trial(
        self,
        trial_id: int,
        traceback: str,
        *,
        attempt: int,
        outcome: AttemptOutcome = AttemptOutcome.FAILED,
    ) -> None:
        """End a trial that raised, or that lost its slot once too often, with its traceback.

        Args:
            trial_id: a RUNNING trial.
            traceback: whole; the line that says why becomes the trial's error, see `reason_of`.
            attempt: number of its last attempt.
            outcome: how that one ended: FAILED, LOST or PREEMPTED.

        Raises:
            StaleAttemptError: that attempt is not the open one.
        """
        _check_unfinished(outcome)
        # Of several megabytes, in an extreme case: a column for people has a line of it.
        error = shown_reason(reason_of(traceback))

        def write(connection: Connection) -> None:
            self._close_attempt(connection, trial_id, attempt, outcome, traceback=traceback)
            self._end_trial(
                connection,
                trial_id,
                TrialState.FAILED,
                error=error,
            )

        self._write(write)

    def record_scored(
        self,
        trials: Sequence[ScoredTrial],
        *,
        searcher_attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Write search trials that are complete from the first, all of them or none.

        They had no attempt of their own: one evaluation of shared weights gave many.

        Args:
            trials: numbers that are taken are refused by the database.
            searcher_attributes: the notes on the study that were added or changed.
        """

        def write(connection: Connection) -> None:
            rows = []
            for trial in trials:
                spec_id = _spec_id(connection, trial.spec)
                evaluation_id, is_there = _save_evaluation(connection, spec_id, trial.evaluation)
                rows.append(
                    {
                        "study_id": self._study_id,
                        "role": TrialRole.SEARCH,
                        "number": trial.number,
                        "replicate": 0,
                        "state": TrialState.COMPLETE,
                        "spec_id": spec_id,
                        "evaluation_id": evaluation_id,
                        "reused": is_there,
                        "finished_at": utc_now(),
                        "proposed": trial.proposed,
                        "repaired": trial.repaired,
                        "sampler_attributes": trial.sampler_attributes,
                    }
                )
            if rows:
                connection.execute(insert(_TRIALS), rows)
            self._save_searcher_attributes(connection, searcher_attributes)

        self._write(write, finished_at=None)

    def save_searcher_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Write notes on the study, each in place of one of its name."""
        self._write(lambda connection: self._save_searcher_attributes(connection, attributes))

    def record_weights(self, evaluation_key: str, weights_sha256: str | None) -> None:
        """Say which weights of an evaluation are on the disk.

        Args:
            evaluation_key: the evaluation's key, which names the file.
            weights_sha256: of the file; None before the file is deleted.
        """

        def write(connection: Connection) -> None:
            connection.execute(
                _UPDATE_EVALUATION, {"b_key": evaluation_key, "weights_sha256": weights_sha256}
            )

        self._write(write)

    def record_latency(self, spec: SpecRecord, latency: LatencyRecord) -> None:
        """Write the latency of a spec in this study; one that is there stands.

        Args:
            spec: written unless its key is there; it need not become a trial.
            latency: what was measured.
        """

        def write(connection: Connection) -> None:
            insert_or_find(
                connection,
                "latencies",
                study_id=self._study_id,
                spec_id=_spec_id(connection, spec),
                latency_ms=latency.latency_ms,
                latency_source=latency.latency_source,
                repeats=latency.repeats,
                device=latency.device,
                batch_size=latency.batch_size,
                peak_bytes=latency.peak_bytes,
            )

        self._write(write)

    def finish_study(self) -> None:
        """Mark the study finished; the next trial that begins takes the mark away."""
        self._write(finished_at=utc_now())

    def _begin_to_drive(self) -> int:
        with self._transaction() as connection:
            return int(connection.execute(_BEGIN_TO_DRIVE, self._bound).scalar_one())

    def _write(self, write: Callable[[Connection], None] = _nothing, **study_columns: Any) -> None:
        self._commit(write, _nothing, **study_columns)

    def _commit(
        self,
        write: Callable[[Connection], _T],
        find: Callable[[Connection], _T],
        **study_columns: Any,
    ) -> _T:
        """Run a transaction, again where its connection was lost.

        Args:
            write: what it does; its result is returned.
            find: finds that result in the database, where the transaction was committed and
                the connection lost before the driver knew.
            study_columns: columns of the study that it changes.
        """
        self._num_writes += 1
        bound = {
            **self._bound,
            "b_driver_epoch": self._epoch,
            "b_driver_write": self._num_writes,
            "driver_write": self._num_writes,
            **study_columns,
        }

        def run() -> _T:
            with self._transaction() as connection:
                if connection.execute(_BEGIN_TO_WRITE, bound).rowcount:
                    return write(connection)
                if connection.execute(_SELECT_EPOCH, self._bound).scalar_one() != self._epoch:
                    raise StorageError(
                        "another process has begun to drive this study; this one stops, and what "
                        "it committed is kept"
                    )
                return find(connection)

        return retry_on_lost_connection(run)

    def _check_open(self, connection: Connection, trial_id: int, attempt: int) -> None:
        """Refuse what is not of the open attempt of a running trial of this study."""
        bound = {**self._bound, "b_trial_id": trial_id}
        row = connection.execute(_SELECT_OPEN_ATTEMPT, bound).first()
        if row is None:
            raise ValueError(f"`trial_id`={trial_id} is not a trial of this study")
        if row.state is not TrialState.RUNNING:
            raise StaleAttemptError(f"trial id {trial_id} has ended already, as {row.state.value}")
        if row.number != attempt:
            raise StaleAttemptError(
                f"trial id {trial_id} is at attempt {row.number}, but the result is of attempt "
                f"{attempt}"
            )

    def _close_attempt(
        self,
        connection: Connection,
        trial_id: int,
        attempt: int,
        outcome: AttemptOutcome,
        *,
        traceback: str | None = None,
        spec_key: str | None = None,
    ) -> int:
        """Close the open attempt of a running trial; with `spec_key`, of a trial of that spec.

        Returns:
            The spec's row.
        """
        row = connection.execute(
            _CLOSE_ATTEMPT,
            {
                **self._bound,
                "b_trial_id": trial_id,
                "b_attempt": attempt,
                "finished_at": utc_now(),
                "outcome": outcome,
                "traceback": traceback,
            },
        ).first()
        if row is None:
            self._check_open(connection, trial_id, attempt)
            raise AssertionError("an attempt that is open can be closed")
        if spec_key not in (None, row.spec_key):
            raise ValueError(
                f"trial id {trial_id} has the spec {row.spec_key}, but the evaluation is of "
                f"{spec_key}"
            )
        return int(row.spec_id)

    def _end_trial(
        self,
        connection: Connection,
        trial_id: int,
        state: TrialState,
        **columns: Any,
    ) -> None:
        connection.execute(
            _UPDATE_TRIAL,
            {"b_trial_id": trial_id, "state": state, "finished_at": utc_now(), **columns},
        )

    def _save_searcher_attributes(
        self, connection: Connection, attributes: Mapping[str, Any] | None
    ) -> None:
        for key, value in (attributes or {}).items():
            insert_or_replace(
                connection, "searcher_attributes", study_id=self._study_id, key=key, value=value
            )

    def _save_snapshot(self, connection: Connection, snapshot: FrontSnapshot | None) -> None:
        if snapshot is None:
            return
        insert_or_replace(
            connection,
            "front_snapshots",
            study_id=self._study_id,
            num_complete=snapshot.num_complete,
            hypervolume=snapshot.hypervolume,
            members=list(snapshot.members),
        )


def _check_unfinished(outcome: AttemptOutcome) -> None:
    if outcome not in _UNFINISHED:
        raise ValueError(
            f"`outcome` of an attempt without a result is one of {', '.join(_UNFINISHED)}, "
            f"but got {outcome}"
        )


def _spec_id(connection: Connection, spec: SpecRecord) -> int:
    spec_id, _ = insert_or_find(
        connection,
        "specs",
        key=spec.key,
        text=spec.text,
        placement=spec.placement,
        document=spec.document,
        params=spec.params,
        macs=spec.macs,
        attention_bytes=spec.attention_bytes,
    )
    return spec_id


def _save_evaluation(
    connection: Connection, spec_id: int, evaluation: EvaluationRecord
) -> tuple[int, bool]:
    """The row of an evaluation, and whether it was there already."""
    identity = evaluation.identity
    measured = {
        "split": evaluation.split,
        "top1": evaluation.top1,
        "loss": evaluation.loss,
        "num_images": evaluation.num_images,
        "wall_time_s": evaluation.wall_time_s,
        "device": evaluation.device,
        "threads": evaluation.threads,
        "versions": dict(evaluation.versions),
        "learning_curve": [dict(epoch) for epoch in evaluation.learning_curve],
        "weights_sha256": evaluation.weights_sha256,
        "created_at": utc_now(),
    }
    evaluation_id, is_there = insert_or_find(
        connection,
        "evaluations",
        key=identity.key,
        spec_id=spec_id,
        recipe_key=identity.recipe_key,
        data_fingerprint=identity.data_fingerprint,
        fidelity_key=identity.fidelity.key,
        seed=identity.seed,
        **measured,
    )
    if is_there and evaluation.weights_sha256 is not None:
        connection.execute(_UPDATE_EVALUATION, {"b_key": identity.key, **measured})
    return evaluation_id, is_there


def _save_rung(connection: Connection, trial_id: int, report: RungReport) -> None:
    """Write a rung's report, unless the trial has passed the rung before.

    Raises:
        ValueError: it had been let on there, and is to be stopped now.
    """
    _, is_there = insert_or_find(
        connection,
        "rung_reports",
        trial_id=trial_id,
        epoch=report.epoch,
        top1=report.top1,
        loss=report.loss,
        goes_on=report.goes_on,
    )
    if is_there and not report.goes_on:
        raise ValueError(
            f"trial id {trial_id} was let on at epoch {report.epoch} and cannot be stopped there "
            f"now; the first decision stands"
        )
