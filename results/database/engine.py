"""Open a database, check that it belongs to this project, and migrate it to the current schema.

SQLite runs in WAL mode with `synchronous = NORMAL`: a commit reaches the operating system before
it returns, so it survives the death of the process by any signal, and readers never wait for the
driver. A power cut may undo the last commits, but never a part of one; the search then runs those
trials again. FULL would avoid that at the cost of two flushes per trial.

Nothing is written until the database is known to be ours: a file is first read through a read-only
connection; of a server's database the user's rights are checked as well.

A password in the URL is neither shown nor stored. It is better kept where all PostgreSQL programs
look for it: in the variable PGPASSWORD or the file ~/.pgpass.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError

from sharedattn.errors import InputError
from sharedattn.results.database import migrations
from sharedattn.results.database.errors import ConnectionLostError
from sharedattn.results.database.models import Base
from sharedattn.results.database.retry import is_restarting, reason, retry_on_lost_connection
from sharedattn.results.redaction import redacted

BUSY_TIMEOUT_S = 30.0
# Detect a broken connection within a minute; options in the URL take precedence.
_CONNECTION = {
    "fallback_application_name": "sharedattn",
    "connect_timeout": 10,  # seconds, as are the next two
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds
}
_UPGRADE_LOCK = 0x5348415245444154  # "SHAREDAT", an advisory lock's key

_SELECT_READ_ONLY = text(
    "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::boolean"
)
_SELECT_MAY_CREATE = text("SELECT has_schema_privilege(current_schema(), 'CREATE')")
_SELECT_MISSING_RIGHTS = text(
    """
    SELECT name, privilege
    FROM unnest(CAST(:tables AS text[])) AS name, unnest(CAST(:privileges AS text[])) AS privilege
    WHERE to_regclass(name) IS NOT NULL AND NOT has_table_privilege(name, privilege)
    UNION ALL
    SELECT CAST(CAST(seqrelid AS regclass) AS text), 'USAGE'
    FROM pg_sequence
    JOIN pg_depend ON objid = seqrelid AND deptype = 'a'
    JOIN unnest(CAST(:tables AS text[])) AS name ON refobjid = to_regclass(name)
    WHERE 'INSERT' = ANY(CAST(:privileges AS text[]))
      AND NOT has_sequence_privilege(seqrelid, 'USAGE')
    """
)


# SQLAlchemy leaves these unescaped.
_PLAIN_IN_PATHS = " +/"
_SQLITE = re.compile(r"sqlite(\+pysqlite)?:///(?P<path>.*)", re.DOTALL)


class Schema(Enum):
    """Whether a database has our tables, and at which schema."""

    EMPTY = auto()
    CURRENT = auto()
    OLDER = auto()


def sqlite_url(file: Path) -> str:
    """The URL of an SQLite file, whose path may have any characters.

    Raises:
        InputError: the path is not UTF-8, so no URL can hold it.
    """
    try:
        path = quote(str(file), safe=_PLAIN_IN_PATHS)
    except UnicodeEncodeError:
        raise InputError(
            f"the folder of the database has a name that is not UTF-8: {str(file)!r}; rename it"
        ) from None
    # A leading `~` is this file's name here, not the home folder.
    return f"sqlite:///{path.replace('~', '%7E', 1) if path.startswith('~') else path}"


def parse_url(url: str) -> URL:
    """Parse the URL of a supported database; plain `postgresql://` means psycopg 3.

    The path of an SQLite database may be percent-encoded (`%3F` for `?`); a leading `~` is the
    home folder, as in a shell.

    Raises:
        InputError: the text is not a URL, or names another kind of database, an SQLite database in
            memory (which a second process could not read), or one with options.
    """
    if url.startswith(("sqlite:", "sqlite+")):
        return _parse_sqlite(url)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # No chaining: the error may contain the password.
        raise InputError(
            f"`storage` is a URL such as sqlite:///study.db or postgresql://HOST/DATABASE, but "
            f"got {redacted(url)!r}"
        ) from None
    if parsed.drivername.partition("+")[0] != "postgresql":
        raise InputError(
            f"`storage` is sqlite:///FILE or postgresql://HOST/DATABASE, but got {redacted(url)!r}"
        )
    num_at_signs = url.partition("?")[0].count("@")
    if num_at_signs > 1 or (num_at_signs and parsed.username is None):
        raise InputError(
            f"`storage` has more than one @, or a user with other characters than letters and "
            f"digits: {redacted(url)!r}; write @ as %40, / as %2F, : as %3A, # as %23 and ? as %3F"
        )
    return parsed.set(drivername="postgresql+psycopg")


def _parse_sqlite(url: str) -> URL:
    """Parse the URL of an SQLite file.

    Raises:
        InputError: it names no file, or more than a file.
    """
    match = _SQLITE.fullmatch(url)
    if match is None:
        raise InputError(
            f"`storage` of SQLite is sqlite:///FILE with three slashes, or four before a path "
            f"from the root, but got {redacted(url)!r}"
        )
    if "?" in match["path"]:
        raise InputError(
            f"`storage` of SQLite takes no options, but got {url!r}; leave out what begins with "
            f"?, or write %3F where it belongs to the file's name"
        )
    path = unquote(os.path.expanduser(match["path"]))
    if path in ("", ":memory:") or path.endswith("/") or "\0" in path:
        raise InputError(
            f"`storage` of SQLite is a file, but got {url!r}; write for example sqlite:///study.db"
        )
    if match["path"].startswith("~") and path.startswith("~"):
        raise InputError(
            f"`storage` is below the home folder of a user that is not known here: {url!r}; "
            f"write the whole path, or sqlite:///./~NAME for a folder of this name"
        )
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise InputError(
                f"no database can be in the file {path}: {error.strerror}; choose another"
            ) from error
    return URL.create("sqlite", database=path)


def shown_url(url: URL) -> str:
    """The URL for messages, without password and options, which may hold another."""
    return redacted(url.set(query={}).render_as_string(hide_password=True))


def sqlite_file(url: URL) -> Path | None:
    """The file of an SQLite database, or None for a server's."""
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


