"""Kendall's tau against hand-counted pairs, and its bootstrap intervals."""

import numpy as np
import pytest
from rank_correlation import (
    Estimate,
    estimate_mean_tau,
    estimate_tau,
    estimate_tau_difference,
    kendall_tau,
)
from scipy import stats

from sharedattn.errors import InputError


@pytest.mark.parametrize(
    ("one", "other", "tau"),
    [
        ([1, 2, 3], [4, 5, 6], 1.0),
        ([1, 2, 3], [6, 5, 4], -1.0),
        # Of 6 pairs, 5 agree and 1 does not.
        ([1, 2, 3, 4], [1, 2, 4, 3], 4 / 6),
        # One pair of 3 is tied in one figure: 2 agree, of the 2 that it orders and the other's 3.
        ([1, 1, 2], [1, 2, 3], 2 / (2 * 3) ** 0.5),
        ([1, 1, 1], [1, 2, 3], 0.0),
    ],
)
def test_pairs_counted_by_hand(one, other, tau):
    assert kendall_tau(one, other) == pytest.approx(tau)
    assert kendall_tau(other, one) == pytest.approx(tau)


def test_the_figure_itself_is_scipys_on_ties_as_well():
    rng = np.random.default_rng(0)
    one, other = rng.integers(7, size=101), rng.normal(size=101).round(1)
    found = estimate_tau(one, other, rng, num_resamples=50)
    assert found.value == stats.kendalltau(one, other).statistic
    assert found.low < found.value < found.high


def test_intervals_hold_the_true_tau_as_often_as_they_say():
    # Two normal figures with correlation r have tau = 2 / pi * asin(r).
    rng, r = np.random.default_rng(1), 0.6
    truth, held = 2 / np.pi * np.arcsin(r), 0
    for _ in range(100):
        one, noise = rng.normal(size=(2, 60))
        found = estimate_tau(one, r * one + (1 - r**2) ** 0.5 * noise, rng, num_resamples=200)
        held += found.low <= truth <= found.high
    assert 0.88 <= held / 100 <= 0.99


def test_a_difference_is_of_the_same_resamples():
    rng = np.random.default_rng(5)
    truth = rng.normal(size=61)
    good, bad = truth + 0.3 * rng.normal(size=61), rng.normal(size=61)
    same = estimate_tau_difference(good, good, truth, rng)
    assert same == Estimate(0.0, 0.0, 0.0)
    apart = estimate_tau_difference(good, bad, truth, rng)
    assert apart.value == pytest.approx(kendall_tau(good, truth) - kendall_tau(bad, truth))
    assert 0 < apart.low < apart.value < apart.high
    back = estimate_tau_difference(bad, good, truth, rng)
    assert back.value == -apart.value and back.high < 0


def test_equal_seeds_give_equal_intervals():
    one, other = np.arange(17.0) % 5, np.arange(17.0) % 7
    first, again = (estimate_tau(one, other, np.random.default_rng(11)) for _ in range(2))
    assert first == again
    assert str(Estimate(0.5, 0.25, 0.75)) == "0.50 (0.25 to 0.75)"
    assert first.to_json() == {"value": first.value, "low": first.low, "high": first.high}


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ([1.0], [2.0], "two or more"),
        ([1.0, 2.0, 3.0], [1.0, 2.0], "got 3 and 2 values|got 2 and 3 values"),
        ([1.0, float("nan")], [1.0, 2.0], "finite"),
    ],
)
def test_what_cannot_be_ranked(one, other, message):
    with pytest.raises(InputError, match=message):
        kendall_tau(one, other)


def test_a_mean_tau_is_of_the_same_resamples():
    rng = np.random.default_rng(7)
    truth = rng.normal(size=41)
    figures = [truth + rng.normal(size=41) for _ in range(3)]
    found = estimate_mean_tau(figures, truth, rng, num_resamples=100)
    assert found.value == pytest.approx(np.mean([kendall_tau(one, truth) for one in figures]))
    assert found.low < found.value < found.high
    same = estimate_mean_tau([truth], truth, rng, num_resamples=20)
    assert same.value == 1.0 and same.low == pytest.approx(1.0)
