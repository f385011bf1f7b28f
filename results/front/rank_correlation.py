"""How well one figure ranks placements as another does: Kendall's tau, with its interval.

Tau-b counts pairs that both figures order alike, less those they order contrarily, over the pairs
that they order at all (Kendall 1945):

    tau = sum_ij s_ij t_ij / sqrt(sum_ij s_ij^2 sum_ij t_ij^2),  s_ij = sign(x_i - x_j), t likewise

Intervals are percentiles over bootstrap resamples of the placements. A placement that stands in a
resample several times is a pair with itself, which is ordered by neither figure and so counts
nothing: no bias towards agreement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sharedattn.errors import InputError

NUM_RESAMPLES = 1000
LEVEL = 0.95

Floats = Sequence[float] | npt.NDArray[np.float64]
_Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval.

    Attributes:
        value: on all placements.
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of every field."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def kendall_tau(one: Floats, other: Floats) -> float:
    """Tau-b of two figures; 0 where one of them is constant and so ranks nothing.

    Args:
        one: a value a placement.
        other: another figure of the same placements.

    Raises:
        InputError: fewer than two placements, different numbers of them, or values that are not
            finite.
    """
    [tau] = _taus(_signs(one, len(other)), _signs(other, len(one)), np.ones((1, len(one))))
    return float(tau)


def estimate_tau(
    one: Floats, other: Floats, rng: np.random.Generator, *, num_resamples: int = NUM_RESAMPLES
) -> Estimate:
    """Tau-b with its interval; arguments and errors as `kendall_tau`.

    Args:
        one: a value a placement.
        other: another figure of the same placements.
        rng: draws the resamples.
        num_resamples: how many.
    """
    counts = _with_all(_resamples(len(one), rng, num_resamples))
    return _estimate(_taus(_signs(one, len(other)), _signs(other, len(one)), counts))


def estimate_tau_difference(
    one: Floats,
    other: Floats,
    truth: Floats,
    rng: np.random.Generator,
    *,
    num_resamples: int = NUM_RESAMPLES,
) -> Estimate:
    """By how much `one` ranks as `truth` does better than `other`, with the interval.

    Both taus are taken of the same resamples: what a draw of placements does to both alike is no
    difference.

    Args:
        one: a value a placement.
        other: another figure of the same placements.
        truth: what both are to rank as.
        rng: draws the resamples.
        num_resamples: how many.

    Raises:
        InputError: as `kendall_tau`.
    """
    counts = _with_all(_resamples(len(truth), rng, num_resamples))
    signs = _signs(truth, len(truth))
    taus = [_taus(_signs(figure, len(truth)), signs, counts) for figure in (one, other)]
    return _estimate(taus[0] - taus[1])


def _signs(values: Floats, num_values: int) -> _Array:
    """s_ij of a figure."""
    figure = np.asarray(values, dtype=np.float64)
    if len(figure) != num_values or num_values < 2:
        raise InputError(
            f"`two figures of the same placements, two or more, are compared` must hold, but got "
            f"{len(figure)} and {num_values} values"
        )
    if not np.isfinite(figure).all():
        raise InputError("`what is ranked is finite` must hold, but some values are not")
    signs: _Array = np.sign(figure[:, None] - figure)
    return signs


def _resamples(num_values: int, rng: np.random.Generator, num_resamples: int) -> _Array:
    """How often each placement stands in each resample, (resamples, placements)."""
    shares = np.full(num_values, 1 / num_values)
    return rng.multinomial(num_values, shares, size=num_resamples).astype(np.float64)


def _with_all(counts: _Array) -> _Array:
    """The resamples behind a row of all placements, once each."""
    return np.vstack([np.ones(counts.shape[1]), counts])


def _taus(one: _Array, other: _Array, counts: _Array) -> _Array:
    """Tau-b of each resample, given the signs of both figures; 0 where one ranks nothing."""

    def over_pairs(pairs: _Array) -> _Array:
        summed: _Array = ((counts @ pairs) * counts).sum(axis=1)
        return summed

    ordered = np.sqrt(over_pairs(one**2) * over_pairs(other**2))
    agreement = over_pairs(one * other)
    return np.divide(agreement, ordered, out=np.zeros_like(ordered), where=ordered > 0)


def _estimate(values: _Array) -> Estimate:
    """The first value, with the percentiles of the others."""
    low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(values[0]), float(low), float(high))
