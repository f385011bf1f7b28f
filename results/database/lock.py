"""Give each study one driver, by a lock that is freed when its holder dies."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.exc import DBAPIError

from sharedattn.errors import InputError
from sharedattn.results.database.engine import shown_url
from sharedattn.results.database.errors import ConnectionLostError, StorageError
from sharedattn.results.database.retry import retry_on_lost_connection, storage_errors

_LOOK_S = 0.2  # far longer than a look at who holds a lock


def _study_hash(study_name: str) -> bytes:
    return hashlib.sha256(study_name.encode()).digest()


def lock_file(database: Path, study_name: str) -> Path:
    """The lock file of one study, beside its SQLite database."""
    return database.with_name(f"{database.name}.{_study_hash(study_name).hex()[:12]}.lock")


@contextmanager
def file_lock(database: Path, study_name: str) -> Iterator[None]:
    """Hold the study of an SQLite database for this process alone.

    The lock belongs to the open file, so it ends with the process, whatever ends it; the file
    itself stays, since removing it would let two processes lock two files of one name. A forked
    child shares the lock: workers are spawned.

    Raises:
        InputError: another process drives the study, or the folder cannot be written.
    """
    path = lock_file(database, study_name)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(
            f"the lock file {path} cannot be written: {error.strerror}; make the folder writable"
        ) from error
    try:
        if not _taken(descriptor):
            # It may be somebody who only looks, see `holder_of_file`.
            time.sleep(_LOOK_S)
            if not _taken(descriptor):
                raise InputError(_second_driver(study_name, _file_holder(descriptor)))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder_of_file(database: Path, study_name: str) -> str | None:
    """Describe who drives a study of an SQLite database, for messages, or None if nobody does."""
    try:
        descriptor = os.open(lock_file(database, study_name), os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        # Only one that a driver's lock excludes can tell; it is given back at once.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _file_holder(descriptor)
    finally:
        os.close(descriptor)
    return None


def _file_holder(descriptor: int) -> str:
    return f"process {os.pread(descriptor, 32, 0).decode().strip() or 'unknown'}"


class _Session(NamedTuple):
    """A session of the server: its process, and when that began, since numbers come again."""

    pid: int
    since: str


_SESSION_COLUMNS = """
    activity.pid,
    coalesce(
        to_char(activity.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), ''
    ) AS since
"""
# The server is told to notice within a minute that the line to the driver is cut, which by
# default takes it hours: until then the lock would stay with a driver that is gone.
_BEGIN_SESSION = text(
    f"""
    SELECT set_config('application_name', :name, false),
           set_config('tcp_keepalives_idle', '30', false),
           set_config('tcp_keepalives_interval', '10', false),
           set_config('tcp_keepalives_count', '3', false),
           set_config('tcp_user_timeout', '60000', false),
           {_SESSION_COLUMNS}
    FROM pg_stat_activity activity WHERE activity.pid = pg_backend_pid()
    """
)
_TAKE = text("SELECT pg_try_advisory_lock(:key)")
# A key of 64 bits stands in two columns of 32. Of another user's session, address and time are
# null for those who may not see them.
_SELECT_HOLDER = text(
    f"""
    SELECT {_SESSION_COLUMNS}, activity.usename, host(activity.client_addr) AS address
    FROM pg_locks locks JOIN pg_stat_activity activity USING (pid)
    WHERE locks.locktype = 'advisory' AND locks.granted AND locks.objsubid = 1
      AND locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND locks.classid::bigint = :high AND locks.objid::bigint = :low
    """
)


def holder_on_server(connection: Connection, study_name: str) -> str | None:
    """Describe who drives a study of a server's database, for messages, or None if nobody does."""
    holder = _find_holder(connection, _key(study_name))
    return None if holder is None else _described(holder)


def _key(study_name: str) -> bytes:
    """The study's number among the advisory locks of its database."""
    return _study_hash(study_name)[:8]


