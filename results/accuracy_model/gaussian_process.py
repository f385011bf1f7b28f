"""A Gaussian process over groups of features, for a few hundred noisy observations.

With features x in groups g, its kernel is a linear model plus a smooth rest:

    k(x, x') = sum_g v_g x_g . x'_g + s * m(r),    r^2 = sum_g |x_g - x'_g|^2 / l_g^2

where m is Matern's function with nu = 5/2 (Eq. 4.17 of Rasmussen and Williams 2006),
and observations have Gaussian noise of variance e on top; so the linear part learns what each
feature is worth alone, and the rest how they interact. The 2 G + 2 scales maximise the marginal
likelihood (Rasmussen and Williams 2006, Eqs. 5.8 and 5.9) times a log-normal prior, which matters
while there are fewer observations than scales.

scikit-learn's `GaussianProcessRegressor` has no kernel with a scale per group, and its gradient
builds an (n, n, f) array for f features: 40 times the work at f = 80, G = 2. BoTorch and GPyTorch
would be dependencies as large as torch is for this. scipy's Cholesky and L-BFGS do the same here
in a page, and the tests compare with scikit-learn where both can.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular  # type: ignore[import-untyped]
from scipy.optimize import minimize  # type: ignore[import-untyped]

FloatArray = NDArray[np.float64]

JITTER = 1e-8  # of the outputs' variance, which keeps the kernel's matrix invertible
MAX_STEPS = 60  # of L-BFGS from each start
_LINEAR, _LENGTH, _SMOOTH, _NOISE = 0.3, 1.5, 0.3, 0.1
"""Prior medians of v_g, l_g, s and e, in units of the outputs' variance."""
_PRIOR_SD = 1.2  # of the logarithm of each scale
_NOISE_SD = 1.0
NUM_PROPOSED = 64  # scales from which draws of their posterior are chosen
_PROPOSAL_DF = 5.0
_MOST_SDS = 6.0  # of a scale's prior, beyond which none is drawn
_DIFFERENCE = 1e-3  # of the logarithm of a scale, for second derivatives


@dataclass(frozen=True, slots=True)
class Scales:
    """The kernel's scales, of outputs with mean 0 and variance 1.

    Attributes:
        linear: (G,), variance v of the weights of each group.
        length: (G,), length l of each group.
        smooth: variance s of the smooth part.
        noise: variance e of an observation's noise.
    """

    linear: FloatArray
    length: FloatArray
    smooth: float
    noise: float

    @classmethod
    def of(cls, logs: FloatArray) -> Scales:
        """The inverse of `logs`."""
        values = np.exp(logs)
        num = (len(values) - 2) // 2
        return cls(values[:num], values[num : 2 * num], float(values[-2]), float(values[-1]))

    @property
    def logs(self) -> FloatArray:
        """(2 G + 2,), their logarithms."""
        every = [self.linear, self.length, np.array([self.smooth, self.noise])]
        logs: FloatArray = np.log(np.concatenate(every))
        return logs


