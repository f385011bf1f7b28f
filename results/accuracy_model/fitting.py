"""Which results the model of accuracy learns from, and what its scales are fitted to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sharedattn.results.front.pareto import non_dominated

FloatArray = NDArray[np.float64]

LEAST_RESULTS = 4  # that a model needs
MAX_ROWS = 400
"""Most observations of a model: its time grows with their cube, its memory with their square."""
NUM_RECENT = 100  # of them, the last results; and the front's
MAX_FITTED = 150  # most observations that scales are fitted to
LEAST_SPREAD = 1e-3  # of outputs, by which they are divided


def kept_rows(values: FloatArray) -> list[int]:
    """The results that a model learns from, at most `MAX_ROWS`, as rows of `values`.

    Of more, those on the front and the last ones are kept, and an even share of the others.

    Args:
        values: (n, m), in the order of the results: a score, and costs.
    """
    if len(values) <= MAX_ROWS:
        return list(range(len(values)))
    losses = np.column_stack([-values[:, 0], values[:, 1:]])
    front = np.flatnonzero(non_dominated(losses))[-NUM_RECENT:].tolist()
    kept = {*front, *range(len(values) - NUM_RECENT, len(values))}
    others = [i for i in range(len(values)) if i not in kept]
    even = np.linspace(0, len(others) - 1, MAX_ROWS - len(kept)).astype(int)
    return sorted(kept | {others[i] for i in even})


def fitted_rows(num_results: int) -> NDArray[np.intp]:
    """The results that scales are fitted to, evenly thinned if they are many."""
    return evenly(num_results, MAX_FITTED)


def evenly(num_results: int, most: int = MAX_ROWS) -> NDArray[np.intp]:
    """All of some results, or of more than `most` as many, evenly spread over their order."""
    return np.unique(np.linspace(0, num_results - 1, min(num_results, most)).astype(int))


def mean_and_spread(outputs: FloatArray) -> tuple[float, float]:
    """What is subtracted from outputs (n,), and by which they are divided then."""
    return float(outputs.mean()), max(float(outputs.std()), LEAST_SPREAD)
