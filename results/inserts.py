"""Rows that several drivers may write at once, of which the first one stays."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from results.models import Base

# Column that makes a row of these tables the same row, for every study.
_UNIQUE = {"studies": "name", "specs": "key", "evaluations": "key"}
_TABLES = {name: Base.metadata.tables[name] for name in _UNIQUE}
# `ON CONFLICT` is no standard SQL, so each dialect has its own statement. On PostgreSQL it waits
# for another driver's transaction to end; the select after it then sees that driver's row.
_INSERTS = {
    (dialect, name): insert(_TABLES[name])
    .on_conflict_do_nothing(index_elements=[unique])
    .returning(_TABLES[name].c.id)
    for dialect, insert in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert))
    for name, unique in _UNIQUE.items()
}
_SELECTS = {
    name: select(_TABLES[name].c.id).where(_TABLES[name].c[unique] == bindparam("b_value"))
    for name, unique in _UNIQUE.items()
}


def insert_or_find(connection: Connection, table: str, **columns: Any) -> tuple[int, bool]:
    """Write a row unless one of its name or key is there.

    Args:
        connection: in a writing transaction.
        table: `studies`, `specs` or `evaluations`.
        columns: the row's.

    Returns:
        The row's id, and whether it was there already.
    """
    written = connection.execute(_INSERTS[connection.dialect.name, table], columns).scalar()
    if written is not None:
        return int(written), False
    bound = {"b_value": columns[_UNIQUE[table]]}
    return int(connection.execute(_SELECTS[table], bound).scalar_one()), True
