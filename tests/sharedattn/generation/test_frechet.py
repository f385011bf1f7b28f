"""Fréchet distances in closed form, and the classifier whose features they are of."""

import numpy as np
import pytest
import torch

from sharedattn.data.whole_digits import whole_digits
from sharedattn.errors import InputError
from sharedattn.generation.frechet import (
    NUM_DRAWN,
    NUM_FEATURES,
    _classifier,
    digit_classes,
    digit_distances,
    digit_features,
    frechet_distance,
)


def with_moments(mean, covariance, count=101):
    """Features whose sample mean and covariance are exactly these."""
    rng = np.random.default_rng(count)
    free = rng.standard_normal((count, len(mean)))
    free -= free.mean(axis=0)
    free = free @ np.linalg.inv(np.linalg.cholesky(np.cov(free, rowvar=False))).T
    return free @ np.linalg.cholesky(np.array(covariance)).T + mean


def test_the_distance_of_normal_distributions_on_axes():
    # |m|^2 = 3^2 + 4^2; of variances, (sqrt 4 - sqrt 1)^2 + (sqrt 9 - sqrt 25)^2.
    one = with_moments([0.0, 0.0], np.diag([4.0, 9.0]))
    other = with_moments([3.0, -4.0], np.diag([1.0, 25.0]), 53)
    assert frechet_distance(one, other) == pytest.approx(25.0 + 1.0 + 4.0)
    assert frechet_distance(other, one) == pytest.approx(30.0)


def test_covariances_that_do_not_commute():
    # Of 2 x 2 matrices, tr root(M) = sqrt(tr M + 2 sqrt(det M)), here of M = C_1 C_2.
    first, second = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[5.0, -2.0], [-2.0, 1.0]])
    product = first @ second
    shared = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    found = frechet_distance(with_moments([0, 0], first), with_moments([0, 0], second, 67))
    assert found == pytest.approx(np.trace(first) + np.trace(second) - 2 * shared)


def test_equal_features_and_features_on_a_line():
    flat = np.outer(np.arange(11.0), [1.0, 2.0])  # a covariance without an inverse
    assert frechet_distance(flat, flat) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(flat, flat + [0.0, 3.0]) == pytest.approx(9.0)
    one, other = np.arange(7.0)[:, None], 3.0 * np.arange(7.0)[:, None]
    # One feature: means 3 and 9, standard deviations s and 3 s with s^2 = 14 / 3.
    assert frechet_distance(one, other) == pytest.approx(36.0 + 4 * 14 / 3)


def test_the_classifier_is_one_and_knows_digits():
    images, labels = whole_digits()["test"]
    assert (digit_classes(images) == labels).float().mean().item() > 0.93
    features = digit_features(whole_digits()["train"][0])
    assert features.shape == (1078, NUM_FEATURES)
    assert features.var(axis=0, ddof=1).mean() == pytest.approx(1.0, rel=1e-4)
    before, state = digit_features(images[:7]), torch.get_rng_state()
    _classifier.cache_clear()
    np.testing.assert_array_equal(before, digit_features(images[:7]))
    assert torch.get_rng_state().equal(state)


def test_distances_tell_real_digits_from_others():
    splits = whole_digits()
    held_out = torch.cat([splits["validation"][0], splits["test"][0]])
    found = digit_distances(held_out)
    assert found.num_images == NUM_DRAWN == len(splits["train"][0]) // 2
    # Digits that nothing was trained on are about as far as halves are from each other.
    assert 0.7 * found.halves < found.drawn < 1.6 * found.halves
    pale = digit_distances(0.8 * held_out)
    assert pale.halves == found.halves and pale.drawn > 5 * found.drawn
    torch.manual_seed(0)
    noise = digit_distances(torch.randn(100, 1, 16, 16).clamp(-1, 1))
    # Of fewer images, distances are larger, between halves as well.
    assert noise.num_images == 100 and noise.halves > found.halves and noise.drawn > 10.0
    assert f"{noise.halves:.3g} between halves of the real ones, of 100 images" in str(noise)


@pytest.mark.parametrize("shape", [(32, 1, 16, 16), (40, 1, 8, 8), (40, 3, 16, 16)])
def test_images_that_have_no_distance_are_refused(shape):
    with pytest.raises(InputError, match="give more than 32 images of 1 x 16 x 16"):
        digit_distances(torch.zeros(shape))
