"""Errors that a caller tells apart; light to import."""


class ClusterLostError(RuntimeError):
    """The cluster went away under a search.

    Every finished trial is in the database; the same command goes on from there.
    """


class SharedWorkError(RuntimeError):
    """What a whole search rests on, such as the supernet's training, cannot be computed."""