class GroupKernel:
    """The kernel without its scales: which features belong to which group.

    Args:
        groups: the columns of each group, by its name.
        strong: names of groups each of which is expected to say as much as all others together.
    """

    def __init__(
        self, groups: Mapping[str, NDArray[np.intp]], *, strong: Collection[str] = ()
    ) -> None:
        self.groups = tuple(groups.values())
        self._group_of = np.empty(sum(map(len, self.groups)), dtype=int)
        for number, columns in enumerate(self.groups):
            self._group_of[columns] = number
        num = len(self.groups)
        linear = [_LINEAR if name in strong else _LINEAR / num for name in groups]
        medians = [*linear, *[_LENGTH] * num, _SMOOTH, _NOISE]
        self.prior_mean = np.log(medians)
        self.prior_sd = np.array([*[_PRIOR_SD] * (2 * num + 1), _NOISE_SD])

    def between(self, one: FloatArray, other: FloatArray, scales: Scales) -> FloatArray:
        """The kernel's values (n, m) between features (n, f) and (m, f), without noise."""
        weighted = one * scales.linear[self._group_of]
        shrunk, also = (x / scales.length[self._group_of] for x in (one, other))
        squares = (shrunk**2).sum(axis=1)[:, None] + (also**2).sum(axis=1) - 2.0 * shrunk @ also.T
        return weighted @ other.T + scales.smooth * _matern(np.maximum(squares, 0.0))

    def at(self, features: FloatArray, scales: Scales) -> FloatArray:
        """The kernel's value (n,) between each row of features (n, f) and itself."""
        return (features**2) @ scales.linear[self._group_of] + scales.smooth

    def fitted(self, features: FloatArray, outputs: FloatArray) -> Scales:
        """The scales of most marginal likelihood times prior, by L-BFGS from fixed starts.

        Args:
            features: (n, f).
            outputs: (n,), of mean 0 and variance 1.
        """
        return self._fitted(_Loss(self, features, outputs))

    def drawn(
        self, features: FloatArray, outputs: FloatArray, num: int, rng: np.random.Generator
    ) -> tuple[list[Scales], float]:
        """Draws of the scales from their posterior, and the likelihood of the outputs over all.

        By importance resampling: the proposal is a multivariate t with 5 degrees of freedom around
        the scales of most posterior density, with the inverse of the loss's Hessian there as its
        shape (Laplace's approximation). `NUM_PROPOSED` proposals are weighted by the density over
        the proposal's, and resampled systematically, so that one may be drawn several times. The
        mean of the weights estimates the marginal likelihood.

        Args:
            features: (n, f).
            outputs: (n,), of mean 0 and variance 1.
            num: number of draws.
            rng: the generator of the draws.

        Returns:
            The draws, and the logarithm of the marginal likelihood but for a constant that depends
            on the kernel's groups and the number of outputs alone.
        """
        loss = _Loss(self, features, outputs)
        best = self._fitted(loss).logs
        shape = cholesky(self._laplace(loss, best), lower=True)
        size = len(best)
        normal = rng.normal(size=(NUM_PROPOSED, size))
        stretch = np.sqrt(_PROPOSAL_DF / rng.chisquare(_PROPOSAL_DF, NUM_PROPOSED))
        steps = normal * stretch[:, None]
        # A t distribution has steps so long that matrices are singular; their weight is nothing.
        logs = np.clip(
            best + steps @ shape.T,
            self.prior_mean - _MOST_SDS * self.prior_sd,
            self.prior_mean + _MOST_SDS * self.prior_sd,
        )
        density = np.array([-loss.with_gradient(each)[0] for each in logs])
        squares = (steps**2).sum(axis=1)
        proposed = -0.5 * (_PROPOSAL_DF + size) * np.log1p(squares / _PROPOSAL_DF)
        excess = density - proposed
        weights = np.exp(excess - excess.max())
        edges = np.cumsum(weights / weights.sum())
        places = np.searchsorted(edges, (np.arange(num) + rng.uniform()) / num)
        evidence = excess.max() + np.log(weights.mean()) + np.log(np.diag(shape)).sum()
        draws = [Scales.of(logs[i]) for i in np.minimum(places, NUM_PROPOSED - 1)]
        return draws, float(evidence)

    def _laplace(self, loss: _Loss, best: FloatArray) -> FloatArray:
        """The inverse Hessian of the loss at its least, positive definite, by differences."""
        steps = _DIFFERENCE * np.eye(len(best))
        slopes = [
            (loss.with_gradient(best + step)[1] - loss.with_gradient(best - step)[1])
            / (2.0 * _DIFFERENCE)
            for step in steps
        ]
        values, vectors = np.linalg.eigh(0.5 * (np.array(slopes) + np.transpose(slopes)))
        # At the bounds of the search the loss need not bend upward: then the prior's bend counts.
        bends = np.maximum(values, 0.5 * self.prior_sd.max() ** -2)
        covariance: FloatArray = (vectors / bends) @ vectors.T
        return covariance

    def _fitted(self, loss: _Loss) -> Scales:
        num = len(self.groups)
        # The prior's medians, and a model whose smooth part is all.
        smooth = self.prior_mean + np.array([*[-2.0] * num, *[0.0] * num, 1.0, 0.0])
        logs = [self.prior_mean, smooth]
        low, high = self.prior_mean - 4 * self.prior_sd, self.prior_mean + 4 * self.prior_sd
        found = [
            minimize(
                loss.with_gradient,
                start,
                jac=True,
                method="L-BFGS-B",
                bounds=list(zip(low, high, strict=True)),
                options={"maxiter": MAX_STEPS},
            )
            for start in logs
        ]
        return Scales.of(min(found, key=lambda result: float(result.fun)).x)


class _Loss:
    """The negative logarithm of marginal likelihood times prior."""

    def __init__(self, kernel: GroupKernel, features: FloatArray, outputs: FloatArray) -> None:
        self._kernel, self._outputs = kernel, outputs
        parts = [features[:, columns] for columns in kernel.groups]
        self._products = np.array([part @ part.T for part in parts])
        diagonals = np.array([np.diag(product) for product in self._products])
        squares = diagonals[:, :, None] + diagonals[:, None, :] - 2.0 * self._products
        self._squares = np.maximum(squares, 0.0)

    def with_gradient(self, logs: FloatArray) -> tuple[float, FloatArray]:
        scales, size = Scales.of(logs), len(self._outputs)
        squares = np.tensordot(scales.length**-2, self._squares, axes=1)
        smooth = scales.smooth * _matern(squares)
        matrix = np.tensordot(scales.linear, self._products, axes=1) + smooth
        matrix[np.diag_indices(size)] += scales.noise + JITTER
        factor = cholesky(matrix, lower=True)
        inverse = cho_solve((factor, True), np.eye(size))
        weights = inverse @ self._outputs
        # d loss / d matrix, by Eq. 5.9
        slope = 0.5 * (inverse - np.outer(weights, weights))
        by_length = scales.smooth * slope * _matern_slope(squares)
        gradient = np.concatenate(
            [
                scales.linear * np.tensordot(self._products, slope, axes=2),
                np.tensordot(self._squares, by_length, axes=2) / scales.length**2,
                [np.vdot(slope, smooth), scales.noise * np.trace(slope)],
            ]
        )
        off = (logs - self._kernel.prior_mean) / self._kernel.prior_sd
        loss = 0.5 * self._outputs @ weights + np.log(np.diag(factor)).sum() + 0.5 * off @ off
        return float(loss), gradient + off / self._kernel.prior_sd


