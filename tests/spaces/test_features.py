"""Features of placements: what they say of known ones, and how they are scaled."""

import numpy as np
import pytest

from sharedattn.costs.model import CostModel
from sharedattn.placement import GateCell, Placement
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.features import NUM_SCALING, PlacementFeatures, _gates
from sharedattn.spaces.space import Space


@pytest.fixture(scope="module")
def space():
    return BudgetedSpace(Space.load("digit-pairs-vit"), Budget(max_macs=700_000))


@pytest.fixture(scope="module")
def features(space):
    return PlacementFeatures(space)


def raw(features, text):
    """The unscaled features of a placement, by name."""
    values = features.raw([Placement.parse(text)])[0]
    return {n: pytest.approx(v, abs=1e-9) for n, v in zip(features.names, values, strict=True)}


def test_what_is_said_of_a_placement():
    space = BudgetedSpace(Space.load("digit-pairs-vit"))
    found = raw(PlacementFeatures(space), "E1N2/s16/dia1/cb2")
    macs = CostModel(space.space.backbone).totals(Placement.parse("E1N2/s16/dia1/cb2")).macs
    expected = {
        "kinds: stage 1 layer 1 E": 1,
        "kinds: stage 1 layer 1 N": 0,
        "kinds: stage 1 layer 3 N": 1,
        "counts: stage 1 depth": 3,
        "counts: stage 1 N": 2,
        "order: stage 1 runs": 2,
        "order: stage 1 first E": 1,
        "order: stage 1 last N": 1,
        "order: stage 1 first N": 2 / 3,
        "order: stage 1 E then N": 1,
        "order: stage 1 N then N": 1,
        "order: stage 1 N then E": 0,
        "options: stage 1 E log slots": 4,
        "gates: stage 1 dia cells": 1,
        "gates: stage 1 dia layers": 3,
        "broadcasting: stage 1 layers": 2,
        "broadcasting: stage 1 layer 1": 0,
        "broadcasting: stage 1 layer 3": 1,
        "cost: macs": np.log(macs),
    }
    assert {name: found[name] for name in expected} == expected


def test_groups_have_equal_weight_over_the_space(space, features):
    assert space.in_budget <= NUM_SCALING
    rows = features.of(list(space.enumerate()))
    assert rows.mean(axis=0) == pytest.approx(0.0, abs=1e-9)
    assert sorted(np.concatenate(list(features.groups.values()))) == list(range(rows.shape[1]))
    for columns in features.groups.values():
        assert (rows[:, columns] ** 2).sum(axis=1).mean() == pytest.approx(1.0)


def test_members_that_differ_have_other_features(space, features):
    rows = features.of(list(space.enumerate()))
    assert len(np.unique(rows.round(9), axis=0)) == space.in_budget


def test_no_placement_has_no_row(features):
    assert features.of([]).shape == (0, len(features.names))


def test_equal_spaces_have_equal_features():
    space = BudgetedSpace(Space.load("digit-pairs-vit"))
    assert space.in_budget > NUM_SCALING
    some = [space[i] for i in range(0, space.in_budget, 997)]
    one, other = (PlacementFeatures(space).of(some) for _ in range(2))
    assert np.array_equal(one, other)


def test_gates_are_named_in_the_order_of_the_layers():
    """In the order of a set, columns would differ between processes, and so would last digits."""
    gates = [GateCell("se", 1), GateCell("dia", 0), None, GateCell("cbam", 0), GateCell("se", 1)]
    names = [name for name, _ in _gates(gates)]
    assert names[:3] == ["se cells", "dia cells", "cbam cells"]
    assert names[3:] == ["se layers", "dia layers", "cbam layers", "se layers"]


def test_placements_alike_in_an_aspect_have_the_same_features_of_it(space, features):
    members = list(space.enumerate())
    whole = features.raw(members)
    again = PlacementFeatures(space)
    one_by_one = np.concatenate([again.raw([member]) for member in members[::-1]])[::-1]
    assert np.array_equal(whole, one_by_one)
