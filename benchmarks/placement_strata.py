"""Placements that fill strata of several features evenly, for tables of a space."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sharedattn.backbones import describe
from sharedattn.costs.model import CostModel
from sharedattn.placement import Placement
from sharedattn.spaces.budget import BudgetedSpace

NUM_MACS_BINS = 12


def stratified(space: BudgetedSpace, count: int) -> list[Placement]:
    """Choose placements one by one, without chance but for the order of equals.

    The all-vanilla network and the cheapest member come first. The next is always the one whose
    strata have the fewest placements so far, summed over features: MACs (twelve bins of equal
    width), depth, number of layers of each kind, kind of the first and of the last layer, groups
    of DIA, layers with CB, memory slots. So any first part of the order is stratified too.

    Args:
        space: it is enumerated.
        count: number of placements, at most the space's members inside the budget.

    Returns:
        Distinct members. A shorter choice is the first part of a longer one.
    """
    members = list(space.enumerate())
    random.Random(0).shuffle(members)
    strata = strata_of(members, space)
    filled = [np.zeros(column.max() + 1) for column in strata.T]
    depths = [stage.max_depth for stage in describe(space.space.backbone).stages]
    published = Placement.all_vanilla(depths)
    first = [members.index(p) for p in (published, space.cheapest) if p in members]
    is_left = np.ones(len(members), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < count:
        if len(chosen) < len(first):
            number = first[len(chosen)]
        else:
            crowd = np.sum(
                [counts[column] for counts, column in zip(filled, strata.T, strict=True)], axis=0
            )
            number = int(np.where(is_left, crowd, np.inf).argmin())
        chosen.append(number)
        is_left[number] = False
        for counts, stratum in zip(filled, strata[number], strict=True):
            counts[stratum] += 1
    return [members[number] for number in chosen]


def strata_of(members: Sequence[Placement], space: BudgetedSpace) -> npt.NDArray[np.int64]:
    """The stratum of each member in each feature.

    Returns:
        (members, features), numbers from 0.
    """
    costs = CostModel(space.space.backbone)
    low, high = space.macs_range_in_budget
    letters = sorted({layer.kind for member in members for layer in member.layers})
    levels: list[dict[object, int]] = []
    rows = []
    for member in members:
        layers = member.layers
        kinds = [layer.kind for layer in layers]
        macs = costs.totals(member).macs
        features: list[object] = [
            (macs - low) * NUM_MACS_BINS // (high + 1 - low),
            member.depths,
            *(kinds.count(letter) for letter in letters),
            kinds[0],
            kinds[-1],
            sum(len({layer.gate for layer in stage} - {None}) for stage in member.stages),
            sum(layer.cb for layer in layers),
            tuple({layer.option("slots") for layer in layers} - {None}),
        ]
        levels = levels or [{} for _ in features]
        rows.append([of.setdefault(f, len(of)) for of, f in zip(levels, features, strict=True)])
    return np.array(rows)
