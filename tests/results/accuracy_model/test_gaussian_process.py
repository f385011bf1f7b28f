"""The Gaussian process against direct formulas, scikit-learn, and a function to be found."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import gammaln
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

from sharedattn.results.accuracy_model.gaussian_process import (
    JITTER,
    GaussianProcess,
    GroupKernel,
    Scales,
    _Loss,
)

GROUPS = {"a": np.array([0, 2]), "b": np.array([1, 3, 4])}
SCALES = Scales(np.array([0.3, 0.7]), np.array([1.3, 0.6]), 0.5, 0.11)


@pytest.fixture
def drawn():
    rng = np.random.default_rng(3)
    return rng.normal(size=(17, 5)), rng.normal(size=17), rng.normal(size=(7, 5))


def kernel_by_hand(one, other, scales=SCALES):
    """The kernel's value for two rows, written out."""
    linear, squares = 0.0, 0.0
    for group, v, length in zip(GROUPS.values(), scales.linear, scales.length, strict=True):
        linear += v * sum(one[i] * other[i] for i in group)
        squares += sum((one[i] - other[i]) ** 2 for i in group) / length**2
    r = np.sqrt(5 * squares)
    return linear + scales.smooth * (1 + r + r**2 / 3) * np.exp(-r)


def test_the_kernel_is_what_its_formula_says(drawn):
    features, _, others = drawn
    kernel = GroupKernel(GROUPS)
    found = kernel.between(features, others, SCALES)
    expected = [[kernel_by_hand(one, other) for other in others] for one in features]
    assert found == pytest.approx(np.array(expected))
    assert kernel.at(others, SCALES) == pytest.approx([kernel_by_hand(x, x) for x in others])


def test_the_posterior_is_that_of_the_direct_formula(drawn):
    features, outputs, others = drawn
    kernel = GroupKernel(GROUPS)
    model = GaussianProcess.of(kernel, SCALES, features, outputs, mean=0.2, spread=3.0)
    mean, sd = model.predict(others)
    noisy = kernel.between(features, features, SCALES) + (SCALES.noise + JITTER) * np.eye(17)
    between = kernel.between(others, features, SCALES)
    inverse = np.linalg.inv(noisy)
    assert mean == pytest.approx(0.2 + between @ inverse @ (outputs - 0.2))
    variance = np.diag(kernel.between(others, others, SCALES) - between @ inverse @ between.T)
    assert sd == pytest.approx(3.0 * np.sqrt(variance))
    assert model.predict_mean(others) == pytest.approx(mean)


def test_one_group_is_scikit_learns_process(drawn):
    features, outputs, others = drawn
    kernel = GroupKernel({"all": np.arange(5)})
    scales = Scales(np.array([0.3]), np.array([1.3]), 0.5, 0.11)
    model = GaussianProcess.of(kernel, scales, features, outputs, mean=0.0, spread=1.0)
    theirs = (
        ConstantKernel(0.3, "fixed") * DotProduct(0.0, "fixed")
        + ConstantKernel(0.5, "fixed") * Matern(1.3, "fixed", nu=2.5)
        + WhiteKernel(0.11, "fixed")
    )
    regressor = GaussianProcessRegressor(theirs, optimizer=None, alpha=JITTER)
    expected, with_noise = regressor.fit(features, outputs).predict(others, return_std=True)
    mean, sd = model.predict(others)
    assert mean == pytest.approx(expected)
    assert sd**2 + 0.11 == pytest.approx(with_noise**2)


def test_the_loss_is_the_marginal_likelihood_and_its_slope(drawn):
    features, outputs, _ = drawn
    kernel = GroupKernel(GROUPS)
    loss, at = _Loss(kernel, features, outputs), SCALES.logs
    value, slope = loss.with_gradient(at)
    noisy = kernel.between(features, features, SCALES) + (SCALES.noise + JITTER) * np.eye(17)
    likelihood = multivariate_normal(cov=noisy).logpdf(outputs)
    prior = -0.5 * np.sum(((at - kernel.prior_mean) / kernel.prior_sd) ** 2)
    assert value == pytest.approx(-likelihood - 0.5 * 17 * np.log(2 * np.pi) - prior)
    numeric = approx_fprime(at, lambda logs: loss.with_gradient(logs)[0], 1e-7)
    assert slope == pytest.approx(numeric, rel=1e-4, abs=1e-4)


