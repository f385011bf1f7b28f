"""Placements as vectors of numbers, in groups, for models that learn from few of them.

The groups say what a person would look at: which kind stands where, how many there are of each,
their order, memory slots and forms, gates, broadcasting, and what the network costs. Columns are
centred and scaled over a fixed sample of the space, and a group's by the root of its number of
columns, so that two random members differ by about as much in every group.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sharedattn.costs.model import CostModel, distinct_cells
from sharedattn.placement import LayerChoice, Placement, num_present
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.stratified import StratifiedSampler

FloatArray = NDArray[np.float64]

NUM_SCALING = 1024
"""Members by which columns are scaled: all of a smaller space, else draws from bins of MACs."""

_Row = dict[tuple[str, ...], float]
_Named = Iterator[tuple[str, float]]
"""Names of columns within a stage, with what to add to each."""


class Features(Protocol):
    """What a model learns from placements.

    Attributes:
        groups: the columns of each group, by its name.
    """

    groups: Mapping[str, NDArray[np.intp]]

    def of(self, placements: Sequence[Placement]) -> FloatArray:
        """The scaled features (n, f) of n placements."""


class PlacementFeatures:
    """The features of a space's members.

    Args:
        space: the members, inside their budget.

    Attributes:
        keys: of each column its group, then `macs` or `params`, or the stage and what is counted
            there, such as ("kinds", "stage 1", "layer 2 V").
        names: name of each column, such as `kinds: stage 1 layer 2 V`.
        groups: the columns of each group, by its name; groups without a varying column are left
            out.
    """

    def __init__(self, space: BudgetedSpace) -> None:
        self._costs = CostModel(space.space.backbone)
        rows = [self._row(placement) for placement in _reference(space)]
        keys = list(dict.fromkeys(key for row in rows for key in row))
        raw = np.array([[row.get(key, 0.0) for key in keys] for row in rows])
        spread = raw.std(axis=0)
        # A column that only rounding moves holds nothing.
        kept = np.flatnonzero(spread > 1e-9)
        self.keys = tuple(keys[i] for i in kept)
        names = dict.fromkeys(key[0] for key in self.keys)
        self.names = tuple(f"{key[0]}: {' '.join(key[1:])}" for key in self.keys)
        self.groups: Mapping[str, NDArray[np.intp]] = {
            name: np.array([i for i, key in enumerate(self.keys) if key[0] == name])
            for name in names
        }
        self._mean = raw.mean(axis=0)[kept]
        sizes = np.array([len(self.groups[key[0]]) for key in self.keys])
        self._scale = spread[kept] * np.sqrt(sizes)

    def of(self, placements: Sequence[Placement]) -> FloatArray:
        """The scaled features of members of the space.

        Returns:
            (n, f), a row for each of n placements, a column for each of f features.
        """
        return self.scaled(self.raw(placements))

    def raw(self, placements: Sequence[Placement]) -> FloatArray:
        """The features (n, f) of n placements as they are counted."""
        rows = (self._row(placement) for placement in placements)
        raw = np.array([[row.get(key, 0.0) for key in self.keys] for row in rows])
        return raw.reshape(-1, len(self.keys))

    def scaled(self, raw: FloatArray) -> FloatArray:
        """The scaled features (n, f) of raw ones."""
        scaled: FloatArray = (raw - self._mean) / self._scale
        return scaled

    def _row(self, placement: Placement) -> _Row:
        row: _Row = {}
        for stage, layers in enumerate(placement.stages):
            at = f"stage {stage + 1}"
            for group, describe in _GROUPS.items():
                for name, value in describe(layers):
                    row[group, at, name] = row.get((group, at, name), 0.0) + value
        cost = self._costs.totals(placement)
        row["cost", "macs"] = math.log(cost.macs)
        row["cost", "params"] = math.log(cost.params)
        return row


def _kinds(layers: Sequence[LayerChoice]) -> _Named:
    for position, layer in enumerate(layers, start=1):
        yield f"layer {position} {layer.kind}", 1.0


def _counts(layers: Sequence[LayerChoice]) -> _Named:
    yield "depth", num_present(layers)
    for layer in layers:
        yield layer.kind, 1.0


def _order(layers: Sequence[LayerChoice]) -> _Named:
    kinds = [layer.kind for layer in layers if not layer.is_absent]
    yield "runs", sum(1 for _ in groupby(kinds))
    for kind in dict.fromkeys(kinds):
        yield f"first {kind}", 1.0 - kinds.index(kind) / len(kinds)
        yield f"last {kind}", 1.0 - kinds[::-1].index(kind) / len(kinds)
    for one, other in pairwise(kinds):
        yield f"{one} then {other}", 1.0


def _options(layers: Sequence[LayerChoice]) -> _Named:
    for layer in layers:
        for name, value in layer.options:
            if isinstance(value, int):
                alike = sum(other.option(name) is not None for other in layers)
                yield f"{layer.kind} log {name}", math.log2(value) / alike
            else:
                yield f"{layer.kind} {name} {value}", 1.0


def _gates(layers: Sequence[LayerChoice]) -> _Named:
    for cell in distinct_cells(tuple(layers)):
        yield f"{cell.gate} cells", 1.0
    for layer in layers:
        if layer.gate is not None:
            yield f"{layer.gate.gate} layers", 1.0


def _broadcasting(layers: Sequence[LayerChoice]) -> _Named:
    for position, layer in enumerate(layers, start=1):
        if layer.cb:
            yield "layers", 1.0
            yield f"layer {position}", 1.0


_GROUPS: dict[str, Callable[[Sequence[LayerChoice]], _Named]] = {
    "kinds": _kinds,
    "counts": _counts,
    "order": _order,
    "options": _options,
    "gates": _gates,
    "broadcasting": _broadcasting,
}


def _reference(space: BudgetedSpace) -> list[Placement]:
    """The members by which columns are scaled; the same for equal spaces."""
    if space.in_budget <= NUM_SCALING:
        return list(space.enumerate())
    rng = random.Random(0)
    strata = StratifiedSampler(space, NUM_SCALING // 32)
    return [strata.sample(rng) for _ in range(NUM_SCALING)]
