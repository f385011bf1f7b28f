"""Locks that give each study one driver, released when their holder dies."""

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

_LOOK_S = 0.2  # far longer than finding out who holds a lock takes


def _study_hash(study_name: str) -> bytes:
    return hashlib.sha256(study_name.encode()).digest()


def lock_file(database: Path, study_name: str) -> Path:
    """The lock file of a study, beside its SQLite database."""
    return database.with_name(f"{database.name}.{_study_hash(study_name).hex()[:12]}.lock")


@contextmanager
def file_lock(database: Path, study_name: str) -> Iterator[None]:
    """Lock a study of an SQLite database for this process.

    The lock belongs to the open file, so it ends with the process, however that ends. The file
    is never deleted, since two processes could then lock two files of one name. A forked child
    shares the lock until it is given back, so workers are spawned.

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
            # The holder may be a process that only checks the lock, see `holder_of_file`.
            time.sleep(_LOOK_S)
            if not _taken(descriptor):
                raise InputError(_second_driver(study_name, _file_holder(descriptor)))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        # Closing alone would leave the lock to processes forked meanwhile, such as data loaders.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder_of_file(database: Path, study_name: str) -> str | None:
    """Describe the driver of a study of an SQLite database for messages, or None without one."""
    try:
        descriptor = os.open(lock_file(database, study_name), os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        # A shared lock, which only a driver's lock excludes; it is released at once.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _file_holder(descriptor)
    finally:
        os.close(descriptor)
    return None


def _file_holder(descriptor: int) -> str:
    return f"process {os.pread(descriptor, 32, 0).decode().strip() or 'unknown'}"


class _Session(NamedTuple):
    """A server session: its process and its start time, since process numbers recur."""

    pid: int
    since: str


_SESSION_COLUMNS = """
    activity.pid,
    coalesce(
        to_char(activity.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), ''
    ) AS since
"""
# Make the server notice a broken connection within a minute; by default it takes hours, in which
# the lock would stay with a driver that is gone.
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
# A 64-bit key is split over two 32-bit columns. Address and time of other users' sessions are null
# without the right to see them.
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
    """Describe the driver of a study of a server's database for messages, or None without one."""
    holder = _find_holder(connection, _key(study_name))
    return None if holder is None else _described(holder)


def _key(study_name: str) -> bytes:
    """The study's key among the advisory locks of its database."""
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
    """Locks a study of a PostgreSQL database with a session advisory lock.

    Every write goes through the session that holds the lock. So a driver whose session has ended
    (the server restarted, the connection was cut) notices at its next write, and takes the lock
    again first. Another driver may have run meanwhile, or may run on a server that does not know
    this lock (after a failover), so each write also checks the driver's epoch; see `Fence`.

    A connection pooler must use session pooling, not transaction pooling.

    Args:
        engine: the database's engine.
        study_name: the study.
    """

    def __init__(self, engine: Engine, study_name: str) -> None:
        self._engine = engine
        self._study_name = study_name
        self._key = _key(study_name)
        self._connection: Connection | None = None
        self._sessions: set[_Session] = set()  # this driver's; one may hold the lock
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
        """Release the lock, at once if the session is alive."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        # Unlock explicitly, since the server may notice the session's end late; a session that has
        # ended holds nothing.
        with suppress(DBAPIError), connection:
            if not connection.invalidated:
                connection.execute(text("SELECT pg_advisory_unlock_all()"))
                connection.commit()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction on the session that holds the lock, which is taken again if necessary.

        Raises:
            ConnectionLostError: the connection was lost; a retry may succeed.
            StorageError: the database failed, or another process began to drive the study while
                this one was disconnected.
        """
        if self._connection is None or self._connection.invalidated:
            self._take()
        assert self._connection is not None
        with storage_errors(shown_url(self._engine.url)), self._connection.begin():
            yield self._connection

    def _take(self) -> None:
        """Take the lock in a new session.

        Raises:
            InputError: another process drives the study, and this one has not begun.
            StorageError: another process began to drive it while this one was disconnected.
            ConnectionLostError: a retry may succeed; this driver's previous session may still hold
                the lock.
        """
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        with storage_errors(shown_url(self._engine.url)):
            connection = self._engine.connect()
            # Remove it from the pool: a session named after a study that may hold its lock must
            # not serve anything else.
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
        # Before taking the lock: the session may get it without this side learning so.
        self._sessions.add(_Session(session.pid, session.since))
        key = {"key": int.from_bytes(self._key, "big", signed=True)}
        while not connection.execute(_TAKE, key).scalar():
            holder = _find_holder(connection, self._key)
            if holder is None:
                continue  # It was just released.
            if (holder.pid, holder.since) in self._sessions:
                # The server has not yet noticed that this driver's session is gone.
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
