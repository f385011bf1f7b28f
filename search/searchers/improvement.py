"""Expected improvement of a front's hypervolume by placements of known cost.

Costs are exact before anything is trained; accuracy is not. So the hypervolume that a placement
would add is an integral over the costs alone. With the front's best accuracy f*(u) among members
of cost at most u, a placement of cost c and accuracy Y adds

    integral over u >= c of max(Y - f*(u), 0) du,

whose expectation has Mockus' expected improvement E[max(Y - f*, 0)] in place of the maximum. f* is
constant between the front's costs: with one cost the integral is a sum, and exact. With more it is
a mean over fixed quasi-random points u.

Accuracies are modelled by their scores Z = -log(1 + MARGIN - Y), see
`sharedattn.results.accuracy_model.scores`. With Z ~ N(m, s^2), the error X = exp(-Z) is
log-normal, and with k = 1 + MARGIN - f*

    E[max(k - X, 0)] = k Phi(d) - exp(s^2 / 2 - m) Phi(d - s),    d = (log k + m) / s,

which is Black and Scholes' price of a put.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr  # type: ignore[import-untyped]
from scipy.stats import qmc  # type: ignore[import-untyped]

from sharedattn.results.accuracy_model.scores import MARGIN

FloatArray = NDArray[np.float64]

NUM_POINTS = 1024
"""Points of the integral over two or more costs; a power of two, as Sobol points are balanced."""


def expected_improvement(mean: FloatArray, sd: FloatArray, level: FloatArray) -> FloatArray:
    """How far an accuracy is expected to exceed a level; the arguments broadcast.

    Args:
        mean: of its score.
        sd: standard deviation of its score; > 0.
        level: an accuracy.
    """
    left = 1.0 + MARGIN - level
    distance = (np.log(left) + mean) / sd
    error = np.exp(0.5 * sd**2 - mean)
    gain: FloatArray = left * ndtr(distance) - error * ndtr(distance - sd)
    return np.maximum(gain, 0.0)


@dataclass(frozen=True, slots=True)
class KnownFront:
    """A front, of accuracies from the reference to the ideal and of costs in a unit box.

    Attributes:
        accuracies: (k,).
        costs: (k, d), 0 at the ideal and 1 at the reference point.
        least_accuracy: the reference accuracy, below which nothing counts.
    """

    accuracies: FloatArray
    costs: FloatArray
    least_accuracy: float

    def improvements(self, mean: FloatArray, sd: FloatArray, costs: FloatArray) -> FloatArray:
        """The expected improvement (n,) of the hypervolume by each of n placements alone.

        Args:
            mean: (n,), expected scores.
            sd: (n,), standard deviations of scores; > 0.
            costs: (n, d), in the unit box.
        """
        levels, widths = self._shares(costs)
        row, level = np.nonzero(widths)
        gains = expected_improvement(mean[row], sd[row], levels[level])
        total: FloatArray = np.zeros(len(costs))
        np.add.at(total, row, gains * widths[row, level])
        return total

    def _shares(self, costs: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The levels (k,) of f*, and the volume (n, k) of each one that n costs can raise."""
        order = np.lexsort((-self.accuracies, *self.costs.T[::-1]))
        accuracies = np.maximum(self.accuracies[order], self.least_accuracy)
        if costs.shape[1] == 1:
            levels = np.concatenate([[self.least_accuracy], np.maximum.accumulate(accuracies)])
            edges = np.concatenate([[0.0], self.costs[order, 0], [1.0]]).clip(0.0, 1.0)
            low, high = edges[:-1], edges[1:]
            return levels, np.maximum(high - np.maximum(low, costs), 0.0)
        points = _points(costs.shape[1])
        reached = np.all(self.costs[order][None] <= points[:, None], axis=2)  # (points, k)
        best = np.where(reached, accuracies, self.least_accuracy).max(
            axis=1, initial=self.least_accuracy
        )
        levels, place = np.unique(best, return_inverse=True)
        is_level = np.zeros((len(points), len(levels)))
        is_level[np.arange(len(points)), place] = 1.0 / len(points)
        inside = np.all(costs[:, None, :] <= points[None], axis=2)
        return levels, inside.astype(float) @ is_level


def _points(num_costs: int) -> FloatArray:
    """Fixed points (NUM_POINTS, d) that fill the unit box evenly."""
    points: FloatArray = qmc.Sobol(num_costs, scramble=False).random(NUM_POINTS)
    return points + 0.5 / NUM_POINTS
