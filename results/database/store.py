"""Read studies from the database, and open the writer of a study's driver.

Any process may read at any time; a study is written through the `StudyWriter` that `Store.drive`
gives to one process at a time. Each method is one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from typing import Any, Self

from sqlalchemy import Connection, Engine, Row, Select, exists, select

from sharedattn.errors import InputError
from sharedattn.results.database import models
from sharedattn.results.database.connections import Database
from sharedattn.results.database.engine import open_engine, sqlite_file
from sharedattn.results.database.lock import (
    ServerLock,
    file_lock,
    holder_of_file,
    holder_on_server,
)
from sharedattn.results.database.trials import TrialQueries
from sharedattn.results.database.upserts import columns_of, insert_or_find
from sharedattn.results.database.writing import StudyWriter
from sharedattn.results.records import (
    Document,
    EvaluationIdentity,
    EvaluationRecord,
    Fidelity,
    FrontSnapshot,
    LatencyRecord,
    SpecRecord,
    StoredEvaluation,
    Study,
    StudyRecord,
    TrialState,
)


class Store:
    """An open database; a context manager that closes it.

    Created by `Store.open`.

    Attributes:
        database: its connections and transactions.
        trials: queries of its studies' trials.
        url: its URL without the password, for messages.
    """

    def __init__(self, engine: Engine) -> None:
        self.database = Database(engine)
        self.trials = TrialQueries(self.database)
        self.url = self.database.url

    @classmethod
    def open(cls, url: str, *, create: bool = False, read_only: bool = False) -> Store:
        """Open a database of this project, upgrading an older schema.

        Args:
            url: `sqlite:///FILE`, or `postgresql://...` (with the extra `postgres`).
            create: whether to create a missing database and its parent folders.
            read_only: whether to write nothing, not even a schema upgrade.

        Raises:
            InputError: the database is missing, corrupt, another program's, of a newer schema, or
                not writable. It was not changed.
        """
        return cls(open_engine(url, create=create, read_only=read_only))

    def close(self) -> None:
        """Close all connections; SQLite then merges its log into the file."""
        self.database.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def studies(self) -> list[Study]:
        """All studies, oldest first."""
        query = select(models.Study.__table__).order_by(models.Study.id)
        return [_study(row) for row in self.database.rows(query)]

    def find_study(self, name: str) -> Study | None:
        """The study of this name, or None."""
        rows = self.database.rows(_study_of(name))
        return _study(rows[0]) if rows else None

    def study(self, name: str) -> Study:
        """The study of this name.

        Raises:
            InputError: there is none; the message lists the existing ones.
        """
        found = self.find_study(name)
        if found is None:
            names = ", ".join(repr(study.record.name) for study in self.studies()) or "none"
            raise InputError(f"the database {self.url} has no study {name!r}; it has {names}")
        return found

    def get_or_create_study(self, record: StudyRecord) -> Study:
        """Get the study of this name, or create it.

        An existing study is not changed, since another process may be driving it: totals are
        changed by `StudyWriter.set_totals`, and everything else outside the fingerprint (reference
        point, provenance, weights' folder, latencies) stays as first written.

        Raises:
            InputError: the study of this name has another fingerprint; the message names the
                differing fields.
        """

        def write(connection: Connection) -> Study:
            insert_or_find(
                connection,
                "studies",
                **{
                    **columns_of(record),
                    "fingerprint": record.fingerprint,
                    "reference_point": dict(record.reference_point),
                },
            )
            return _study(connection.execute(_study_of(record.name)).one())

        study = self.database.write(write)
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
        """Make this process the only one that writes to `study`, until the block ends.

        Raises:
            InputError: another process drives it.
        """
        database, name = sqlite_file(self.database.engine.url), study.record.name
        if database is None:
            with ServerLock(self.database.engine, name) as lock:
                yield StudyWriter(lock.transaction, study.id)
        else:
            with file_lock(database, name):
                yield StudyWriter(self.database.writing, study.id)

    def driver_of(self, study: Study) -> str | None:
        """Describe the driver of a study for messages, or None without one."""
        database, name = sqlite_file(self.database.engine.url), study.record.name
        if database is None:
            return self.database.read(partial(holder_on_server, study_name=name))
        return holder_of_file(database, name)

    def searcher_attributes(self, study: Study) -> Document:
        """All notes of the study's searcher, by key."""
        query = select(models.SearcherAttribute.key, models.SearcherAttribute.value).where(
            models.SearcherAttribute.study_id == study.id
        )
        return {key: value for key, value in self.database.rows(query)}

    def note(self, study: Study, key: str) -> Any:
        """The note of this key on a study, or None if there is none."""
        query = select(models.SearcherAttribute.value).where(
            models.SearcherAttribute.study_id == study.id, models.SearcherAttribute.key == key
        )
        rows = self.database.rows(query)
        return rows[0].value if rows else None

    def notes(self, key: str) -> list[Any]:
        """The notes of this key on all studies, the oldest study's first."""
        query = (
            select(models.SearcherAttribute.value)
            .where(models.SearcherAttribute.key == key)
            .order_by(models.SearcherAttribute.study_id)
        )
        return [row.value for row in self.database.rows(query)]

    def spec(self, key: str) -> SpecRecord:
        """The spec with this key.

        Raises:
            InputError: there is none.
        """
        rows = self.database.rows(select(models.Spec.__table__).where(models.Spec.key == key))
        if not rows:
            raise InputError(f"the database has no spec {key}")
        columns = rows[0]._mapping
        return SpecRecord(**{name: value for name, value in columns.items() if name != "id"})

    def find_evaluation(self, identity: EvaluationIdentity | str) -> StoredEvaluation | None:
        """Find a complete evaluation of any study, so that nothing is trained twice.

        Args:
            identity: the evaluation's identity, or its key.
        """
        key = identity if isinstance(identity, str) else identity.key
        query = (
            select(models.Evaluation.__table__, models.Spec.key.label("spec_key"))
            .join(models.Spec, models.Spec.id == models.Evaluation.spec_id)
            .where(models.Evaluation.key == key)
        )
        rows = self.database.rows(query)
        return _evaluation(rows[0]) if rows else None

    def evaluations_like(
        self, identity: EvaluationIdentity
    ) -> list[tuple[SpecRecord, EvaluationRecord]]:
        """Complete evaluations of any spec that are otherwise of an identity, with their specs.

        Args:
            identity: gives recipe, data, fidelity and seed.

        Returns:
            In the order in which they were stored.
        """
        specs = [column.label(f"spec_{column.name}") for column in models.Spec.__table__.columns]
        query = (
            select(models.Evaluation.__table__, *specs)
            .join(models.Spec, models.Spec.id == models.Evaluation.spec_id)
            .where(
                models.Evaluation.recipe_key == identity.recipe_key,
                models.Evaluation.data_fingerprint == identity.data_fingerprint,
                models.Evaluation.fidelity_key == identity.fidelity.key,
                models.Evaluation.seed == identity.seed,
            )
            .order_by(models.Evaluation.id)
        )
        names = [field.name for field in fields(SpecRecord)]
        return [
            (
                SpecRecord(**{name: getattr(row, f"spec_{name}") for name in names}),
                _evaluation(row).record,
            )
            for row in self.database.rows(query)
        ]

    def other_studies_with(self, evaluation_key: str, study: Study) -> bool:
        """Whether another study has a complete trial of this evaluation.

        Args:
            evaluation_key: the evaluation's key.
            study: the study to leave out.
        """
        query = select(
            exists()
            .where(models.Evaluation.key == evaluation_key)
            .where(models.Trial.evaluation_id == models.Evaluation.id)
            .where(models.Trial.study_id != study.id)
            .where(models.Trial.state == TrialState.COMPLETE)
        )
        return bool(self.database.rows(query)[0][0])

    def latencies(self, study: Study) -> dict[str, LatencyRecord]:
        """Latencies of a study by the spec's key, including those of refused proposals."""
        names = [field.name for field in fields(LatencyRecord)]
        query = (
            select(models.Spec.key, *(getattr(models.Latency, name) for name in names))
            .select_from(models.Latency)
            .join(models.Spec, models.Spec.id == models.Latency.spec_id)
            .where(models.Latency.study_id == study.id)
            .order_by(models.Latency.id)
        )
        return {
            key: LatencyRecord(**dict(zip(names, values, strict=True)))
            for key, *values in self.database.rows(query)
        }

    def snapshots(self, study: Study) -> list[FrontSnapshot]:
        """The search's fronts, earliest first."""
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
            for num_complete, members, hypervolume in self.database.rows(query)
        ]


def _study_of(name: str) -> Select[*tuple[Any, ...]]:
    return select(models.Study.__table__).where(models.Study.name == name)


def _study(row: Row[Any]) -> Study:
    columns = {field.name: getattr(row, field.name) for field in fields(StudyRecord)}
    return Study(
        id=row.id,
        created_at=row.created_at,
        finished_at=row.finished_at,
        record=StudyRecord(**{**columns, "objectives": tuple(row.objectives)}),
    )


def _evaluation(row: Row[Any]) -> StoredEvaluation:
    identity = EvaluationIdentity(
        spec_key=row.spec_key,
        recipe_key=row.recipe_key,
        data_fingerprint=row.data_fingerprint,
        fidelity=Fidelity.from_key(row.fidelity_key),
        seed=row.seed,
    )
    measured = {
        field.name: getattr(row, field.name)
        for field in fields(EvaluationRecord)
        if field.name != "identity"
    }
    return StoredEvaluation(id=row.id, record=EvaluationRecord(identity=identity, **measured))


_ABSENT = object()


def _differences(stored: Any, asked: Any, path: str = "") -> Sequence[str]:
    """Leaves in which two documents differ, as `path: stored is not asked`."""
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
