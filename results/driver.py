"""The writing half of the database: what the one driver of a study commits.

Each method is one transaction, so a driver killed at any moment leaves whole rows: a trial is
RUNNING with an open attempt, or it is finished with its evaluation, its attempt closed and its
searcher's notes written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from results.errors import StorageError
from results.inserts import insert_or_find
from results.models import Base, utc_now
from results.records import (
    AttemptOutcome,
    Document,
    EvaluationRecord,
    FrontSnapshot,
    SpecRecord,
    StoredEvaluation,
    TrialRole,
    TrialState,
)

_STUDIES = Base.metadata.tables["studies"]
_SEARCHER_ATTRIBUTES = Base.metadata.tables["searcher_attributes"]
_SPECS = Base.metadata.tables["specs"]
_TRIALS = Base.metadata.tables["trials"]
_ATTEMPTS = Base.metadata.tables["attempts"]
_EVALUATIONS = Base.metadata.tables["evaluations"]
_SNAPSHOTS = Base.metadata.tables["front_snapshots"]

# Built once, since building a statement takes SQLAlchemy longer than SQLite takes to run it.
# Names that begin with `b_` are bound in conditions; the columns of an update are its other keys.
_INSERTS = {
    table.name: insert(table) for table in (_SEARCHER_ATTRIBUTES, _TRIALS, _ATTEMPTS, _SNAPSHOTS)
}
_SELECT_EPOCH = select(_STUDIES.c.driver_epoch).where(_STUDIES.c.id == bindparam("b_study_id"))
_UPDATE_STUDY = update(_STUDIES).where(_STUDIES.c.id == bindparam("b_study_id"))
_COUNT_EPOCH_UP = _UPDATE_STUDY.values(driver_epoch=_STUDIES.c.driver_epoch + 1)
_SELECT_RUNNING = (
    select(_TRIALS.c.state, _TRIALS.c.spec_id, _SPECS.c.key)
    .join(_SPECS, _SPECS.c.id == _TRIALS.c.spec_id)
    .where(_TRIALS.c.id == bindparam("b_trial_id"), _TRIALS.c.study_id == bindparam("b_study_id"))
)
_UPDATE_TRIAL = update(_TRIALS).where(_TRIALS.c.id == bindparam("b_trial_id"))
_SELECT_LAST_ATTEMPT = select(func.max(_ATTEMPTS.c.number)).where(
    _ATTEMPTS.c.trial_id == bindparam("b_trial_id")
)
_UPDATE_OPEN_ATTEMPT = update(_ATTEMPTS).where(
    _ATTEMPTS.c.trial_id == bindparam("b_trial_id"), _ATTEMPTS.c.finished_at.is_(None)
)
_UPDATE_EVALUATION = update(_EVALUATIONS).where(_EVALUATIONS.c.key == bindparam("b_key"))
_DELETE_SEARCHER_ATTRIBUTE = delete(_SEARCHER_ATTRIBUTES).where(
    _SEARCHER_ATTRIBUTES.c.study_id == bindparam("b_study_id"),
    _SEARCHER_ATTRIBUTES.c.key == bindparam("b_key"),
)
_DELETE_SNAPSHOT = delete(_SNAPSHOTS).where(
    _SNAPSHOTS.c.study_id == bindparam("b_study_id"),
    _SNAPSHOTS.c.num_complete == bindparam("b_num_complete"),
)


class StudyDriver:
    """Writes to one study while `Store.drive` holds its lock.

    The study's driver epoch, counted up here and checked by every write, stops a driver that has
    lost its lock unseen (a restarted server, a network disk) once another one has begun.

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
        with transaction() as connection:
            connection.execute(_COUNT_EPOCH_UP, self._bound)
            self._epoch = connection.execute(_SELECT_EPOCH, self._bound).scalar_one()

    def set_totals(self, *, num_trials: int, confirm_seeds: int) -> None:
        """Change how much the study is asked for, which is no part of its fingerprint.

        Args:
            num_trials: search trials, a total.
            confirm_seeds: seeds per front member, a total.
        """
        with self._writing() as connection:
            connection.execute(
                _UPDATE_STUDY,
                {**self._bound, "num_trials": num_trials, "confirm_seeds": confirm_seeds},
            )

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
        with self._writing() as connection:
            trial_id = _insert(
                connection,
                "trials",
                study_id=self._study_id,
                role=role,
                number=number,
                replicate=replicate,
                state=TrialState.RUNNING,
                spec_id=_spec_id(connection, spec),
                proposed=proposed or {},
                repaired=repaired or {},
                sampler_attributes=sampler_attributes or {},
                learning_curve=[],
            )
            _insert(connection, "attempts", trial_id=trial_id, number=1)
            self._save_searcher_attributes(connection, searcher_attributes)
            connection.execute(_UPDATE_STUDY, {**self._bound, "finished_at": None})
        return trial_id

    def restart_trial(
        self,
        trial_id: int,
        *,
        outcome: AttemptOutcome = AttemptOutcome.LOST,
        traceback: str | None = None,
    ) -> int:
        """Close the open attempt of a RUNNING trial and begin the next one.

        Args:
            trial_id: the trial, which keeps its number and parameters.
            outcome: how the open attempt ended; LOST when its worker or its driver went away.
            traceback: what is known of it.

        Returns:
            The number of the new attempt, from 2.
        """
        with self._writing() as connection:
            self._check_running(connection, trial_id)
            _close_attempt(connection, trial_id, outcome, traceback)
            last = connection.execute(_SELECT_LAST_ATTEMPT, {"b_trial_id": trial_id}).scalar_one()
            _insert(connection, "attempts", trial_id=trial_id, number=last + 1)
        return int(last + 1)

    def finish_trial(
        self,
        trial_id: int,
        evaluation: EvaluationRecord,
        *,
        sampler_attributes: Document | None = None,
        searcher_attributes: Mapping[str, Any] | None = None,
        snapshot: FrontSnapshot | None = None,
    ) -> None:
        """Write an evaluation and complete its trial with it.

        Where another study has written the same evaluation meanwhile, that one is linked and
        shown as reused. If this one has weights, it takes the other's place: the file of their
        key is now ours, and a measurement stands with the weights that it is of.

        Args:
            trial_id: a RUNNING trial.
            evaluation: what was measured; its spec is the trial's.
            sampler_attributes: the searcher's notes on this trial; None: as they were.
            searcher_attributes: the notes on the study that were added or changed.
            snapshot: the front that this trial has changed, kept in place of one with as many
                complete trials; None: it has not.
        """
        with self._writing() as connection:
            spec_id = self._check_running(connection, trial_id, evaluation.identity.spec_key)
            evaluation_id, is_there = _save_evaluation(connection, spec_id, evaluation)
            self._end_trial(
                connection,
                trial_id,
                TrialState.COMPLETE,
                sampler_attributes,
                searcher_attributes,
                evaluation_id=evaluation_id,
                reused=is_there,
            )
            self._save_snapshot(connection, snapshot)

    def reuse_evaluation(
        self,
        trial_id: int,
        evaluation: StoredEvaluation,
        *,
        sampler_attributes: Document | None = None,
        searcher_attributes: Mapping[str, Any] | None = None,
        snapshot: FrontSnapshot | None = None,
    ) -> None:
        """Complete a trial with an evaluation that is there already.

        Args:
            trial_id: a RUNNING trial.
            evaluation: from `Store.find_evaluation`, of the trial's spec.
            sampler_attributes: as in `finish_trial`.
            searcher_attributes: as in `finish_trial`.
            snapshot: as in `finish_trial`.
        """
        with self._writing() as connection:
            self._check_running(connection, trial_id, evaluation.record.identity.spec_key)
            self._end_trial(
                connection,
                trial_id,
                TrialState.COMPLETE,
                sampler_attributes,
                searcher_attributes,
                evaluation_id=evaluation.id,
                reused=True,
            )
            self._save_snapshot(connection, snapshot)

    def prune_trial(
        self,
        trial_id: int,
        learning_curve: Sequence[Mapping[str, float]],
        *,
        sampler_attributes: Document | None = None,
        searcher_attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """End a trial that was stopped early; what it measured is kept beside it, as partial.

        Args:
            trial_id: a RUNNING trial.
            learning_curve: one document per epoch that was run.
            sampler_attributes: as in `finish_trial`.
            searcher_attributes: as in `finish_trial`.
        """
        with self._writing() as connection:
            self._check_running(connection, trial_id)
            self._end_trial(
                connection,
                trial_id,
                TrialState.PRUNED,
                sampler_attributes,
                searcher_attributes,
                learning_curve=[dict(epoch) for epoch in learning_curve],
            )

    def fail_trial(
        self,
        trial_id: int,
        traceback: str,
        *,
        sampler_attributes: Document | None = None,
        searcher_attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """End a trial that raised, with its traceback.

        Args:
            trial_id: a RUNNING trial.
            traceback: whole; its last line becomes the trial's error.
            sampler_attributes: as in `finish_trial`.
            searcher_attributes: as in `finish_trial`.
        """
        lines = traceback.strip().splitlines()
        with self._writing() as connection:
            self._check_running(connection, trial_id)
            self._end_trial(
                connection,
                trial_id,
                TrialState.FAILED,
                sampler_attributes,
                searcher_attributes,
                traceback=traceback,
                error=lines[-1] if lines else "unknown error",
            )

    def record_weights(self, evaluation_key: str, weights_sha256: str | None) -> None:
        """Say which weights of an evaluation are on the disk.

        Args:
            evaluation_key: the evaluation's key, which names the file.
            weights_sha256: of the file; None before the file is deleted.
        """
        with self._writing() as connection:
            connection.execute(
                _UPDATE_EVALUATION, {"b_key": evaluation_key, "weights_sha256": weights_sha256}
            )

    def finish_study(self) -> None:
        """Mark the study finished; the next trial that begins takes the mark away."""
        with self._writing() as connection:
            connection.execute(_UPDATE_STUDY, {**self._bound, "finished_at": utc_now()})

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._transaction() as connection:
            if connection.execute(_SELECT_EPOCH, self._bound).scalar_one() != self._epoch:
                raise StorageError(
                    "`a study has one driver` must hold, but another process has begun to drive "
                    "this study since; this one stops, what it committed is kept"
                )
            yield connection

    def _check_running(
        self, connection: Connection, trial_id: int, spec_key: str | None = None
    ) -> int:
        """The spec's row of a running trial; with `spec_key`, of a trial of that spec."""
        row = connection.execute(_SELECT_RUNNING, {**self._bound, "b_trial_id": trial_id}).first()
        if row is None or row.state is not TrialState.RUNNING:
            raise ValueError(
                f"`a trial ends once` must hold, but trial id {trial_id} is "
                f"{'not of this study' if row is None else row.state.value}"
            )
        if spec_key not in (None, row.key):
            raise ValueError(
                f"`an evaluation is of its trial's spec` must hold, but trial id {trial_id} is "
                f"of {row.key} and the evaluation of {spec_key}"
            )
        return int(row.spec_id)

    def _end_trial(
        self,
        connection: Connection,
        trial_id: int,
        state: TrialState,
        sampler_attributes: Document | None,
        searcher_attributes: Mapping[str, Any] | None,
        *,
        traceback: str | None = None,
        **columns: Any,
    ) -> None:
        if sampler_attributes is not None:
            columns["sampler_attributes"] = sampler_attributes
        connection.execute(
            _UPDATE_TRIAL,
            {"b_trial_id": trial_id, "state": state, "finished_at": utc_now(), **columns},
        )
        _close_attempt(connection, trial_id, AttemptOutcome(state.value), traceback)
        self._save_searcher_attributes(connection, searcher_attributes)

    def _save_searcher_attributes(
        self, connection: Connection, attributes: Mapping[str, Any] | None
    ) -> None:
        for key, value in (attributes or {}).items():
            connection.execute(_DELETE_SEARCHER_ATTRIBUTE, {**self._bound, "b_key": key})
            _insert(
                connection, "searcher_attributes", study_id=self._study_id, key=key, value=value
            )

    def _save_snapshot(self, connection: Connection, snapshot: FrontSnapshot | None) -> None:
        if snapshot is None:
            return
        connection.execute(
            _DELETE_SNAPSHOT, {**self._bound, "b_num_complete": snapshot.num_complete}
        )
        _insert(
            connection,
            "front_snapshots",
            study_id=self._study_id,
            num_complete=snapshot.num_complete,
            hypervolume=snapshot.hypervolume,
            members=list(snapshot.members),
        )


def _insert(connection: Connection, table: str, **columns: Any) -> int:
    """Write one row; the first column of its primary key."""
    primary_key = connection.execute(_INSERTS[table], columns).inserted_primary_key
    assert primary_key is not None
    return int(primary_key[0])


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
        "latency_ms": evaluation.latency_ms,
        "wall_time_s": evaluation.wall_time_s,
        "device": evaluation.device,
        "threads": evaluation.threads,
        "versions": dict(evaluation.versions),
        "metrics": dict(evaluation.metrics),
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


def _close_attempt(
    connection: Connection, trial_id: int, outcome: AttemptOutcome, traceback: str | None
) -> None:
    connection.execute(
        _UPDATE_OPEN_ATTEMPT,
        {
            "b_trial_id": trial_id,
            "finished_at": utc_now(),
            "outcome": outcome,
            "traceback": traceback,
        },
    )
