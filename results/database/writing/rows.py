"""Write rows of one study inside an open transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from sharedattn.results.database.errors import StaleAttemptError
from sharedattn.results.database.models import Base, utc_now
from sharedattn.results.database.upserts import columns_of, insert_or_find, insert_or_replace
from sharedattn.results.records import (
    AttemptOutcome,
    EpochMetrics,
    EvaluationRecord,
    FrontSnapshot,
    ScoredTrial,
    SpecRecord,
    TrialRole,
    TrialState,
)

_SPECS = Base.metadata.tables["specs"]
_TRIALS = Base.metadata.tables["trials"]
_ATTEMPTS = Base.metadata.tables["attempts"]
_EVALUATIONS = Base.metadata.tables["evaluations"]

# Built once, since building a statement takes SQLAlchemy longer than SQLite takes to run it.
# Names starting with `b_` are bound in conditions; other keys of an update are its columns.
_INSERT_TRIAL = insert(_TRIALS).returning(_TRIALS.c.id)
_INSERT_ATTEMPT = insert(_ATTEMPTS)
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
        # No join: SQLite returns column names without their tables.
        select(_SPECS.c.key)
        .where(_SPECS.c.id == _SPEC_ID.scalar_subquery())
        .scalar_subquery()
        .label("spec_key"),
    )
)
_UPDATE_EVALUATION = update(_EVALUATIONS).where(_EVALUATIONS.c.key == bindparam("b_key"))


class StudyRows:
    """Writes rows of a study's trials, notes and fronts.

    Args:
        study_id: id of the study's row.
    """

    def __init__(self, study_id: int) -> None:
        self.study_id = study_id
        self._bound = {"b_study_id": study_id}

    def insert_trial(self, connection: Connection, **columns: Any) -> int:
        """Insert a RUNNING trial with its first attempt; return its id."""
        trial_id = connection.execute(
            _INSERT_TRIAL, {"study_id": self.study_id, "state": TrialState.RUNNING, **columns}
        ).scalar_one()
        insert_attempt(connection, trial_id, 1)
        return int(trial_id)

    def trial_id(self, connection: Connection, role: TrialRole, number: int) -> int:
        """The id of an existing trial."""
        bound = {**self._bound, "b_role": role, "b_number": number}
        return int(connection.execute(_SELECT_TRIAL_ID, bound).scalar_one())

    def insert_scored(self, connection: Connection, trials: Iterable[ScoredTrial]) -> None:
        """Insert search trials that are already complete, with their evaluations."""
        rows = []
        for trial in trials:
            spec_id = save_spec(connection, trial.spec)
            evaluation_id, is_there = save_evaluation(connection, spec_id, trial.evaluation)
            rows.append(
                {
                    "study_id": self.study_id,
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

    def check_open(self, connection: Connection, trial_id: int, attempt: int) -> None:
        """Check that an attempt is the open one of a running trial of this study."""
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

    def close_attempt(
        self,
        connection: Connection,
        trial_id: int,
        attempt: int,
        outcome: AttemptOutcome,
        *,
        traceback: str | None = None,
        spec_key: str | None = None,
    ) -> int:
        """Close the open attempt of a running trial, which has spec `spec_key` if given.

        Returns:
            The id of the spec's row.
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
            self.check_open(connection, trial_id, attempt)
            raise AssertionError("an attempt that is open can be closed")
        if spec_key not in (None, row.spec_key):
            raise ValueError(
                f"trial id {trial_id} has the spec {row.spec_key}, but the evaluation is of "
                f"{spec_key}"
            )
        return int(row.spec_id)

    def end_trial(
        self,
        connection: Connection,
        trial_id: int,
        state: TrialState,
        **columns: Any,
    ) -> None:
        """Write a trial's final state, with further columns."""
        connection.execute(
            _UPDATE_TRIAL,
            {"b_trial_id": trial_id, "state": state, "finished_at": utc_now(), **columns},
        )

    def save_searcher_attributes(
        self, connection: Connection, attributes: Mapping[str, Any] | None
    ) -> None:
        """Write notes on the study, replacing those of the same name."""
        for key, value in (attributes or {}).items():
            insert_or_replace(
                connection, "searcher_attributes", study_id=self.study_id, key=key, value=value
            )

    def save_snapshot(self, connection: Connection, snapshot: FrontSnapshot | None) -> None:
        """Write a front, replacing one with as many complete trials."""
        if snapshot is not None:
            insert_or_replace(
                connection, "front_snapshots", study_id=self.study_id, **columns_of(snapshot)
            )


def insert_attempt(connection: Connection, trial_id: int, number: int) -> None:
    """Insert an attempt of a trial."""
    connection.execute(_INSERT_ATTEMPT, {"trial_id": trial_id, "number": number})


def save_spec(connection: Connection, spec: SpecRecord) -> int:
    """The id of a spec's row, inserted unless its key exists."""
    return insert_or_find(connection, "specs", **columns_of(spec))[0]


def save_evaluation(
    connection: Connection, spec_id: int, evaluation: EvaluationRecord
) -> tuple[int, bool]:
    """The id of an evaluation's row, and whether it existed already."""
    identity = evaluation.identity
    measured = {
        **columns_of(evaluation),
        "versions": dict(evaluation.versions),
        "learning_curve": [dict(epoch) for epoch in evaluation.learning_curve],
        "created_at": utc_now(),
    }
    del measured["identity"]
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


def save_rung(
    connection: Connection, trial_id: int, metrics: EpochMetrics, *, goes_on: bool
) -> None:
    """Write a trial's metrics at a rung, unless it passed the rung before.

    Raises:
        ValueError: it was allowed to continue then, and would be stopped now.
    """
    _, is_there = insert_or_find(
        connection, "rung_reports", trial_id=trial_id, **columns_of(metrics), goes_on=goes_on
    )
    if is_there and not goes_on:
        raise ValueError(
            f"trial id {trial_id} was let on at epoch {metrics.epoch} and cannot be stopped there "
            f"now; the first decision stands"
        )


def save_weights(connection: Connection, evaluation_key: str, weights_sha256: str | None) -> None:
    """Write which weights of an evaluation are on disk."""
    connection.execute(
        _UPDATE_EVALUATION, {"b_key": evaluation_key, "weights_sha256": weights_sha256}
    )
