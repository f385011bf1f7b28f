"""Errors raised by the database and its writers."""


class StorageError(RuntimeError):
    """The storage failed during a run: a full disk, a long-held lock, a damaged page.

    Committed data stays; the same command resumes from there.
    """


class StaleAttemptError(ValueError):
    """A result belongs to an attempt that is not the trial's open one.

    It comes late, from a worker considered lost: the trial was started again, or has ended.
    Nothing was written.
    """


class ConnectionLostError(StorageError):
    """The server cannot be reached for now: it is restarting, or the connection was cut."""
