"""Which results a model learns from."""

import numpy as np
import pytest

from sharedattn.results.accuracy_model.fitting import (
    MAX_FITTED,
    MAX_ROWS,
    NUM_RECENT,
    fitted_rows,
    kept_rows,
    mean_and_spread,
)


def test_many_results_are_thinned_to_the_front_the_last_and_an_even_share():
    values = np.random.default_rng(2).uniform(size=(3 * MAX_ROWS, 2))
    values[17] = 2.0, -1.0
    kept = kept_rows(values)
    assert len(kept) <= MAX_ROWS and len(set(kept)) == len(kept)
    assert 17 in kept
    assert set(range(len(values) - NUM_RECENT, len(values))) <= set(kept)
    assert max(np.diff(kept)) < 3 * 3
    assert kept_rows(values[:MAX_ROWS]) == list(range(MAX_ROWS))


def test_scales_are_fitted_to_an_even_share():
    assert fitted_rows(5).tolist() == [0, 1, 2, 3, 4]
    found = fitted_rows(3 * MAX_FITTED)
    assert len(found) == MAX_FITTED
    assert (found[0], found[-1]) == (0, 3 * MAX_FITTED - 1)
    assert set(np.diff(found)) <= {3, 4}


def test_equal_outputs_are_not_divided_by_nothing():
    assert mean_and_spread(np.array([0.5, 0.5])) == (0.5, 1e-3)
    assert mean_and_spread(np.array([1.0, 3.0])) == pytest.approx((2.0, 1.0))
