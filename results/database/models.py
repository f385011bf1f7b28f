"""The tables as SQLAlchemy models, shared by the migrations and the store.

Times are naive UTC (`utc_now`): SQLite keeps no time zone, and values written must equal values
read on every database. Small columns precede JSON ones, so that SQLite reads a row's light columns
without scanning its documents.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sharedattn.results.records import AttemptOutcome, LatencySource, TrialRole, TrialState

Sha256 = String(64)


def utc_now() -> datetime:
    """The current time in UTC, without a time zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def _text_enum(members: type[StrEnum]) -> Enum:
    """An enum stored as text by member value, so that new members need no migration."""
    return Enum(
        members,
        native_enum=False,
        length=16,
        values_callable=lambda enum: [member.value for member in enum],
    )


class Base(DeclarativeBase):
    """Base of the tables, with named constraints that migrations can address."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON, float: Double}


class Study(Base):
    """A search: its space, data, recipe and provenance.

    `driver_epoch` counts its drivers, `driver_write` the transactions of the current one.
    `latency` describes how latencies are obtained; it is NULL without latencies.
    """

    __tablename__ = "studies"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    fingerprint: Mapped[str] = mapped_column(Sha256)
    searcher: Mapped[str] = mapped_column(String(64))
    seed: Mapped[int] = mapped_column(BigInteger)
    num_trials: Mapped[int]
    confirm_seeds: Mapped[int]
    driver_epoch: Mapped[int] = mapped_column(default=0)
    driver_write: Mapped[int] = mapped_column(BigInteger, server_default="0")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    finished_at: Mapped[datetime | None]
    weights_dir: Mapped[str | None] = mapped_column(Text)
    objectives: Mapped[list[Any]]
    reference_point: Mapped[dict[str, Any]]
    fingerprint_document: Mapped[dict[str, Any]]
    space: Mapped[dict[str, Any]]
    data: Mapped[dict[str, Any]]
    recipe: Mapped[dict[str, Any]]
    provenance: Mapped[dict[str, Any]]
    latency: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class SearcherAttribute(Base):
    """One note of a study's searcher, such as the parents of one NSGA-II generation.

    Each note has a row, so that writing one does not rewrite the others.
    """

    __tablename__ = "searcher_attributes"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    value: Mapped[Any] = mapped_column(JSON)


class Spec(Base):
    """A network with its closed-form costs, shared by all studies."""

    __tablename__ = "specs"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(Sha256, unique=True)
    params: Mapped[int] = mapped_column(BigInteger)
    macs: Mapped[int] = mapped_column(BigInteger)
    attention_bytes: Mapped[int] = mapped_column(BigInteger)
    placement: Mapped[str] = mapped_column(Text)
    text: Mapped[str] = mapped_column(Text)
    document: Mapped[dict[str, Any]]


class Evaluation(Base):
    """A complete evaluation, shared by all studies.

    `key` is the sha256 of (spec, recipe, data fingerprint, fidelity, seed). It is unique, and
    names the file of the weights.
    """

    __tablename__ = "evaluations"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(Sha256, unique=True)
    spec_id: Mapped[int] = mapped_column(ForeignKey("specs.id"))
    recipe_key: Mapped[str] = mapped_column(Sha256)
    data_fingerprint: Mapped[str] = mapped_column(Sha256)
    fidelity_key: Mapped[str] = mapped_column(String(255))
    seed: Mapped[int] = mapped_column(BigInteger)
    split: Mapped[str] = mapped_column(String(32))
    top1: Mapped[float]
    loss: Mapped[float]
    num_images: Mapped[int]
    wall_time_s: Mapped[float]
    device: Mapped[str] = mapped_column(String(255))
    threads: Mapped[int]
    weights_sha256: Mapped[str | None] = mapped_column(Sha256)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    versions: Mapped[dict[str, Any]]
    # Always empty and never read, but readers of older versions require it.
    metrics: Mapped[dict[str, Any]] = mapped_column(default=dict)
    learning_curve: Mapped[list[Any]]


class Latency(Base):
    """Latency of a network's forward pass on a study's target device."""

    __tablename__ = "latencies"
    __table_args__ = (UniqueConstraint("study_id", "spec_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    spec_id: Mapped[int] = mapped_column(ForeignKey("specs.id"))
    latency_ms: Mapped[float]
    latency_source: Mapped[LatencySource] = mapped_column(_text_enum(LatencySource))
    repeats: Mapped[int]
    device: Mapped[str] = mapped_column(String(255))
    batch_size: Mapped[int]
    peak_bytes: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Trial(Base):
    """A proposal of a study, from its first attempt to its end."""

    __tablename__ = "trials"
    __table_args__ = (
        UniqueConstraint("study_id", "role", "number"),
        Index(None, "study_id", "role", "state"),
        Index(None, "evaluation_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    role: Mapped[TrialRole] = mapped_column(_text_enum(TrialRole))
    number: Mapped[int]
    replicate: Mapped[int]
    state: Mapped[TrialState] = mapped_column(_text_enum(TrialState))
    spec_id: Mapped[int] = mapped_column(ForeignKey("specs.id"))
    evaluation_id: Mapped[int | None] = mapped_column(ForeignKey("evaluations.id"))
    reused: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    finished_at: Mapped[datetime | None]
    error: Mapped[str | None] = mapped_column(Text)
    proposed: Mapped[dict[str, Any]]
    repaired: Mapped[dict[str, Any]]
    sampler_attributes: Mapped[dict[str, Any]]
    # As with `Evaluation.metrics`.
    learning_curve: Mapped[list[Any]] = mapped_column(default=list)


class Attempt(Base):
    """One run of a trial in a worker; a trial whose worker died has several."""

    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("trial_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id"))
    number: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(default=utc_now)
    finished_at: Mapped[datetime | None]
    outcome: Mapped[AttemptOutcome | None] = mapped_column(_text_enum(AttemptOutcome))
    traceback: Mapped[str | None] = mapped_column(Text)


class RungReport(Base):
    """A trial's metrics at a rung; ids give the order of the decisions."""

    __tablename__ = "rung_reports"
    __table_args__ = (UniqueConstraint("trial_id", "epoch"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id"))
    epoch: Mapped[int]
    top1: Mapped[float]
    loss: Mapped[float]
    goes_on: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class FrontSnapshot(Base):
    """The front after a number of complete search trials."""

    __tablename__ = "front_snapshots"
    __table_args__ = (UniqueConstraint("study_id", "num_complete"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    num_complete: Mapped[int]
    hypervolume: Mapped[float]
    members: Mapped[list[Any]]
