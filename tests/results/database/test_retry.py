"""What is run again, how long, and what is an error at once."""

import sqlite3

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from sharedattn.results.database import retry as reconnecting
from sharedattn.results.database.errors import ConnectionLostError, StorageError
from sharedattn.results.database.retry import (
    is_passing,
    is_restarting,
    retry_on_lost_connection,
    storage_errors,
)


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        monkeypatch.setattr(reconnecting.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(reconnecting.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_an_operation_is_run_until_the_database_is_back(clock: Clock) -> None:
    answers = iter([ConnectionLostError("1"), ConnectionLostError("2"), None])

    def operation() -> str:
        answer = next(answers)
        if answer is not None:
            raise answer
        return "done"

    assert retry_on_lost_connection(operation) == "done"
    # At once, and then after a moment.
    assert clock.pauses == [0.0, 0.05]


def test_patience_ends_after_two_minutes(clock: Clock) -> None:
    def operation() -> None:
        raise ConnectionLostError(f"at {clock.now:.2f} s")

    with pytest.raises(ConnectionLostError, match="at 11"):
        retry_on_lost_connection(operation)
    assert 115 <= clock.now <= 120
    # The pauses double up to five seconds.
    assert clock.pauses[:9] == [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert set(clock.pauses[8:]) == {5.0}


def test_another_error_is_not_outlasted(clock: Clock) -> None:
    def operation() -> None:
        raise StorageError("the disk is full")

    with pytest.raises(StorageError, match="the disk is full"):
        retry_on_lost_connection(operation)
    assert clock.pauses == []


def wrapped(error: BaseException, *, cut: bool = False) -> DBAPIError:
    return OperationalError("SELECT 1", {}, error, connection_invalidated=cut)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (wrapped(psycopg.errors.AdminShutdown()), True),
        (wrapped(psycopg.errors.CrashShutdown()), True),
        (wrapped(psycopg.errors.CannotConnectNow()), True),
        (wrapped(psycopg.errors.ConnectionFailure()), True),
        (wrapped(psycopg.errors.TooManyConnections()), True),
        (wrapped(psycopg.errors.DeadlockDetected()), True),
        # Refused, or closed without a word: libpq's own, without a state of the server's.
        (wrapped(psycopg.OperationalError("connection refused")), True),
        (wrapped(psycopg.errors.UniqueViolation(), cut=True), True),
        (wrapped(psycopg.errors.DiskFull()), False),
        (wrapped(psycopg.errors.InsufficientPrivilege()), False),
        (wrapped(psycopg.errors.ReadOnlySqlTransaction()), False),
        (wrapped(sqlite3.OperationalError("database is locked")), False),
    ],
)
def test_what_time_mends(error: DBAPIError, expected: bool) -> None:
    assert is_passing(error) is expected
    with pytest.raises(StorageError, match="run the same command again") as caught:
        with storage_errors("postgresql://host/db"):
            raise error
    assert isinstance(caught.value, ConnectionLostError) is expected


def test_a_row_that_is_there_is_no_error_of_the_storage() -> None:
    with pytest.raises(IntegrityError), storage_errors("postgresql://host/db"):
        raise IntegrityError("INSERT", {}, psycopg.errors.UniqueViolation())


def test_a_server_that_starts_or_stops_says_so() -> None:
    starting = psycopg.OperationalError("FATAL:  the database system is starting up")
    assert is_restarting(wrapped(starting))
    assert is_restarting(wrapped(psycopg.errors.AdminShutdown(), cut=True))
    assert not is_restarting(wrapped(psycopg.OperationalError("connection refused")))
