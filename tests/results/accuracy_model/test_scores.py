"""Scores of accuracies, and accuracies whose scores are normal."""

import numpy as np
import pytest

from sharedattn.results.accuracy_model.scores import scores_of, top1_moments, top1_of


def test_scores_count_shares_of_errors():
    assert scores_of(np.array([0.05, 1.0])) == pytest.approx([0.0, np.log(20.0)])
    # Half the distance to 1.05 is log 2 more, wherever.
    assert np.diff(scores_of(np.array([0.65, 0.85, 0.95]))) == pytest.approx([np.log(2.0)] * 2)
    some = np.array([0.0, 0.31, 0.97, 1.0])
    assert top1_of(scores_of(some)) == pytest.approx(some)


def test_moments_of_accuracies_are_those_of_draws():
    mean = scores_of(np.array([0.7, 0.8, 0.9]))
    covariance = np.array([[0.04, 0.03, -0.01], [0.03, 0.09, 0.0], [-0.01, 0.0, 0.16]])
    expected, spread = top1_moments(mean, covariance)
    # exp(-m) exp(v / 2) = 0.35 exp(0.02), and so on.
    errors = np.array([0.35, 0.25, 0.15]) * np.exp([0.02, 0.045, 0.08])
    assert expected == pytest.approx(1.05 - errors)
    rng = np.random.default_rng(0)
    draws = top1_of(rng.multivariate_normal(mean, covariance, 200_000))
    assert expected == pytest.approx(draws.mean(axis=0), abs=1e-3)
    assert spread == pytest.approx(np.cov(draws.T), abs=1e-4)
