"""Read studies from the database, and open the writer of a study's driver.

Everything may be read by any process at any time; a study is written through the `StudyWriter`
that `Store.drive` hands to one process at a time. Each method is one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine, Row, Select, exists, func, select

from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec, Placement
from sharedattn.results.database import models
from sharedattn.results.database.bulk import gc_paused
from sharedattn.results.database.costs import COST_COLUMNS, StoredCosts
from sharedattn.results.database.engine import open_engine, reading_engines, shown_url, sqlite_file
from sharedattn.results.database.lock import (
    ServerLock,
    file_lock,
    holder_of_file,
    holder_on_server,
)
from sharedattn.results.database.retry import retry_on_lost_connection, storage_errors
from sharedattn.results.database.upserts import insert_or_find
from sharedattn.results.database.writer import StudyWriter
from sharedattn.results.records import (
    Attempt,
    Document,
    EvaluationIdentity,
    EvaluationRecord,
    Fidelity,
    FrontSnapshot,
    LatencyRecord,
    RungRow,
    SpecRecord,
    StoredEvaluation,
    Study,
    StudyRecord,
    TrialParameters,
    TrialRole,
    TrialRow,
    TrialState,
)

_T = TypeVar("_T")

_TRIAL_COLUMNS = (
    models.Trial.id,
    models.Trial.number,
    models.Trial.role,
    models.Trial.replicate,
    models.Trial.state,
    models.Trial.reused,
    models.Trial.error,
    models.Trial.created_at,
    models.Trial.finished_at,
    models.Spec.key,
    models.Spec.placement,
    models.Evaluation.key,
    models.Evaluation.fidelity_key,
    models.Evaluation.seed,
    models.Evaluation.top1,
    models.Evaluation.loss,
    models.Evaluation.wall_time_s,
    models.Evaluation.weights_sha256,
    models.Latency.latency_source,
    models.Evaluation.num_images,
)
_PARAMETER_COLUMNS = (
    models.Trial.id,
    models.Trial.number,
    models.Trial.role,
    models.Trial.replicate,
    models.Trial.state,
    models.Trial.proposed,
    models.Trial.repaired,
    models.Trial.sampler_attributes,
    models.Spec.document,
    models.Spec.key,
    models.Evaluation.top1,
    select(func.count())
    .where(models.Attempt.trial_id == models.Trial.id)
    .correlate(models.Trial)
    .scalar_subquery(),
)
_NUM_COSTS = len(COST_COLUMNS)


class Store:
    """An open database; a context manager that closes it.

    Made by `Store.open`.

    Attributes:
        url: where it is, for messages: without a password.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(write=True)
        self._reader, self._consistent = reading_engines(engine)
        self._snapshot: Connection | None = None
        self.url = shown_url(engine.url)

    @classmethod
    def open(cls, url: str, *, create: bool = False, read_only: bool = False) -> Store:
        """Open a database of this project, bringing an older schema up to date.

        Args:
            url: `sqlite:///FILE`, or `postgresql://...` (with the extra `postgres`).
            create: make a database that does not exist, with the folders above it.
            read_only: nothing is written, not even an upgrade of the schema.

        Raises:
            InputError: no such database, a corrupt file, another program's, one of a newer
                schema, or one that cannot be written. Nothing was touched.
        """
        return cls(open_engine(url, create=create, read_only=read_only))

    def close(self) -> None:
        """Close every connection; SQLite folds its log into the file."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def consistent(self) -> Iterator[None]:
        """Make all reads inside the block see the database as it stood at the first of them.

        The driver is never held up by it. A connection that is lost inside ends the block: run
        the whole of it by `retry_on_lost_connection`.

        Raises:
            StorageError: the database failed underneath.
        """
        if self._snapshot is not None:
            yield
            return
        with self._transaction(self._consistent) as self._snapshot:
            try:
                yield
            finally:
                self._snapshot = None

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        """One transaction: all of it or nothing of it.

        Raises:
            StorageError: the database failed underneath.
        """
        with storage_errors(self.url), engine.begin() as connection:
            yield connection

    def _run(self, engine: Engine, operation: Callable[[Connection], _T]) -> _T:
        """Run a transaction, again where its connection was lost."""

        def run() -> _T:
            with self._transaction(engine) as connection:
                return operation(connection)

        return retry_on_lost_connection(run)

    def _rows(self, *queries: Select[*tuple[Any, ...]]) -> list[Row[*tuple[Any, ...]]]:
        """All rows of some queries, one query after the other, of one state of the database."""

        def read(connection: Connection) -> list[Row[*tuple[Any, ...]]]:
            return [row for query in queries for row in connection.execute(query).all()]

        if self._snapshot is not None:
            return read(self._snapshot)
        return self._run(self._reader if len(queries) == 1 else self._consistent, read)

    # Studies

    def studies(self) -> list[Study]:
        """Every study, oldest first."""
        query = select(models.Study.__table__).order_by(models.Study.id)
        return [_study(row) for row in self._rows(query)]

    def find_study(self, name: str) -> Study | None:
        """The study of this name, if there is one."""
        rows = self._rows(_study_of(name))
        return _study(rows[0]) if rows else None

    def study(self, name: str) -> Study:
        """The study of this name.

        Raises:
            InputError: there is none; the message names those there are.
        """
        found = self.find_study(name)
        if found is None:
            names = ", ".join(repr(study.record.name) for study in self.studies()) or "none"
            raise InputError(f"the database {self.url} has no study {name!r}; it has {names}")
        return found

    def get_or_create_study(self, record: StudyRecord) -> Study:
        """The study of this name, made if need be.

        Nothing of a study that exists is changed, since another process may be driving it: new
        totals are for `StudyWriter.set_totals`, and what else is not part of the fingerprint
        (reference point, provenance, weights' folder, latencies) stays as it was first written.

        Raises:
            InputError: the name belongs to a study with another fingerprint; the message names
                the fields that differ.
        """

        def write(connection: Connection) -> Study:
            insert_or_find(
                connection,
                "studies",
                name=record.name,
                fingerprint=record.fingerprint,
                fingerprint_document=record.fingerprint_document,
                space=record.space,
                data=record.data,
                recipe=record.recipe,
                objectives=list(record.objectives),
                searcher=record.searcher,
                seed=record.seed,
                reference_point=dict(record.reference_point),
                provenance=record.provenance,
                num_trials=record.num_trials,
                confirm_seeds=record.confirm_seeds,
                weights_dir=record.weights_dir,
                latency=record.latency,
            )
            return _study(connection.execute(_study_of(record.name)).one())

        study = self._run(self._writer, write)
        if study.record.fingerprint != record.fingerprint:
            differences = _differences(
                study.record.fingerprint_document, record.fingerprint_document
            )
            raise InputError(
                f"the study {record.name!r} was made with other choices: "
                f"{'; '.join(differences)}; choose another --study name"
            )
        return study

    @contextmanager
    def drive(self, study: Study) -> Iterator[StudyWriter]:
        """Become the one process that writes to `study`, until the block ends.

        Raises:
            InputError: another process drives it.
        """
        database, name = sqlite_file(self._engine.url), study.record.name
        if database is None:
            with ServerLock(self._engine, name) as lock:
                yield StudyWriter(lock.transaction, study.id)
        else:
            with file_lock(database, name):
                yield StudyWriter(partial(self._transaction, self._writer), study.id)

    def driver_of(self, study: Study) -> str | None:
        """Describe who drives a study, for messages, or None if nobody does."""
        database, name = sqlite_file(self._engine.url), study.record.name
        if database is None:
            return self._run(self._reader, partial(holder_on_server, study_name=name))
        return holder_of_file(database, name)

    def searcher_attributes(self, study: Study) -> Document:
        """Every note of the study's searcher, by key."""
        query = select(models.SearcherAttribute.key, models.SearcherAttribute.value).where(
            models.SearcherAttribute.study_id == study.id
        )
        return {key: value for key, value in self._rows(query)}

    # Trials

    def trials(self, study: Study, role: TrialRole | None = None) -> list[TrialRow]:
        """Trials with their results, in one query a role.

        Args:
            study: whose trials.
            role: the only role to read; None reads search trials, then confirmations.

        Returns:
            Ordered by role and number.
        """
        with gc_paused():
            costs, rows = StoredCosts(study), self._trial_rows(_TRIAL_COLUMNS, study, role)
            return [
                TrialRow(*_with_costs(row, costs, partial(Placement.parse, row.placement)))
                for row in rows
            ]

    def trial_parameters(
        self,
        study: Study,
        role: TrialRole | None = None,
        states: Collection[TrialState] = tuple(TrialState),
    ) -> list[TrialParameters]:
        """Trials as a searcher needs them to go on: proposals, notes and values.

        Args:
            study: whose trials.
            role: the only role to read; None reads search trials, then confirmations.
            states: of these states only; RUNNING finds the trials in flight at a kill.

        Returns:
            Ordered by role and number.
        """
        with gc_paused():
            costs = StoredCosts(study)
            rows = self._trial_rows(_PARAMETER_COLUMNS, study, role, states)
            return [
                TrialParameters(*_with_costs(row, costs, partial(_placement_in, row.document)))
                for row in rows
            ]

    def _trial_rows(
        self,
        columns: Sequence[Any],
        study: Study,
        role: TrialRole | None,
        states: Collection[TrialState] = tuple(TrialState),
    ) -> list[Row[*tuple[Any, ...]]]:
        query = (
            select(*columns, *COST_COLUMNS.values())
            .select_from(models.Trial)
            .join(models.Spec, models.Spec.id == models.Trial.spec_id)
            .outerjoin(models.Evaluation, models.Evaluation.id == models.Trial.evaluation_id)
            .outerjoin(
                models.Latency,
                (models.Latency.study_id == models.Trial.study_id)
                & (models.Latency.spec_id == models.Trial.spec_id),
            )
            .where(models.Trial.study_id == study.id, models.Trial.state.in_(states))
            .order_by(models.Trial.number)
        )
        # A role at a time, since the index then gives the order.
        roles = tuple(TrialRole) if role is None else (role,)
        return self._rows(*(query.where(models.Trial.role == each) for each in roles))

    def counts(self, study: Study, role: TrialRole) -> dict[TrialState, int]:
        """How many trials stand in each state, every state present."""
        query = (
            select(models.Trial.state, func.count())
            .where(models.Trial.study_id == study.id, models.Trial.role == role)
            .group_by(models.Trial.state)
        )
        found = {state: count for state, count in self._rows(query)}
        return {state: found.get(state, 0) for state in TrialState}

    def attempts(self, trial_id: int) -> list[Attempt]:
        """The attempts at one trial, oldest first."""
        query = (
            select(
                models.Attempt.number,
                models.Attempt.started_at,
                models.Attempt.finished_at,
                models.Attempt.outcome,
                models.Attempt.traceback,
            )
            .where(models.Attempt.trial_id == trial_id)
            .order_by(models.Attempt.number)
        )
        return [Attempt(**row._mapping) for row in self._rows(query)]

    def rung_reports(self, study: Study) -> list[RungRow]:
        """What the search trials had come to at their rungs, in the order of the decisions."""
        query = (
            select(
                models.Trial.number,
                models.RungReport.epoch,
                models.RungReport.top1,
                models.RungReport.loss,
                models.Spec.macs,
                models.Spec.params,
                models.RungReport.goes_on,
            )
            .select_from(models.RungReport)
            .join(models.Trial, models.Trial.id == models.RungReport.trial_id)
            .join(models.Spec, models.Spec.id == models.Trial.spec_id)
            .where(models.Trial.study_id == study.id, models.Trial.role == TrialRole.SEARCH)
            .order_by(models.RungReport.id)
        )
        with gc_paused():
            return [RungRow(*row) for row in self._rows(query)]

    # Specs, evaluations, fronts

    def spec(self, key: str) -> SpecRecord:
        """The spec of this key.

        Raises:
            InputError: there is none.
        """
        rows = self._rows(select(models.Spec.__table__).where(models.Spec.key == key))
        if not rows:
            raise InputError(f"the database has no spec {key}")
        columns = rows[0]._mapping
        return SpecRecord(**{name: value for name, value in columns.items() if name != "id"})

    def find_evaluation(self, identity: EvaluationIdentity | str) -> StoredEvaluation | None:
        """A complete evaluation of any study, so that nothing is trained twice.

        Args:
            identity: the identity, or its key.
        """
        key = identity if isinstance(identity, str) else identity.key
        query = (
            select(models.Evaluation.__table__, models.Spec.key.label("spec_key"))
            .join(models.Spec, models.Spec.id == models.Evaluation.spec_id)
            .where(models.Evaluation.key == key)
        )
        rows = self._rows(query)
        return _evaluation(rows[0]) if rows else None

    def other_studies_with(self, evaluation_key: str, study: Study) -> bool:
        """Whether another study has a complete trial of this evaluation.

        Args:
            evaluation_key: the evaluation's key.
            study: whose trials do not count.
        """
        query = select(
            exists()
            .where(models.Evaluation.key == evaluation_key)
            .where(models.Trial.evaluation_id == models.Evaluation.id)
            .where(models.Trial.study_id != study.id)
            .where(models.Trial.state == TrialState.COMPLETE)
        )
        return bool(self._rows(query)[0][0])

    def latencies(self, study: Study) -> dict[str, LatencyRecord]:
        """The latencies of a study by the spec's key, those of refused proposals among them."""
        query = (
            select(
                models.Spec.key,
                models.Latency.latency_ms,
                models.Latency.latency_source,
                models.Latency.repeats,
                models.Latency.device,
                models.Latency.batch_size,
                models.Latency.peak_bytes,
            )
            .select_from(models.Latency)
            .join(models.Spec, models.Spec.id == models.Latency.spec_id)
            .where(models.Latency.study_id == study.id)
            .order_by(models.Latency.id)
        )
        return {
            key: LatencyRecord(
                latency_ms=latency_ms,
                latency_source=source,
                repeats=repeats,
                device=device,
                batch_size=batch_size,
                peak_bytes=peak_bytes,
            )
            for key, latency_ms, source, repeats, device, batch_size, peak_bytes in self._rows(
                query
            )
        }

    def snapshots(self, study: Study) -> list[FrontSnapshot]:
        """The fronts as they stood during the search, earliest first."""
        query = (
            select(
                models.FrontSnapshot.num_complete,
                models.FrontSnapshot.members,
                models.FrontSnapshot.hypervolume,
            )
            .where(models.FrontSnapshot.study_id == study.id)
            .order_by(models.FrontSnapshot.num_complete)
        )
        return [
            FrontSnapshot(
                num_complete=num_complete, members=tuple(members), hypervolume=hypervolume
            )
            for num_complete, members, hypervolume in self._rows(query)
        ]


def _study_of(name: str) -> Select[*tuple[Any, ...]]:
    return select(models.Study.__table__).where(models.Study.name == name)


def _study(row: Row[Any]) -> Study:
    return Study(
        id=row.id,
        created_at=row.created_at,
        finished_at=row.finished_at,
        record=StudyRecord(
            name=row.name,
            fingerprint_document=row.fingerprint_document,
            space=row.space,
            data=row.data,
            recipe=row.recipe,
            objectives=tuple(row.objectives),
            searcher=row.searcher,
            seed=row.seed,
            reference_point=row.reference_point,
            provenance=row.provenance,
            num_trials=row.num_trials,
            confirm_seeds=row.confirm_seeds,
            weights_dir=row.weights_dir,
            latency=row.latency,
        ),
    )


def _evaluation(row: Row[Any]) -> StoredEvaluation:
    return StoredEvaluation(
        id=row.id,
        created_at=row.created_at,
        record=EvaluationRecord(
            identity=EvaluationIdentity(
                spec_key=row.spec_key,
                recipe_key=row.recipe_key,
                data_fingerprint=row.data_fingerprint,
                fidelity=Fidelity.from_key(row.fidelity_key),
                seed=row.seed,
            ),
            split=row.split,
            top1=row.top1,
            loss=row.loss,
            num_images=row.num_images,
            wall_time_s=row.wall_time_s,
            device=row.device,
            threads=row.threads,
            versions=row.versions,
            learning_curve=row.learning_curve,
            weights_sha256=row.weights_sha256,
        ),
    )


def _with_costs(
    row: Row[*tuple[Any, ...]], costs: StoredCosts, placement: Callable[[], Placement]
) -> tuple[Any, ...]:
    """A row whose last columns, those of `COST_COLUMNS`, are made one mapping."""
    return (*row[:-_NUM_COSTS], costs.of(row[-_NUM_COSTS:], placement))


def _placement_in(document: Document) -> Placement:
    return NetworkSpec.from_json(document).placement


_ABSENT = object()


def _differences(stored: Any, asked: Any, path: str = "") -> Sequence[str]:
    """The leaves in which two documents differ, as `path: stored is not asked`."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        return [
            difference
            for key in sorted(stored.keys() | asked.keys())
            for difference in _differences(
                stored.get(key, _ABSENT), asked.get(key, _ABSENT), f"{path}.{key}".lstrip(".")
            )
        ]
    if stored == asked:
        return []
    shown = ["absent" if value is _ABSENT else repr(value) for value in (stored, asked)]
    return [f"{path} was {shown[0]} and is now {shown[1]}"]
