"""Errors that callers distinguish; light to import."""


class ClusterLostError(RuntimeError):
    """The cluster failed during a search.

    Every finished trial is stored; running the same command again continues from there.
    """


class SharedWorkError(RuntimeError):
    """Work that all trials depend on failed, such as the supernet's training."""
