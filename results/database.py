"""Opening a database: which one it is, whether it is ours, and at the current schema.

SQLite runs in WAL mode with `synchronous = NORMAL`: a commit is handed to the operating system
before it returns, so it survives the death of the process by any signal, and readers never wait
for the driver. A power cut may take back the last commits, never a part of one, and the search
then runs those trials again; FULL would pay two flushes a trial to save them.

Nothing is written before the file is known to be ours: it is looked at through a read-only
connection first.
"""

from __future__ import annotations

import os
import sqlite3
from enum import Enum, auto
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError

from results import migrations
from results.models import Base
from sharedattn.errors import InputError

BUSY_TIMEOUT_S = 30.0


class _Schema(Enum):
    EMPTY = auto()
    CURRENT = auto()
    OLDER = auto()


def parse_url(url: str) -> URL:
    """The URL of a supported database; plain `postgresql://` means psycopg 3.

    Raises:
        InputError: another database, no URL, or an SQLite database in memory, which no second
            process could read.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InputError(
            f"`storage is a URL such as sqlite:///study.db` must hold, but got {url!r}"
        ) from error
    if parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() != "sqlite":
        raise InputError(
            f"`storage is sqlite:///FILE or postgresql://HOST/DATABASE` must hold, but got {url!r}"
        )
    if parsed.database in (None, "", ":memory:"):
        raise InputError(
            f"`an SQLite database is a file` must hold, but got {url!r}; "
            f"write for example sqlite:///study.db"
        )
    return parsed


def shown_url(url: URL) -> str:
    """The URL as messages show it, without its password."""
    return url.render_as_string(hide_password=True)


def sqlite_file(url: URL) -> Path | None:
    """The file of an SQLite database; None of a server's."""
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


def open_engine(url: str, *, create: bool, read_only: bool) -> Engine:
    """An engine on a database of this project at the current schema.

    Args:
        url: see `parse_url`.
        create: whether a database that does not exist is made.
        read_only: refuse every write; the schema is not upgraded either.

    Returns:
        The engine; its transactions are deferred, or immediate with `write=True` among the
        execution options.

    Raises:
        InputError: no such database, a corrupt file, another program's, one written by a newer
            version of this package, or one that cannot be written. The file is left as it was.
    """
    parsed = parse_url(url)
    shown = shown_url(parsed)
    file = sqlite_file(parsed)
    is_new = file is not None and not file.exists()
    if file is not None and is_new:
        _prepare_new_file(file, create and not read_only)
    try:
        if file is None:
            engine = _server_engine(parsed, read_only=read_only)
            schema = _look_at(engine, shown)
        else:
            schema = _Schema.EMPTY if is_new else _look_at_file(file, parsed, read_only)
            engine = _sqlite_engine(file, parsed, read_only=read_only)
        if schema is not _Schema.CURRENT:
            _upgrade(engine, schema, shown, create=create, read_only=read_only)
    except DatabaseError as error:
        if file is not None and is_new:
            file.unlink(missing_ok=True)
        raise InputError(
            f"`the database can be opened` must hold, but {shown} says: {error.orig}"
        ) from error
    return engine


def _prepare_new_file(file: Path, create: bool) -> None:
    if not create:
        raise InputError(
            f"`the database exists` must hold, but there is no file {file}; "
            f"name the one a search has written"
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"`the database's folder can be made` must hold, but {file.parent}: {error.strerror}"
        ) from error


def _look_at_file(file: Path, url: URL, read_only: bool) -> _Schema:
    """The schema of an SQLite file, found without writing to it."""
    if not file.is_file():
        raise InputError(f"`the database is a file` must hold, but {file} is something else")
    if file.stat().st_size == 0:
        # What a process killed while it made the database leaves behind.
        return _Schema.EMPTY
    probe = _sqlite_engine(file, url, read_only=True)
    try:
        schema = _look_at(probe, shown_url(url))
        if not read_only:
            _check_pages(probe, shown_url(url))
        return schema
    finally:
        probe.dispose()


def _look_at(engine: Engine, shown: str) -> _Schema:
    with engine.connect() as connection:
        tables = set(inspect(connection).get_table_names())
        if not tables:
            return _Schema.EMPTY
        if migrations.VERSION_TABLE not in tables:
            raise InputError(
                f"`the database is one of sharedattn's, or empty` must hold, but {shown} "
                f"holds the tables {', '.join(sorted(tables)[:5])}; name another file"
            )
        revision = connection.execute(
            text(f"SELECT version_num FROM {migrations.VERSION_TABLE}")
        ).scalar()
    if revision == migrations.HEAD:
        missing = set(Base.metadata.tables) - tables
        if missing:
            raise InputError(
                f"`a database of schema {revision} has all its tables` must hold, but "
                f"{shown} lacks {', '.join(sorted(missing))}; restore it from a copy"
            )
        return _Schema.CURRENT
    if revision in migrations.known_revisions():
        return _Schema.OLDER
    raise InputError(
        f"`the database is not newer than sharedattn` must hold, but {shown} has schema "
        f"{revision} and this version knows up to {migrations.HEAD}; upgrade sharedattn"
    )


def _upgrade(
    engine: Engine, schema: _Schema, shown: str, *, create: bool, read_only: bool
) -> None:
    if schema is _Schema.EMPTY and (read_only or not create):
        raise InputError(
            f"`the database holds studies` must hold, but {shown} is empty; "
            f"name the one a search has written"
        )
    if read_only:
        raise InputError(
            f"`the database has schema {migrations.HEAD}` must hold, but {shown} is older "
            f"and opened for reading only; run its search again, which upgrades it"
        )
    with engine.execution_options(write=True).begin() as connection:
        migrations.upgrade(connection)


def _check_pages(engine: Engine, shown: str) -> None:
    """Refuse a damaged file before a driver writes into it."""
    with engine.connect() as connection:
        finding = connection.execute(text("PRAGMA quick_check(1)")).scalar()
    if finding != "ok":
        what = " ".join(str(finding).split())
        raise InputError(
            f"`the database is sound` must hold, but {shown} is damaged: {what}; "
            f"restore it from a copy"
        )


def _sqlite_engine(file: Path, url: URL, *, read_only: bool) -> Engine:
    mode = "ro" if read_only else "rwc"
    if read_only and not os.access(file.parent, os.W_OK) and not Path(f"{file}-wal").exists():
        # A database in WAL mode makes a file beside it even to be read; on a read-only disk it
        # can be read as what it then is, a file that nobody changes.
        mode = "ro&immutable=1"
    uri = f"file:{quote(str(file.absolute()))}?mode={mode}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(
            uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )

    engine = create_engine(url, creator=connect)

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: sqlite3.Connection, _: Any) -> None:
        if not read_only:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")

    # The driver's own transactions are off (isolation_level None): they would leave out reads
    # and table definitions. A writer takes the lock at once, since one that first reads could be
    # refused at its first write without the busy timeout.
    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _server_engine(url: URL, *, read_only: bool) -> Engine:
    try:
        # Servers close idle connections between long trials; a ping finds out.
        return create_engine(
            url, pool_pre_ping=True, execution_options={"postgresql_readonly": read_only}
        )
    except ModuleNotFoundError as error:
        raise InputError(
            "`PostgreSQL needs the extra postgres` must hold, but psycopg is not installed; "
            "run: pip install 'sharedattn[postgres]'"
        ) from error
