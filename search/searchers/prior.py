"""What a search expects of placements before its own trials: an earlier study's accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sharedattn.placement import Placement
from sharedattn.results.accuracy_model.fitting import fitted_rows, mean_and_spread
from sharedattn.results.accuracy_model.gaussian_process import GaussianProcess, GroupKernel
from sharedattn.results.accuracy_model.scores import scores_of
from sharedattn.search.searchers.fidelities import Fidelities
from sharedattn.spaces.features import PlacementFeatures

FloatArray = NDArray[np.float64]

PRIOR_NOTE = "prior"
"""Key of the note on a study that keeps the accuracies it began with, by placement."""
GROUP = "prior"
"""Name of the group of features that an earlier study's results make."""


class PriorFeatures:
    """Features of placements, and one more: the score that an earlier study's results predict.

    Those results are of other trainings, so how much they say of this study's accuracies is
    learned, as of any other group of features, and so is their sign. Before any result they are
    expected to say as much as all other groups together, a choice made on the trainings of
    docs/measurements/searchers.md.

    Args:
        features: of the placements alone.
        results: accuracies by placement, which need not be inside the budget; from
            `LEAST_RESULTS` to `MAX_ROWS`.

    Attributes:
        groups: the columns of each group, by its name.
    """

    def __init__(self, features: PlacementFeatures, results: Mapping[Placement, float]) -> None:
        self._features = features
        num_columns = len(features.keys)
        self.groups: Mapping[str, NDArray[np.intp]] = {
            **features.groups,
            GROUP: np.array([num_columns]),
        }
        inputs = features.of(list(results))
        scores = scores_of(np.array(list(results.values())))
        mean, spread = mean_and_spread(scores)
        kernel, fitted = GroupKernel(features.groups), fitted_rows(len(scores))
        scales = kernel.fitted(inputs[fitted], (scores[fitted] - mean) / spread)
        process = GaussianProcess.of(kernel, scales, inputs, scores, mean=mean, spread=spread)
        self._earlier = Fidelities((process,))

    def of(self, placements: Sequence[Placement]) -> FloatArray:
        """The scaled features (n, f) of n placements, the prior's the last."""
        return self._earlier.above(self._features.of(placements))
