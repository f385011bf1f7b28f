"""The error that means: the database could not be written or read on the way."""


class StorageError(RuntimeError):
    """The storage failed during a run: a full disk, a lock held too long, a damaged page.

    What was committed before stays; the same command goes on from there.
    """