def _matern(squares: FloatArray) -> FloatArray:
    """Matern's function m(r) with nu = 5/2 at squared distances r^2."""
    far = np.sqrt(5.0 * squares)
    found: FloatArray = (1.0 + far + far * far / 3.0) * np.exp(-far)
    return found


def _matern_slope(squares: FloatArray) -> FloatArray:
    """-2 dm/d(r^2) of Matern's function m."""
    far = np.sqrt(5.0 * squares)
    found: FloatArray = (5.0 / 3.0) * (1.0 + far) * np.exp(-far)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianProcess:
    """A Gaussian process conditioned on observations.

    Attributes:
        kernel: its kernel.
        scales: the kernel's scales.
        features: (n, f), of the observations.
        factor: (n, n), lower Cholesky factor of the observations' covariance.
        weights: (n,), that covariance's inverse times the scaled outputs.
        mean: subtracted from outputs.
        spread: by which they are divided then.
    """

    kernel: GroupKernel
    scales: Scales
    features: FloatArray
    factor: FloatArray
    weights: FloatArray
    mean: float
    spread: float

    @classmethod
    def of(
        cls,
        kernel: GroupKernel,
        scales: Scales,
        features: FloatArray,
        outputs: FloatArray,
        *,
        mean: float,
        spread: float,
    ) -> GaussianProcess:
        """Condition on outputs (n,) at features (n, f)."""
        matrix = kernel.between(features, features, scales)
        matrix[np.diag_indices(len(matrix))] += scales.noise + JITTER
        factor: FloatArray = cholesky(matrix, lower=True)
        weights = cho_solve((factor, True), (outputs - mean) / spread)
        return cls(
            kernel=kernel,
            scales=scales,
            features=features,
            factor=factor,
            weights=weights,
            mean=mean,
            spread=spread,
        )

    def predict_mean(self, features: FloatArray) -> FloatArray:
        """The posterior mean (m,) of what features (m, f) give without noise."""
        return self.mean + self.spread * self.predict_scaled(features)

    def predict_scaled(self, features: FloatArray) -> FloatArray:
        """The posterior mean (m,), less the outputs' mean and in units of their spread."""
        between = self.kernel.between(features, self.features, self.scales)
        scaled: FloatArray = between @ self.weights
        return scaled

    def predict_joint(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Posterior mean (m,) and covariance (m, m) of what features (m, f) give without noise."""
        between = self.kernel.between(self.features, features, self.scales)
        means = self.mean + self.spread * (self.weights @ between)
        known = solve_triangular(self.factor, between, lower=True, overwrite_b=True)
        prior = self.kernel.between(features, features, self.scales)
        return means, self.spread**2 * (prior - known.T @ known)

    def left_out(self, outputs: FloatArray, blocks: Sequence[NDArray[np.intp]]) -> FloatArray:
        """What each observation is expected to be by those of the other blocks alone.

        With the inverse P of the observations' covariance and the scaled outputs y, a block I is
        expected at y_I - (P_II)^-1 (P y)_I: Eq. 5.12 of Rasmussen and Williams 2006, for blocks.

        Args:
            outputs: (n,), the observations that the process was conditioned on.
            blocks: rows that are left out together, each row in one block.

        Returns:
            (n,).
        """
        precision = cho_solve((self.factor, True), np.eye(len(self.weights)))
        expected = outputs.copy()
        for rows in blocks:
            off = np.linalg.solve(precision[np.ix_(rows, rows)], self.weights[rows])
            expected[rows] -= self.spread * off
        return expected

    def predict(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Posterior mean and standard deviation, each (m,), of what features (m, f) give.

        The noise of an observation is not part of the deviation.
        """
        between = self.kernel.between(self.features, features, self.scales)
        means = self.mean + self.spread * (self.weights @ between)
        known = solve_triangular(self.factor, between, lower=True, overwrite_b=True)
        variances = self.kernel.at(features, self.scales) - np.einsum("ij,ij->j", known, known)
        return means, self.spread * np.sqrt(np.maximum(variances, 1e-12))
