"""The scores by which accuracies are modelled.

A score is Z = -log(1 + MARGIN - Y) of an accuracy Y: what makes a network better takes a share of
its errors rather than a number of them, so shares add up where accuracies saturate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MARGIN = 0.05
"""Of accuracies above 1, so that the score of a perfect one is finite: noise there counts less."""


def scores_of(top1: FloatArray, margin: float = MARGIN) -> FloatArray:
    """The scores that accuracies are modelled by; `top1_of` inverts it.

    Args:
        top1: accuracies.
        margin: in place of `MARGIN`; with a large one, scores are linear in accuracies.
    """
    scores: FloatArray = -np.log(1.0 + margin - top1)
    return scores


def top1_of(scores: FloatArray, margin: float = MARGIN) -> FloatArray:
    """The accuracies of scores."""
    return 1.0 + margin - np.exp(-scores)


def top1_moments(
    mean: FloatArray, covariance: FloatArray, margin: float = MARGIN
) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance of accuracies whose scores are jointly normal.

    The errors X = exp(-Z) are log-normal, so with m the mean and C the covariance of Z

        E[X_i] = exp(C_ii / 2 - m_i),    Cov[X_i, X_j] = E[X_i] E[X_j] (exp(C_ij) - 1),

    and Y = 1 + MARGIN - X has the mean 1 + MARGIN - E[X] and the covariance of X.

    Args:
        mean: (n,), of the scores.
        covariance: (n, n), of the scores.
        margin: as in `scores_of`.

    Returns:
        (n,) and (n, n).
    """
    errors = np.exp(0.5 * np.diag(covariance) - mean)
    return 1.0 + margin - errors, errors[:, None] * errors * np.expm1(covariance)