def open_engine(url: str, *, create: bool, read_only: bool) -> Engine:
    """Open an engine on a database of this project at the current schema.

    Args:
        url: as for `parse_url`.
        create: whether to create a missing database.
        read_only: whether to refuse every write, including a schema upgrade.

    Returns:
        The engine; its transactions are deferred, or immediate with the execution option
        `write=True`.

    Raises:
        InputError: the database is missing, corrupt, another program's, written by a newer
            version of this package, or not writable. It was not changed.
    """
    parsed = parse_url(url)
    file = sqlite_file(parsed)
    if file is None:
        return retry_on_lost_connection(
            partial(_open_server, parsed, create=create, read_only=read_only)
        )
    return _open_file(file, parsed, create=create, read_only=read_only)


def look_at(url: str) -> Schema:
    """Find the schema at a URL as a search would, without writing.

    Args:
        url: as for `parse_url`.

    Raises:
        InputError: a search could not use the database.
        ConnectionLostError: the server is starting or stopping.
    """
    parsed = parse_url(url)
    file = sqlite_file(parsed)
    if file is None:
        return retry_on_lost_connection(partial(_look_at_server, parsed))
    if not os.path.exists(file):
        folder = next(folder for folder in file.absolute().parents if folder.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise InputError(
                f"the database's folder cannot be made in {folder}; name another, or make that "
                f"one writable"
            )
        return Schema.EMPTY
    try:
        return _look_at_file(file, parsed, read_only=False)
    except DatabaseError as error:
        raise _cannot_open(shown_url(parsed), error) from error


def reading_engines(engine: Engine) -> tuple[Engine, Engine]:
    """Variants of an engine for single queries, and for several queries of one state."""
    if sqlite_file(engine.url) is not None:
        return engine, engine
    # A single query needs no transaction, which would cost two more round trips.
    one = engine.execution_options(isolation_level="AUTOCOMMIT")
    several = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return one, several


def _open_file(file: Path, url: URL, *, create: bool, read_only: bool) -> Engine:
    shown = shown_url(url)
    is_new = not os.path.exists(file)  # `Path.exists` raises if the name is too long
    if is_new:
        _prepare_new_file(file, create and not read_only)
    try:
        schema = Schema.EMPTY if is_new else _look_at_file(file, url, read_only)
        engine = _sqlite_engine(file, url, read_only=read_only)
        if schema is not Schema.CURRENT:
            _upgrade(engine, schema, shown, create=create, read_only=read_only)
    except DatabaseError as error:
        if is_new:
            file.unlink(missing_ok=True)
        raise _cannot_open(shown, error) from error
    return engine


def _open_server(url: URL, *, create: bool, read_only: bool) -> Engine:
    """Open an engine on a server's database.

    Raises:
        InputError: as for `open_engine`.
        ConnectionLostError: the server is starting or stopping.
    """
    shown = shown_url(url)
    engine = _server_engine(url, read_only=read_only)
    with _opening(engine):
        schema = _look_at(engine, shown)
        _check_rights(engine, schema, shown, read_only=read_only)
        if schema is not Schema.CURRENT:
            _upgrade(engine, schema, shown, create=create, read_only=read_only)
    return engine


def _look_at_server(url: URL) -> Schema:
    shown = shown_url(url)
    engine = _server_engine(url, read_only=True)
    with _opening(engine):
        schema = _look_at(engine, shown)
        _check_rights(engine, schema, shown, read_only=False)
    engine.dispose()
    return schema


@contextmanager
def _opening(engine: Engine) -> Iterator[None]:
    """Close a server's engine if the block fails, and report the server's message."""
    shown = shown_url(engine.url)
    try:
        yield
    except BaseException as error:
        engine.dispose()
        if not isinstance(error, DBAPIError):
            raise
        if is_restarting(error):
            raise ConnectionLostError(f"the database {shown} says: {reason(error)}") from error
        raise _cannot_open(shown, error) from error


def _cannot_open(shown: str, error: DBAPIError) -> InputError:
    return InputError(f"the database {shown} cannot be opened: {reason(error)}")


def _prepare_new_file(file: Path, create: bool) -> None:
    if not create:
        raise InputError(
            f"there is no database file {file}; name the one that a search has written"
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the database's folder {file.parent} cannot be made: {error.strerror}"
        ) from error


def _look_at_file(file: Path, url: URL, read_only: bool) -> Schema:
    """Find the schema of an SQLite file without writing to it."""
    if not file.is_file():
        raise InputError(f"the database {file} is not a file; name another path")
    if file.stat().st_size == 0:
        # Left behind by a process killed while it created the database.
        return Schema.EMPTY
    probe = _sqlite_engine(file, url, read_only=True)
    try:
        schema = _look_at(probe, shown_url(url))
        if not read_only:
            _check_pages(probe, shown_url(url))
        return schema
    finally:
        probe.dispose()


def _look_at(engine: Engine, shown: str) -> Schema:
    with engine.connect() as connection:
        tables = set(inspect(connection).get_table_names())
        if not tables:
            return Schema.EMPTY
        if migrations.VERSION_TABLE not in tables:
            raise InputError(
                f"the database {shown} is not one of sharedattn's: it has the tables "
                f"{', '.join(sorted(tables)[:5])}; name another"
            )
        revision = connection.execute(
            text(f"SELECT version_num FROM {migrations.VERSION_TABLE}")
        ).scalar()
    if revision == migrations.HEAD:
        missing = set(Base.metadata.tables) - tables
        if missing:
            raise InputError(
                f"the database {shown} has schema {revision} but lacks the tables "
                f"{', '.join(sorted(missing))}; restore it from a copy"
            )
        return Schema.CURRENT
    if revision in migrations.known_revisions():
        return Schema.OLDER
    raise InputError(
        f"the database {shown} has schema {revision}, newer than the {migrations.HEAD} that this "
        f"version of sharedattn knows; upgrade sharedattn"
    )


def _upgrade(engine: Engine, schema: Schema, shown: str, *, create: bool, read_only: bool) -> None:
    if schema is Schema.EMPTY and (read_only or not create):
        raise InputError(f"the database {shown} is empty; name the one that a search has written")
    if read_only:
        raise InputError(
            f"the database {shown} has an older schema than {migrations.HEAD}, and is opened for "
            f"reading only; run its search again, which upgrades it"
        )
    with engine.execution_options(write=True).begin() as connection:
        if engine.dialect.name == "postgresql":
            # Of two processes that open it at once, the second finds the upgrade done.
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        migrations.upgrade(connection)


def _check_rights(engine: Engine, schema: Schema, shown: str, *, read_only: bool) -> None:
    """Check that the user may write a server's database, or at least read it."""
    with engine.connect() as connection:
        if not read_only:
            standby, guarded = connection.execute(_SELECT_READ_ONLY).one()
            if standby or guarded:
                why = (
                    "it is a standby server" if standby else "default_transaction_read_only is on"
                )
                raise InputError(
                    f"the database {shown} is read-only: {why}; name the primary server, or a "
                    f"user who may write"
                )
        if schema is Schema.EMPTY:
            if not read_only and not connection.execute(_SELECT_MAY_CREATE).scalar():
                raise InputError(
                    f"the user may not make tables in the empty database {shown}: it does not "
                    f"grant CREATE on a schema in the user's search_path; grant it"
                )
            return
        needed = ["SELECT"] if read_only else ["SELECT", "INSERT", "UPDATE"]
        bound = {"tables": sorted(Base.metadata.tables), "privileges": needed}
        missing = connection.execute(_SELECT_MISSING_RIGHTS, bound).all()
    if missing:
        tables, privileges = (
            ", ".join(sorted(set(names))) for names in zip(*missing, strict=True)
        )
        raise InputError(
            f"the user may not {'read' if read_only else 'write'} the database: {shown} does not "
            f"grant {privileges} on {tables}; grant it"
        )


def _check_pages(engine: Engine, shown: str) -> None:
    """Check a file for damage before a driver writes to it."""
    with engine.connect() as connection:
        finding = connection.execute(text("PRAGMA quick_check(1)")).scalar()
    if finding != "ok":
        what = " ".join(str(finding).split())
        raise InputError(f"the database {shown} is damaged: {what}; restore it from a copy")


def _sqlite_engine(file: Path, url: URL, *, read_only: bool) -> Engine:
    mode = "ro" if read_only else "rwc"
    if read_only and not os.access(file.parent, os.W_OK) and not Path(f"{file}-wal").exists():
        # WAL mode creates a file beside the database even to read it; on a read-only disk, open
        # the database as immutable, which it then is.
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

    # Turn off the DBAPI's own transactions (isolation_level None), which leave out reads and table
    # definitions. A writer takes the lock at once: after a read, its first write could be refused
    # without waiting for the busy timeout.
    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _server_engine(url: URL, *, read_only: bool) -> Engine:
    settings = {name: value for name, value in _CONNECTION.items() if name not in url.query}
    try:
        return create_engine(
            url,
            connect_args=settings,
            # When a second driver checks the epoch, it needs to see the first one's commits.
            isolation_level="READ COMMITTED",
            # Otherwise empty, since False would override the server's own setting.
            execution_options={"postgresql_readonly": True} if read_only else {},
        )
    except ModuleNotFoundError as error:
        raise InputError(
            "PostgreSQL requires psycopg, which is not installed; "
            "run: pip install 'sharedattn[postgres]'"
        ) from error
