"""Open a database, check that it is one of ours, and migrate it to the current schema.

SQLite runs in WAL mode with `synchronous = NORMAL`: a commit is handed to the operating system
before it returns, so it survives the death of the process by any signal, and readers never wait
for the driver. A power cut may take back the last commits, never a part of one, and the search
then runs those trials again; FULL would pay two flushes a trial to save them.

Nothing is written before the database is known to be ours: a file is looked at through a
read-only connection first, of a server's database the user's rights are looked at as well.

A server's password may stand in the URL, from where it is neither shown nor stored. Better, it
stands where every program of PostgreSQL looks for it: in the variable PGPASSWORD or the file
~/.pgpass.
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
# So that a line that is cut is noticed within a minute; a URL may say otherwise.
_CONNECTION = {
    "fallback_application_name": "sharedattn",
    "connect_timeout": 10,  # seconds, as the next two
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds
}
_UPGRADE_LOCK = 0x5348415245444154  # "SHAREDAT", among the advisory locks of a database

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


# As SQLAlchemy writes them.
_PLAIN_IN_PATHS = " +/"
_SQLITE = re.compile(r"sqlite(\+pysqlite)?:///(?P<path>.*)", re.DOTALL)


class Schema(Enum):
    """Which of our tables a database has."""

    EMPTY = auto()
    CURRENT = auto()
    OLDER = auto()


def sqlite_url(file: Path) -> str:
    """The URL of an SQLite database's file, whatever characters its path has.

    Raises:
        InputError: a path that is not UTF-8, which no URL can hold.
    """
    try:
        path = quote(str(file), safe=_PLAIN_IN_PATHS)
    except UnicodeEncodeError:
        raise InputError(
            f"the folder of the database has a name that is not UTF-8: {str(file)!r}; rename it"
        ) from None
    # A folder of this name, and not the home folder.
    return f"sqlite:///{path.replace('~', '%7E', 1) if path.startswith('~') else path}"


def parse_url(url: str) -> URL:
    """The URL of a supported database; plain `postgresql://` means psycopg 3.

    The path of an SQLite database may have characters in percent (`%3F` for `?`), and `~` at its
    beginning is the home folder, as it would be in a path that the shell reads.

    Raises:
        InputError: another database, no URL, an SQLite database in memory, which no second
            process could read, or one with options.
    """
    if url.startswith(("sqlite:", "sqlite+")):
        return _parse_sqlite(url)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Not chained: the error may hold the password.
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
    """The URL of an SQLite file.

    Raises:
        InputError: no file, or anything beside it.
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
    """The URL as messages show it: without its password, and without options, which may be one."""
    return redacted(url.set(query={}).render_as_string(hide_password=True))


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
    file = sqlite_file(parsed)
    if file is None:
        return retry_on_lost_connection(
            partial(_open_server, parsed, create=create, read_only=read_only)
        )
    return _open_file(file, parsed, create=create, read_only=read_only)


def look_at(url: str) -> Schema:
    """Return the schema that a search would find at a URL, without writing anything there.

    Args:
        url: see `parse_url`.

    Raises:
        InputError: what a search would be refused for.
        ConnectionLostError: the server starts or stops, and goes on to.
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
    """The same engine for one query, and for several of the same state of the database."""
    if sqlite_file(engine.url) is not None:
        return engine, engine
    # One query needs no transaction around it, which takes two more trips to the server.
    one = engine.execution_options(isolation_level="AUTOCOMMIT")
    several = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return one, several


def _open_file(file: Path, url: URL, *, create: bool, read_only: bool) -> Engine:
    shown = shown_url(url)
    is_new = not os.path.exists(file)  # `Path.exists` raises on a name that is too long
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
    """An engine on a server's database.

    Raises:
        InputError: as `open_engine`.
        ConnectionLostError: the server is there, but starts or stops.
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
    """Close a server's engine when the block fails, and say what the server said."""
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
    """The schema of an SQLite file, found without writing to it."""
    if not file.is_file():
        raise InputError(f"the database {file} is not a file; name another path")
    if file.stat().st_size == 0:
        # What a process killed while it made the database leaves behind.
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
            # Of two processes that open it at once, the second one finds it done.
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        migrations.upgrade(connection)


def _check_rights(engine: Engine, schema: Schema, shown: str, *, read_only: bool) -> None:
    """Refuse a server's database that may not be written, or not even be read."""
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
    """Refuse a damaged file before a driver writes into it."""
    with engine.connect() as connection:
        finding = connection.execute(text("PRAGMA quick_check(1)")).scalar()
    if finding != "ok":
        what = " ".join(str(finding).split())
        raise InputError(f"the database {shown} is damaged: {what}; restore it from a copy")


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
    settings = {name: value for name, value in _CONNECTION.items() if name not in url.query}
    try:
        return create_engine(
            url,
            connect_args=settings,
            # A second driver's check of the epoch must see what the first one has committed.
            isolation_level="READ COMMITTED",
            # Not False else, which would overrule what the server's side says.
            execution_options={"postgresql_readonly": True} if read_only else {},
        )
    except ModuleNotFoundError as error:
        raise InputError(
            "PostgreSQL requires psycopg, which is not installed; "
            "run: pip install 'sharedattn[postgres]'"
        ) from error
