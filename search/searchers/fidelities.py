"""A model of what a training ends with, that also learns from those that were stopped.

With early stopping every trial is measured at the first rung, and only those that went on have
later accuracies. So there is one Gaussian process for each fidelity, and the one below is a
feature of the next: what a trial's end has in common with its first rung is learned from all
trials, and the rest from those that reached it. This is the recursive form of co-kriging (Le
Gratiet and Garnier 2014), which is exact in means if whoever reached a fidelity reached those
below, with the worth of the fidelity below learned like that of any other feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sharedattn.results.accuracy_model.gaussian_process import GaussianProcess, GroupKernel

FloatArray = NDArray[np.float64]

GROUP = "fidelity below"
"""Name of the group of features that the fidelity below makes: one column, the last."""


def kernel_above(groups: Mapping[str, NDArray[np.intp]], num_columns: int) -> GroupKernel:
    """The kernel of a fidelity that has another one below.

    Args:
        groups: the columns of each group of a placement's features, by its name.
        num_columns: number of these columns.
    """
    return GroupKernel({**groups, GROUP: np.array([num_columns])}, strong={GROUP})


@dataclass(frozen=True, slots=True)
class Fidelities:
    """Gaussian processes of the scores at each fidelity, the last one that of the best known.

    Attributes:
        processes: by fidelity; all but the first take the one below as their last feature.
    """

    processes: tuple[GaussianProcess, ...]

    def above(self, features: FloatArray) -> FloatArray:
        """The features (n, f or f + 1) of the next fidelity, by those of placements (n, f)."""
        inputs = features
        for process in self.processes:
            # Scores' own spread, so that results that are all noise make a column that hardly
            # varies.
            inputs = np.column_stack([features, process.predict_scaled(inputs)])
        return inputs

    def predict_mean(self, features: FloatArray) -> FloatArray:
        """The posterior mean (n,) of placements' features (n, f) at the last fidelity."""
        return self.processes[-1].predict_mean(self._below.above(features))

    def predict(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Posterior mean and standard deviation, each (n,), at the last fidelity.

        What is not known of the fidelities below is no part of the deviation.
        """
        return self.processes[-1].predict(self._below.above(features))

    @property
    def _below(self) -> Fidelities:
        return Fidelities(self.processes[:-1])
