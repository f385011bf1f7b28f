"""Fence the transactions that write to a study to its one driver.

A transaction begins by updating the study's row, with three effects. It matches the driver's
epoch, so that a driver that lost its lock unnoticed (a restarted server, a network disk) is
stopped once another has begun. It locks the row, so that no other driver can begin before the
commit. And it numbers the transaction: if the connection is lost during the commit, the retry
finds by this number whether the commit succeeded.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from sqlalchemy import Connection, bindparam, select, update

from sharedattn.results.database.errors import StorageError
from sharedattn.results.database.models import Base
from sharedattn.results.database.retry import retry_on_lost_connection

_T = TypeVar("_T")

_STUDIES = Base.metadata.tables["studies"]
# Built once, as are the statements of `rows`.
_BEGIN_TO_DRIVE = (
    update(_STUDIES)
    .where(_STUDIES.c.id == bindparam("b_study_id"))
    .values(driver_epoch=_STUDIES.c.driver_epoch + 1, driver_write=0)
    .returning(_STUDIES.c.driver_epoch)
)
_BEGIN_TO_WRITE = update(_STUDIES).where(
    _STUDIES.c.id == bindparam("b_study_id"),
    _STUDIES.c.driver_epoch == bindparam("b_driver_epoch"),
    _STUDIES.c.driver_write < bindparam("b_driver_write"),
)
_SELECT_EPOCH = select(_STUDIES.c.driver_epoch).where(_STUDIES.c.id == bindparam("b_study_id"))


def _nothing(_: Connection) -> None:
    """No-op, for transactions without further statements or a result."""


class Fence:
    """Runs one driver's transactions on a study, until another driver begins.

    Args:
        transaction: begins a writing transaction of the store.
        study_id: id of the study's row.
    """

    def __init__(
        self, transaction: Callable[[], AbstractContextManager[Connection]], study_id: int
    ) -> None:
        self._transaction = transaction
        self._bound = {"b_study_id": study_id}
        self._num_writes = 0
        self._epoch = retry_on_lost_connection(self._begin_to_drive)

    def write(self, write: Callable[[Connection], None] = _nothing, **study_columns: Any) -> None:
        """Run a transaction without a result; see `commit`."""
        self.commit(write, _nothing, **study_columns)

    def commit(
        self,
        write: Callable[[Connection], _T],
        find: Callable[[Connection], _T],
        **study_columns: Any,
    ) -> _T:
        """Run a transaction, retrying if its connection is lost.

        Args:
            write: the statements; its result is returned.
            find: finds that result in the database, if the transaction was committed but the
                connection was lost before the driver learnt so.
            **study_columns: columns of the study to change.

        Raises:
            StorageError: another driver has begun, or the database failed.
        """
        self._num_writes += 1
        bound = {
            **self._bound,
            "b_driver_epoch": self._epoch,
            "b_driver_write": self._num_writes,
            "driver_write": self._num_writes,
            **study_columns,
        }

        def run() -> _T:
            with self._transaction() as connection:
                if connection.execute(_BEGIN_TO_WRITE, bound).rowcount:
                    return write(connection)
                if connection.execute(_SELECT_EPOCH, self._bound).scalar_one() != self._epoch:
                    raise StorageError(
                        "another process has begun to drive this study; this one stops, and what "
                        "it committed is kept"
                    )
                return find(connection)

        return retry_on_lost_connection(run)

    def _begin_to_drive(self) -> int:
        with self._transaction() as connection:
            return int(connection.execute(_BEGIN_TO_DRIVE, self._bound).scalar_one())
