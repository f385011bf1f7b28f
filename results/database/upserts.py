"""Upsert helpers for SQLite and PostgreSQL."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table, and_, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from sharedattn.results.database.models import Base

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Columns that identify a row of these tables.
_UNIQUE = {
    "studies": ("name",),
    "specs": ("key",),
    "evaluations": ("key",),
    "latencies": ("study_id", "spec_id"),
    "rung_reports": ("trial_id", "epoch"),
    "searcher_attributes": ("study_id", "key"),
    "front_snapshots": ("study_id", "num_complete"),
}
_FOUND = ("studies", "specs", "evaluations", "latencies", "rung_reports")
_REPLACED = ("searcher_attributes", "front_snapshots")
_TABLES = {name: Base.metadata.tables[name] for name in _UNIQUE}
# `ON CONFLICT` is not standard SQL, so each dialect has its own statement.
_DIALECTS = (("sqlite", sqlite.insert), ("postgresql", postgresql.insert))


def _replacement(insert: Any, table: Table) -> Any:
    unique = _UNIQUE[table.name]
    statement = insert(table)
    others = [c.name for c in table.columns if c.name not in unique and c.name != "id"]
    return statement.on_conflict_do_update(
        index_elements=unique, set_={name: statement.excluded[name] for name in others}
    )


# On PostgreSQL the insert waits for another driver's transaction; the select after it then sees
# that driver's row.
_INSERTS = {
    (dialect, name): insert(_TABLES[name])
    .on_conflict_do_nothing(index_elements=_UNIQUE[name])
    .returning(_TABLES[name].c.id)
    for dialect, insert in _DIALECTS
    for name in _FOUND
}
_SELECTS = {
    name: select(_TABLES[name].c.id).where(
        and_(*(_TABLES[name].c[column] == bindparam(f"b_{column}") for column in _UNIQUE[name]))
    )
    for name in _FOUND
}
_REPLACEMENTS = {
    (dialect, name): _replacement(insert, _TABLES[name])
    for dialect, insert in _DIALECTS
    for name in _REPLACED
}


def columns_of(record: DataclassInstance) -> dict[str, Any]:
    """The record's fields that have a column of the same name."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def insert_or_find(connection: Connection, table: str, **columns: Any) -> tuple[int, bool]:
    """Insert a row, or find the one with the same name or key; safe with several drivers.

    Args:
        connection: a connection inside a writing transaction.
        table: `studies`, `specs`, `evaluations`, `latencies` or `rung_reports`.
        columns: values by column name.

    Returns:
        The row's id, and whether it existed already.
    """
    written = connection.execute(_INSERTS[connection.dialect.name, table], columns).scalar()
    if written is not None:
        return int(written), False
    bound = {f"b_{column}": columns[column] for column in _UNIQUE[table]}
    return int(connection.execute(_SELECTS[table], bound).scalar_one()), True


def insert_or_replace(connection: Connection, table: str, **columns: Any) -> None:
    """Insert a row, or replace the one with the same key.

    Args:
        connection: a connection inside a writing transaction.
        table: `searcher_attributes` or `front_snapshots`.
        columns: values by column name.
    """
    connection.execute(_REPLACEMENTS[connection.dialect.name, table], columns)
