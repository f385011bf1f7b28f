"""Rank correlation of two figures of placements: Kendall's tau-b with its interval.

Intervals are percentiles of scipy's bootstrap over placements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats  # type: ignore[import-untyped]

from sharedattn.errors import InputError

NUM_RESAMPLES = 1000
LEVEL = 0.95

Floats = Sequence[float] | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval.

    Attributes:
        value: the figure on all placements.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of all fields."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def kendall_tau(one: Floats, other: Floats) -> float:
    """Tau-b of two figures; 0 if one is constant, and so ranks nothing.

    Args:
        one: one value per placement.
        other: another figure of the same placements.

    Raises:
        InputError: there are fewer than two placements, the lengths differ, or a value is not
            finite.
    """
    if len(one) != len(other) or len(one) < 2:
        raise InputError(
            f"Kendall's tau compares two figures of the same two or more placements, but got "
            f"{len(one)} and {len(other)} values"
        )
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise InputError("Kendall's tau is of finite values; leave out what has none")
    tau = float(stats.kendalltau(one, other).statistic)
    return 0.0 if np.isnan(tau) else tau


def estimate_tau(
    one: Floats, other: Floats, rng: np.random.Generator, *, num_resamples: int = NUM_RESAMPLES
) -> Estimate:
    """Tau-b with its interval; arguments and errors as for `kendall_tau`.

    Args:
        one: one value per placement.
        other: another figure of the same placements.
        rng: draws the resamples.
        num_resamples: number of resamples.
    """
    return _estimate(kendall_tau, (one, other), rng, num_resamples)


def estimate_mean_tau(
    ones: Sequence[Floats],
    other: Floats,
    rng: np.random.Generator,
    *,
    num_resamples: int = NUM_RESAMPLES,
) -> Estimate:
    """Mean tau-b of several figures, such as one a seed, with another; errors as `kendall_tau`.

    Args:
        ones: figures, each a value a placement; at least one.
        other: another figure of the same placements.
        rng: draws the resamples of the placements.
        num_resamples: how many.
    """

    def mean_tau(*figures: Floats) -> float:
        *ones, other = figures
        return sum(kendall_tau(one, other) for one in ones) / len(ones)

    return _estimate(mean_tau, (*ones, other), rng, num_resamples)


def estimate_tau_difference(
    one: Floats,
    other: Floats,
    truth: Floats,
    rng: np.random.Generator,
    *,
    num_resamples: int = NUM_RESAMPLES,
) -> Estimate:
    """The difference in tau-b with `truth` between `one` and `other`, with its interval.

    Both taus use the same resamples, so that a draw of placements that favours both cancels out.

    Args:
        one: one value per placement.
        other: another figure of the same placements.
        truth: the figure that both should rank as.
        rng: draws the resamples.
        num_resamples: number of resamples.

    Raises:
        InputError: as for `kendall_tau`.
    """

    def difference(one: Floats, other: Floats, truth: Floats) -> float:
        return kendall_tau(one, truth) - kendall_tau(other, truth)

    return _estimate(difference, (one, other, truth), rng, num_resamples)


def _estimate(
    statistic: Callable[..., float],
    figures: tuple[Floats, ...],
    rng: np.random.Generator,
    num_resamples: int,
) -> Estimate:
    value = statistic(*figures)
    found = stats.bootstrap(
        figures,
        statistic,
        paired=True,
        vectorized=False,
        n_resamples=num_resamples,
        confidence_level=LEVEL,
        method="percentile",
        rng=rng,
    )
    low, high = found.confidence_interval
    return Estimate(value, float(low), float(high))
