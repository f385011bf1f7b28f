"""Outlasting a server that is away for a while: a restart, a cut line."""

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
# A server's answers that time mends: connections (08), serialisation and deadlocks (40), too many
# connections, and a server that is being shut down, has crashed or is starting.
_PASSING = {"40001", "40P01", "53300", "57P01", "57P02", "57P03"}


def is_passing(error: DBAPIError) -> bool:
    """Whether the same operation may succeed later, on another connection.

    True of what PostgreSQL says while it restarts, and of a connection that was cut or refused,
    which comes without a state of the server's. SQLite is never away.
    """
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", "of SQLite")
    return state is None or state[:2] == "08" or state in _PASSING


def is_restarting(error: DBAPIError) -> bool:
    """Whether a server is there, but not yet or no longer at work.

    To those who would connect it says so in words alone, which are its administrator's language
    and are known here in English.
    """
    return error.connection_invalidated or "the database system is " in str(error.orig)


def reason(error: DBAPIError) -> str:
    """What the database says, in one line."""
    return " ".join(str(error.orig).split())


@contextmanager
def storage_errors(shown_url: str) -> Iterator[None]:
    """Turn what the database says inside the block into errors of the storage.

    Args:
        shown_url: the database, without its password.

    Raises:
        ConnectionLostError: for now; the block may be run again.
        StorageError: for good.
        IntegrityError: as it is: a row that is there already.
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
    """Run an operation, and again for two minutes while the database is away.

    Args:
        operation: may be run again after a `ConnectionLostError`.

    Raises:
        ConnectionLostError: the last one.
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
        # At once the first time: a pooled connection may have died while it was idle.
        time.sleep(pause_s)
        pause_s = min(max(_FIRST_PAUSE_S, 2 * pause_s), LONGEST_PAUSE_S)
