"""The errors that the database and its writers raise."""


class StorageError(RuntimeError):
    """The storage failed during a run: a full disk, a lock held too long, a damaged page.

    What was committed before stays; the same command goes on from there.
    """


class StaleAttemptError(ValueError):
    """A result of an attempt that is no longer the open one of its trial.

    It comes late, from a worker that was taken for lost: the trial has been started again, or
    has ended. Nothing was written.
    """


class ConnectionLostError(StorageError):
    """The server cannot be reached for now: it restarts, or the line to it was cut."""