def test_scales_find_the_group_that_counts():
    rng = np.random.default_rng(5)
    features = rng.normal(size=(61, 5))
    outputs = features[:, 0] - 0.5 * features[:, 2] + 0.1 * rng.normal(size=61)
    outputs = (outputs - outputs.mean()) / outputs.std()
    found = GroupKernel(GROUPS).fitted(features, outputs)
    assert found.linear[0] > 10 * found.linear[1]
    assert 0.003 < found.noise < 0.03
    assert Scales.of(found.logs).logs == pytest.approx(found.logs)


def test_the_joint_posterior_is_that_of_the_direct_formula(drawn):
    features, outputs, others = drawn
    kernel = GroupKernel(GROUPS)
    model = GaussianProcess.of(kernel, SCALES, features, outputs, mean=0.2, spread=3.0)
    mean, covariance = model.predict_joint(others)
    noisy = kernel.between(features, features, SCALES) + (SCALES.noise + JITTER) * np.eye(17)
    between = kernel.between(others, features, SCALES)
    inverse = np.linalg.inv(noisy)
    assert mean == pytest.approx(model.predict(others)[0])
    expected = kernel.between(others, others, SCALES) - between @ inverse @ between.T
    assert covariance == pytest.approx(9.0 * expected)


def test_what_is_expected_of_those_left_out_is_what_the_others_say(drawn):
    features, outputs, _ = drawn
    kernel = GroupKernel(GROUPS)
    found = GaussianProcess.of(kernel, SCALES, features, outputs, mean=0.2, spread=3.0)
    others = ~np.isin(np.arange(17), [4, 11])
    without = GaussianProcess.of(
        kernel, SCALES, features[others], outputs[others], mean=0.2, spread=3.0
    )
    blocks = [np.array([4, 11]), *(np.array([i]) for i in np.flatnonzero(others))]
    expected = without.predict_mean(features[[4, 11]])
    assert found.left_out(outputs, blocks)[[4, 11]] == pytest.approx(expected)


def multivariate_t_constant(df, size):
    """The logarithm of a standard multivariate t's density at 0."""
    return gammaln((df + size) / 2) - gammaln(df / 2) - 0.5 * size * np.log(df * np.pi)


def test_drawn_scales_follow_their_posterior(drawn):
    # With outputs that say little, the noise's posterior is on a grid what its draws are.
    features, outputs, _ = drawn
    kernel = GroupKernel({"all": np.arange(5)})
    loss = _Loss(kernel, features, outputs)
    draws, evidence = kernel.drawn(features, outputs, 400, np.random.default_rng(1))
    noise = np.log([scales.noise for scales in draws])
    axes = [
        mean + sd * np.linspace(-3.5, 3.5, 9)
        for mean, sd in zip(kernel.prior_mean, kernel.prior_sd, strict=True)
    ]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 4)
    density = np.exp([-loss.with_gradient(point)[0] for point in grid])
    total = np.log(density.sum())
    density /= density.sum()
    mean = density @ grid[:, 3]
    sd = np.sqrt(density @ (grid[:, 3] - mean) ** 2)
    assert noise.mean() == pytest.approx(mean, abs=0.3 * sd)
    assert noise.std() == pytest.approx(sd, rel=0.3)
    # A t distribution's constant is left out, and the grid's step is 7 sd / 8 along each axis.
    steps = np.log(7 / 8 * kernel.prior_sd).sum()
    constant = multivariate_t_constant(df=5, size=4)
    assert evidence - constant == pytest.approx(total + steps, abs=0.2)
    again, _ = kernel.drawn(features, outputs, 400, np.random.default_rng(1))
    assert [scales.noise for scales in again] == [scales.noise for scales in draws]
