"""Retry database operations on lost connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, IntegrityError

from sharedattn.results.database.errors import ConnectionLostError, StorageError

_T = TypeVar("_T")

PATIENCE_S = 120.0
LONGEST_PAUSE_S = 5.0
_FIRST_PAUSE_S = 0.05
# SQLSTATEs that pass with time: connections (08), serialisation failures and deadlocks (40), too
# many connections, and a server that is shutting down, has crashed or is starting.
_PASSING = {"40001", "40P01", "53300", "57P01", "57P02", "57P03"}


def is_passing(error: DBAPIError) -> bool:
    """Whether the same operation may succeed later, on another connection.

    True for errors of a restarting PostgreSQL, and for connections cut or refused, which have
    no SQLSTATE. SQLite never loses a connection.
    """
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", "of SQLite")
    return state is None or state[:2] == "08" or state in _PASSING


def is_restarting(error: DBAPIError) -> bool:
    """Whether a server answers but is starting up or shutting down.

    Only the message to a new connection says so; its English wording is matched here.
    """
    return error.connection_invalidated or "the database system is " in str(error.orig)


def reason(error: DBAPIError) -> str:
    """The database's own message on one line."""
    return " ".join(str(error.orig).split())


@contextmanager
def storage_errors(shown_url: str) -> Iterator[None]:
    """Convert the database's errors in the block to storage errors.

    Args:
        shown_url: the database, without its password.

    Raises:
        ConnectionLostError: the connection was lost; a retry may succeed.
        StorageError: the database failed; a retry would fail again.
        IntegrityError: the row exists already; raised unchanged.
    """
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as error:
        if is_passing(error):
            raise ConnectionLostError(
                f"the database {shown_url} cannot be reached: {reason(error)}. What was "
                f"committed before is kept; mend the cause and run the same command again"
            ) from error
        raise StorageError(
            f"the database {shown_url} failed: {reason(error)}. What was committed before is "
            f"kept; mend the cause (space on the disk, permissions, another program's lock) "
            f"and run the same command again"
        ) from error


def retry_on_lost_connection(operation: Callable[[], _T]) -> _T:
    """Run an operation, retrying for `PATIENCE_S` while the connection is lost.

    Args:
        operation: callable that is safe to repeat after a `ConnectionLostError`.

    Raises:
        ConnectionLostError: the connection was still lost in the end.
    """
    deadline, pause_s = None, 0.0
    while True:
        try:
            return operation()
        except ConnectionLostError:
            now = time.monotonic()
            if deadline is None:
                deadline = now + PATIENCE_S
            if now + pause_s > deadline:
                raise
        # The first retry does not wait: a pooled connection may have died while idle.
        time.sleep(pause_s)
        pause_s = min(max(_FIRST_PAUSE_S, 2 * pause_s), LONGEST_PAUSE_S)
