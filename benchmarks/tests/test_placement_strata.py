"""The placements of a table fill every stratum evenly, as far as the space has members."""

import numpy as np
import pytest
from placement_strata import NUM_MACS_BINS, strata_of, stratified

from sharedattn.placement import Placement
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space


@pytest.fixture(scope="module")
def space():
    return BudgetedSpace(Space.load("digit-pairs-vit"))


def test_a_choice_is_of_members_begins_with_a_shorter_one_and_fills_strata(space):
    chosen = stratified(space, 211)
    assert len(set(chosen)) == 211 and all(placement in space for placement in chosen)
    assert chosen[:53] == stratified(space, 53)
    assert chosen[:2] == [Placement.parse("V4"), space.cheapest]
    columns = strata_of(chosen, space).T
    # 12 bins of MACs, 4 depths, 4 or 5 counts of each kind, 3 and 4 kinds at the ends, 3 numbers
    # of DIA groups, 5 of layers with CB, and no or 8, 16 or 32 slots.
    assert [len(set(column)) for column in columns] == [12, 4, 4, 4, 4, 5, 3, 4, 3, 5, 4]
    for column in (columns[6], columns[7], columns[8], columns[9]):
        shares = np.bincount(column) / 211
        assert shares.min() > 0.9 / len(shares) and shares.max() < 1.1 / len(shares)


def test_strata_of_placements_by_hand(space):
    low, high = space.macs_range_in_budget
    placements = [Placement.parse(p) for p in (str(space.cheapest), "V4", "V1E1L1/s8/dia2/cb1")]
    strata = strata_of(placements, space)
    assert strata.shape == (3, 11)
    costs = [space.priced.member_cost(space.space.automaton.path(p)) for p in placements]
    assert len(set(costs)) == 3 and low < high
    assert strata[0, 0] == 0
    # Strata but MACs are numbered by first use: N1/cb, then V4, then the last, new in each but the
    # number of N layers, which V4 has too, and the first kind, V.
    assert strata[1:, 1].tolist() == [1, 2]
    kinds = dict(zip("ELNV", strata.T[2:6], strict=True))
    assert kinds["N"].tolist() == [0, 1, 1] and kinds["V"].tolist() == [0, 1, 2]
    assert strata[:, 6].tolist() == [0, 1, 1]
    assert strata[:, 8].tolist() == [0, 0, 1]
    assert strata[:, 9].tolist() == [0, 1, 0]
    assert strata[:, 10].tolist() == [0, 0, 1]
    assert NUM_MACS_BINS == 12