def _find_holder(connection: Connection, key: bytes) -> Row[Any] | None:
    halves = {"high": int.from_bytes(key[:4], "big"), "low": int.from_bytes(key[4:], "big")}
    return connection.execute(_SELECT_HOLDER, halves).first()


def _described(holder: Row[Any]) -> str:
    if not holder.since:
        return f"pid {holder.pid} of user {holder.usename}"
    address = holder.address or "the server's own machine"
    return f"pid {holder.pid} at {address} since {holder.since.partition('.')[0]} UTC"


class ServerLock:
    """The study of a PostgreSQL database, held for this process by a session advisory lock.

    Every write goes through the session that holds the lock, so a driver whose session has ended
    (a restart of the server, a cut line) notices at its next write, and takes the lock again
    before it. Another driver may have begun and ended meanwhile, or begin on a server that knows
    nothing of this lock (after a failover): therefore each write checks the driver's epoch as
    well, see `Fence`.

    A connection pooler must hand out whole sessions, not transactions.

    Args:
        engine: of the database.
        study_name: the study.
    """

    def __init__(self, engine: Engine, study_name: str) -> None:
        self._engine = engine
        self._study_name = study_name
        self._key = _key(study_name)
        self._connection: Connection | None = None
        self._sessions: set[_Session] = set()  # this driver's, of which one may hold the lock
        self._has_begun = False

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            InputError: another process drives the study.
        """
        retry_on_lost_connection(self._take)
        self._has_begun = True
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Let the lock go, at once where the session is alive."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        # Not by the session's end alone, which the server may take its time to notice; a session
        # that has ended already holds nothing.
        with suppress(DBAPIError), connection:
            if not connection.invalidated:
                connection.execute(text("SELECT pg_advisory_unlock_all()"))
                connection.commit()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction on the session that holds the lock, which is taken again if need be.

        Raises:
            ConnectionLostError: for now.
            StorageError: the database failed, or another process has begun to drive the study
                while this one was cut off.
        """
        if self._connection is None or self._connection.invalidated:
            self._take()
        assert self._connection is not None
        with storage_errors(shown_url(self._engine.url)), self._connection.begin():
            yield self._connection

    def _take(self) -> None:
        """Take the lock, on a session of its own.

        Raises:
            InputError: another process drives the study, before this one has begun.
            StorageError: another process has begun to drive it while this one was cut off.
            ConnectionLostError: for now; this driver's own former session may still hold it.
        """
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        with storage_errors(shown_url(self._engine.url)):
            connection = self._engine.connect()
            # Out of the pool: a session that is named after a study and may hold its lock must
            # not serve anybody else.
            connection.detach()
            try:
                self._take_on(connection)
                connection.commit()
            except BaseException:
                connection.close()
                raise
        self._connection = connection

    def _take_on(self, connection: Connection) -> None:
        name = f"sharedattn {self._study_name}"
        session = connection.execute(_BEGIN_SESSION, {"name": name}).one()
        # Before it takes the lock, which it may have and this side not know.
        self._sessions.add(_Session(session.pid, session.since))
        key = {"key": int.from_bytes(self._key, "big", signed=True)}
        while not connection.execute(_TAKE, key).scalar():
            holder = _find_holder(connection, self._key)
            if holder is None:
                continue  # It has just let go.
            if (holder.pid, holder.since) in self._sessions:
                # The server has not yet noticed that this driver is not there any more.
                connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": holder.pid})
                raise ConnectionLostError(
                    f"the server has not yet ended this driver's former session {holder.pid}"
                )
            message = _second_driver(self._study_name, _described(holder))
            raise StorageError(message) if self._has_begun else InputError(message)


def _second_driver(study_name: str, holder: str) -> str:
    return (
        f"the study {study_name!r} is being searched by {holder}; "
        f"wait for it, or search under another --study name"
    )
