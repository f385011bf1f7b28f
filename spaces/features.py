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
from functools import lru_cache
from itertools import groupby, pairwise
from operator import attrgetter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sharedattn.costs.model import CostModel
from sharedattn.mechanisms.interface import Options
from sharedattn.mechanisms.registry import branch_of
from sharedattn.placement import GateCell, LayerChoice, Placement
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.stratified import StratifiedSampler

FloatArray = NDArray[np.float64]

NUM_SCALING = 1024
"""Members by which columns are scaled: all of a smaller space, else draws from bins of MACs."""
MAX_DESCRIBED = 2**14
"""Most descriptions of an aspect of a stage's layers that are kept."""
COST = "cost"
"""Name of the group that says what a placement costs."""

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
        reference = _reference(space)
        rows = [self._row(placement) for placement in reference]
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
        self._columns = {
            (stage, aspect): [
                i
                for i, key in enumerate(self.keys)
                if key[0] in aspect.groups and key[1] == _name_of(stage)
            ]
            for stage in range(len(reference[0].stages))
            for aspect in _ASPECTS
        }
        self._described = lru_cache(MAX_DESCRIBED)(self._describe)

    def of(self, placements: Sequence[Placement]) -> FloatArray:
        """The scaled features of members of the space.

        Returns:
            (n, f), a row for each of n placements, a column for each of f features.
        """
        return self.scaled(self.raw(placements))

    def raw(self, placements: Sequence[Placement]) -> FloatArray:
        """The features (n, f) of n placements as they are counted."""
        raw = np.zeros((len(placements), len(self.keys)))
        if not placements:
            return raw
        for (stage, aspect), columns in self._columns.items():
            raw[:, columns] = [
                self._described(stage, aspect, aspect.of(placement.stages[stage]))
                for placement in placements
            ]
        costs = [_cost_row(self._costs, placement) for placement in placements]
        for i, key in enumerate(self.keys):
            if key[0] == COST:
                raw[:, i] = [row[key] for row in costs]
        return raw

    def scaled(self, raw: FloatArray) -> FloatArray:
        """The scaled features (n, f) of raw ones."""
        scaled: FloatArray = (raw - self._mean) / self._scale
        return scaled

    def _describe(self, stage: int, aspect: _Aspect, said: tuple[Any, ...]) -> FloatArray:
        """What is counted of an aspect of a stage's layers, in the order of its columns."""
        row = aspect.row(stage, said)
        return np.array([row.get(self.keys[i], 0.0) for i in self._columns[stage, aspect]])

    def _row(self, placement: Placement) -> _Row:
        row: _Row = {}
        for stage, layers in enumerate(placement.stages):
            for aspect in _ASPECTS:
                row |= aspect.row(stage, aspect.of(layers))
        return row | _cost_row(self._costs, placement)


class _Aspect:
    """What some groups of features say of a stage's layers.

    Many placements are alike in each aspect, so what is said of it is kept.

    Args:
        attributes: of a layer, all that the groups look at.
        groups: by name, what is counted by these attributes of a stage's layers.
    """

    def __init__(
        self, attributes: Sequence[str], groups: Mapping[str, Callable[[Sequence[Any]], _Named]]
    ) -> None:
        self.groups = groups
        self._of_layer = attrgetter(*attributes)

    def of(self, layers: Sequence[LayerChoice]) -> tuple[Any, ...]:
        """The aspect of a stage's layers, by layer."""
        return tuple(map(self._of_layer, layers))

    def row(self, stage: int, said: tuple[Any, ...]) -> _Row:
        """What is counted of it, by key."""
        row: _Row = {}
        for group, describe in self.groups.items():
            for name, value in describe(said):
                key = (group, _name_of(stage), name)
                row[key] = row.get(key, 0.0) + value
        return row


def _name_of(stage: int) -> str:
    return f"stage {stage + 1}"


def _cost_row(costs: CostModel, placement: Placement) -> _Row:
    cost = costs.totals(placement)
    return {(COST, "macs"): math.log(cost.macs), (COST, "params"): math.log(cost.params)}


def _kinds(kinds: Sequence[str]) -> _Named:
    for position, kind in enumerate(kinds, start=1):
        yield f"layer {position} {kind}", 1.0


def _counts(kinds: Sequence[str]) -> _Named:
    yield "depth", len(_present(kinds))
    for kind in kinds:
        yield kind, 1.0


def _order(kinds: Sequence[str]) -> _Named:
    present = _present(kinds)
    yield "runs", sum(1 for _ in groupby(present))
    for kind in dict.fromkeys(present):
        yield f"first {kind}", 1.0 - present.index(kind) / len(present)
        yield f"last {kind}", 1.0 - present[::-1].index(kind) / len(present)
    for one, other in pairwise(present):
        yield f"{one} then {other}", 1.0


def _present(kinds: Sequence[str]) -> list[str]:
    return [kind for kind in kinds if not branch_of(kind).is_absent]


def _options(layers: Sequence[tuple[str, Options]]) -> _Named:
    for kind, options in layers:
        for name, value in options:
            if isinstance(value, int):
                alike = sum(name in dict(others) for _, others in layers)
                yield f"{kind} log {name}", math.log2(value) / alike
            else:
                yield f"{kind} {name} {value}", 1.0


def _gates(gates: Sequence[GateCell | None]) -> _Named:
    for cell in dict.fromkeys(gates):
        if cell is not None:
            yield f"{cell.gate} cells", 1.0
    for gate in gates:
        if gate is not None:
            yield f"{gate.gate} layers", 1.0


def _broadcasting(broadcasts: Sequence[bool]) -> _Named:
    for position, cb in enumerate(broadcasts, start=1):
        if cb:
            yield "layers", 1.0
            yield f"layer {position}", 1.0


_ASPECTS = (
    _Aspect(("kind",), {"kinds": _kinds, "counts": _counts, "order": _order}),
    _Aspect(("kind", "options"), {"options": _options}),
    _Aspect(("gate",), {"gates": _gates}),
    _Aspect(("cb",), {"broadcasting": _broadcasting}),
)


def _reference(space: BudgetedSpace) -> list[Placement]:
    """The members by which columns are scaled; the same for equal spaces."""
    if space.in_budget <= NUM_SCALING:
        return list(space.enumerate())
    rng = random.Random(0)
    strata = StratifiedSampler(space, NUM_SCALING // 32)
    return [strata.sample(rng) for _ in range(NUM_SCALING)]
