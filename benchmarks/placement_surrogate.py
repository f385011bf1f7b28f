"""Learning curves of placements that were not trained, predicted from those that were.

Models see the same features of a placement: ridge regression on them and on their pairs, a
Gaussian process, trees. Cross-validation over placements chooses one of them, or their mean.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rank_correlation import kendall_tau
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from sharedattn.costs.model import CostModel
from sharedattn.placement import BackboneSpec, Placement

Floats = npt.NDArray[np.float64]

NUM_FOLDS = 10
NUM_TREES = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """How well a model predicts placements that it was not fitted to, at the last epoch.

    Attributes:
        model: its name.
        rmse_points: of the mean over seeds, in points.
        tau: Kendall's, with the mean over seeds.
    """

    model: str
    rmse_points: float
    tau: float

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of all fields."""
        return asdict(self)


def features_of(placements: Sequence[Placement], backbone: BackboneSpec) -> Floats:
    """What models see of placements, (placements, features).

    By position: the kind, slots (log2), whether it is in a DIA group, CB. Of the whole: depth, log
    MACs and params, layers of each kind, groups, runs, position of the first and last V.
    """
    costs = CostModel(backbone)
    letters = sorted({layer.kind for p in placements for layer in p.layers})
    most = max(len(p.layers) for p in placements)
    rows = []
    for placement in placements:
        layers, total = placement.layers, costs.totals(placement)
        row: list[float] = []
        for position in range(most):
            layer = layers[position] if position < len(layers) else None
            row += [float(layer is not None and layer.kind == letter) for letter in letters]
            slots = None if layer is None else layer.option("slots")
            row += [math.log2(slots) if slots else 0.0]
            row += [float(layer is not None and layer.gate is not None)]
            row += [float(layer is not None and layer.cb)]
        kinds = [layer.kind for layer in layers]
        vanilla = [i for i, kind in enumerate(kinds) if kind == "V"]
        row += [len(layers), math.log(total.macs), math.log(total.params)]
        row += [kinds.count(letter) for letter in letters]
        row += [sum(len({layer.gate for layer in s} - {None}) for s in placement.stages)]
        row += [sum(a != b for a, b in itertools.pairwise(kinds))]
        row += [vanilla[0], vanilla[-1]] if vanilla else [most, -1]
        rows.append(row)
    features = np.array(rows, dtype=float)
    return features[:, np.ptp(features, axis=0) > 0]


Predict = Callable[[Floats], Floats]
Fit = Callable[[Floats, Floats], Predict]


def _fit_ridge(features: Floats, curves: Floats) -> Predict:
    model = make_pipeline(
        StandardScaler(),
        PolynomialFeatures(2, interaction_only=True, include_bias=False),
        StandardScaler(),
        RidgeCV(alphas=np.logspace(0, 5, 11)),
    )
    return _fitted(model, features, curves)


def _fit_gaussian_process(features: Floats, curves: Floats) -> Predict:
    kernel = (
        ConstantKernel(1.0) * RBF(5.0) + ConstantKernel(0.1) * DotProduct(1.0) + WhiteKernel(0.1)
    )
    model = make_pipeline(
        StandardScaler(), GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
    )
    return _fitted(model, features, curves)


def _fit_trees(features: Floats, curves: Floats) -> Predict:
    model = ExtraTreesRegressor(NUM_TREES, min_samples_leaf=2, random_state=0, n_jobs=1)
    return _fitted(model, features, curves)


def _fitted(model: Any, features: Floats, curves: Floats) -> Predict:
    with warnings.catch_warnings():
        # A length scale at its bound is as good as none.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, curves[:, 0] if curves.shape[1] == 1 else curves)

    def predict(of: Floats) -> Floats:
        found: Floats = np.asarray(model.predict(of), dtype=float).reshape(len(of), -1)
        return found

    return predict


MODELS: dict[str, Fit] = {
    "ridge": _fit_ridge,
    "gaussian process": _fit_gaussian_process,
    "trees": _fit_trees,
}
MEAN = "mean of the models"


def cross_validated(
    features: Floats, curves: Floats, models: Sequence[str] = tuple(MODELS)
) -> list[Error]:
    """Errors of each model at the last epoch, the least first.

    Args:
        features: (placements, features).
        curves: (placements, epochs), means over seeds.
        models: names in `MODELS`; the mean of several is one more.
    """
    last = curves[:, -1:]
    folds = KFold(min(NUM_FOLDS, len(features)), shuffle=True, random_state=0)
    predicted = {name: np.zeros(len(features)) for name in models}
    for train, test in folds.split(features):
        for name in models:
            predict = MODELS[name](features[train], last[train])
            predicted[name][test] = predict(features[test])[:, 0]
    if len(models) > 1:
        predicted[MEAN] = np.mean(list(predicted.values()), axis=0)
    errors = [
        Error(
            model=name,
            rmse_points=100 * float(np.sqrt(((found - last[:, 0]) ** 2).mean())),
            tau=kendall_tau(found, last[:, 0]),
        )
        for name, found in predicted.items()
    ]
    return sorted(errors, key=lambda error: error.rmse_points)


def predicted_curves(
    features: Floats, measured: Sequence[int], curves: Floats, model: str
) -> Floats:
    """Accuracies of all placements after each epoch, 0 to 1, to five decimals.

    Args:
        features: (placements, features).
        measured: which of them are measured.
        curves: (measured, epochs), means over seeds.
        model: name in `MODELS`, or `MEAN`.

    Returns:
        (placements, epochs).
    """
    names = list(MODELS) if model == MEAN else [model]
    of_measured = features[list(measured)]
    found = np.mean([MODELS[name](of_measured, curves)(features) for name in names], axis=0)
    return np.round(np.clip(found, 0.0, 1.0), 5)


def predicted_seconds(features: Floats, measured: Sequence[int], seconds: Floats) -> Floats:
    """Seconds of all placements, (placements,), from those of the measured ones, to 0.1 s."""
    fit = MODELS["trees"](features[list(measured)], seconds[:, None])
    return np.round(fit(features)[:, 0], 1)
