"""Run transactions on an open database, retrying when a connection is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Row, Select

from sharedattn.results.database.engine import reading_engines, shown_url
from sharedattn.results.database.retry import retry_on_lost_connection, storage_errors

_T = TypeVar("_T")


class Database:
    """An open database with one engine each for writes, single reads and consistent reads.

    Args:
        engine: the database's engine.

    Attributes:
        engine: the same engine.
        url: its URL without the password, for messages.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writer = engine.execution_options(write=True)
        self._reader, self._consistent = reading_engines(engine)
        self._snapshot: Connection | None = None
        self.url = shown_url(engine.url)

    @contextmanager
    def consistent(self) -> Iterator[None]:
        """Make all reads in the block see the database as of the first of them.

        This never delays the driver. A connection lost in the block ends it, so run the whole
        block with `retry_on_lost_connection`.

        Raises:
            StorageError: the database failed.
        """
        if self._snapshot is not None:
            yield
            return
        with self._transaction(self._consistent) as self._snapshot:
            try:
                yield
            finally:
                self._snapshot = None

    def writing(self) -> AbstractContextManager[Connection]:
        """Begin a writing transaction, committed as a whole or not at all, and not retried.

        Raises:
            StorageError: the database failed.
        """
        return self._transaction(self._writer)

    def write(self, operation: Callable[[Connection], _T]) -> _T:
        """Run a writing transaction."""
        return self._run(self._writer, operation)

    def read(self, operation: Callable[[Connection], _T]) -> _T:
        """Run a reading transaction."""
        return self._run(self._reader, operation)

    def rows(self, *queries: Select[*tuple[Any, ...]]) -> list[Row[*tuple[Any, ...]]]:
        """Rows of several queries, concatenated, all of one state of the database."""

        def read(connection: Connection) -> list[Row[*tuple[Any, ...]]]:
            return [row for query in queries for row in connection.execute(query).all()]

        if self._snapshot is not None:
            return read(self._snapshot)
        return self._run(self._reader if len(queries) == 1 else self._consistent, read)

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        with storage_errors(self.url), engine.begin() as connection:
            yield connection

    def _run(self, engine: Engine, operation: Callable[[Connection], _T]) -> _T:
        def run() -> _T:
            with self._transaction(engine) as connection:
                return operation(connection)

        return retry_on_lost_connection(run)
