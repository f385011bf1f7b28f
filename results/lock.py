"""One driver a study: a lock that the operating system frees when its holder dies."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, text

from sharedattn.errors import InputError


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
            f"`the database's folder can be written` must hold, but {path}: {error.strerror}"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
            raise _second_driver(study_name, f"process {holder}") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def server_lock(engine: Engine, study_name: str) -> Iterator[None]:
    """Hold the study of a PostgreSQL database by a session advisory lock.

    A restart of the server drops such a lock unseen, therefore a driver's writes check its epoch
    as well (`StudyDriver`).

    Raises:
        InputError: another process drives the study.
    """
    key = int.from_bytes(_study_hash(study_name)[:8], "big", signed=True)
    with engine.connect() as connection:
        if not connection.execute(
            text("SELECT pg_try_advisory_lock(:key)"), {"key": key}
        ).scalar():
            raise _second_driver(study_name, "another session of the server")
        # The lock is the session's: no transaction stays open while a search runs.
        connection.commit()
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})
            connection.commit()


def _second_driver(study_name: str, holder: str) -> InputError:
    return InputError(
        f"`a study has one driver` must hold, but {study_name!r} is being searched by {holder}; "
        f"wait for it, or search under another --study name"
    )
