"""The posterior of accuracy over placements, with the uncertainty of the model's own numbers.

Scales of most density would state too narrow intervals: which features count is not known from a
few dozen trainings, and neither is how accuracies saturate. So the posterior is a mixture of
Gaussian processes, each with scales drawn from their own posterior and with one of `MARGINS` for
its scores, drawn by how likely the trainings are with it. The mixture's spread has both parts (law
of total variance).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sharedattn.results.accuracy_model.fitting import fitted_rows, mean_and_spread
from sharedattn.results.accuracy_model.gaussian_process import GaussianProcess, GroupKernel
from sharedattn.results.accuracy_model.scores import MARGIN, scores_of, top1_moments, top1_of

FloatArray = NDArray[np.float64]

NUM_DRAWS = 12
MARGINS = (MARGIN, 0.3, 3.0)
"""From the searcher's scores, by which what a layer is worth shrinks as accuracies near 1, to
nearly the accuracies themselves, by which it stays the same."""


@dataclass(frozen=True, slots=True)
class AccuracyProcess:
    """A Gaussian process of scores, as a process of accuracies.

    Attributes:
        process: of the scores.
        margin: of the scores, see `scores_of`.
    """

    process: GaussianProcess
    margin: float

    def moments(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and variance, each (m,), of the accuracy of features (m, f)."""
        score, sd = self.process.predict(features)
        errors = np.exp(0.5 * sd**2 - score)
        return 1.0 + self.margin - errors, errors**2 * np.expm1(sd**2)

    def joint_moments(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean (m,) and covariance (m, m) of the accuracies of features (m, f)."""
        return top1_moments(*self.process.predict_joint(features), self.margin)


@dataclass(frozen=True, slots=True)
class AccuracyPosterior:
    """What is known of the accuracy of every placement after some trainings.

    Attributes:
        parts: d processes, equally likely.
        top1: (n,), of the trainings.
    """

    parts: tuple[AccuracyProcess, ...]
    top1: FloatArray

    @classmethod
    def of(
        cls,
        groups: Mapping[str, NDArray[np.intp]],
        features: FloatArray,
        top1: FloatArray,
        *,
        num_draws: int = NUM_DRAWS,
        seed: int = 0,
    ) -> AccuracyPosterior:
        """Condition on trainings.

        Args:
            groups: the features' columns by group.
            features: (n, f), scaled; n > 1.
            top1: (n,), accuracies.
            num_draws: number of processes.
            seed: of their draws.
        """
        kernel, rng = GroupKernel(groups), np.random.default_rng(seed)
        fitted = fitted_rows(len(top1))
        draws, likely = [], []
        for margin in MARGINS:
            scores = scores_of(top1[fitted], margin)
            mean, spread = mean_and_spread(scores)
            scaled = (scores - mean) / spread
            scales, evidence = kernel.drawn(features[fitted], scaled, num_draws, rng)
            draws.append(scales)
            # By accuracies: a score's density times its slope, 1 / (1 + margin - top1).
            likely.append(evidence + scores.sum() - len(scores) * np.log(spread))
        shares = np.exp(np.array(likely) - max(likely))
        edges = np.cumsum(shares / shares.sum())
        chosen = np.searchsorted(edges, (np.arange(num_draws) + 0.5) / num_draws)
        parts = []
        for number, which in enumerate(np.minimum(chosen, len(MARGINS) - 1)):
            scores = scores_of(top1, MARGINS[which])
            mean, spread = mean_and_spread(scores)
            process = GaussianProcess.of(
                kernel, draws[which][number], features, scores, mean=mean, spread=spread
            )
            parts.append(AccuracyProcess(process, MARGINS[which]))
        return cls(tuple(parts), top1)

    def predict(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Posterior mean and standard deviation, each (m,), of the accuracy of features (m, f)."""
        means, variances = zip(*(part.moments(features) for part in self.parts), strict=True)
        return mixture(np.array(means), np.array(variances))

    def expect(self, features: FloatArray) -> FloatArray:
        """The posterior mean of accuracy (d, m) by each of d processes, of features (m, f)."""
        return np.array([part.moments(features)[0] for part in self.parts])

    def variance(self, features: FloatArray, weights: FloatArray) -> FloatArray:
        """The posterior variance (d, k) of weighted sums of accuracies by each of d processes.

        With the covariance C of the accuracies of m placements, a sum with weights w has the
        variance w' C w: what is known of one placement is known of its likes too, so a difference
        of similar ones is better known than either.

        Args:
            features: (m, f), of the placements.
            weights: (k, m), of k sums.
        """
        found = []
        for part in self.parts:
            _, covariance = part.joint_moments(features)
            found.append(np.einsum("ki,ki->k", weights @ covariance, weights))
        return np.array(found)

    @property
    def noise(self) -> float:
        """Standard deviation of one training's accuracy by its seed, at the mean accuracy."""
        mean = float(self.top1.mean())
        variances = [
            part.process.spread**2 * part.process.scales.noise * (1.0 + part.margin - mean) ** 2
            for part in self.parts
        ]
        return float(np.sqrt(np.mean(variances)))

    def left_out(self, blocks: Sequence[NDArray[np.intp]]) -> FloatArray:
        """(n,), the accuracy of each training as those of other blocks predict it.

        Args:
            blocks: trainings that are left out together; the scales are those of all trainings.
        """
        expected = [
            top1_of(part.process.left_out(scores_of(self.top1, part.margin), blocks), part.margin)
            for part in self.parts
        ]
        found: FloatArray = np.mean(expected, axis=0)
        return found


def mixture(means: FloatArray, variances: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation, each (k,), of an even mixture, by those of its parts (d, k)."""
    variance = np.maximum(variances, 0.0).mean(axis=0) + means.var(axis=0)
    return means.mean(axis=0), np.sqrt(variance)
