"""Errors of executors."""


class ClusterLostError(RuntimeError):
    """The cluster went away under a search.

    Every finished trial is in the database; the same command goes on from there.
    """
