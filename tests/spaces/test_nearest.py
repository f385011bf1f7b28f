"""The members nearest to a member, against a search of all of them."""

import pytest

from sharedattn.costs.model import CostModel
from sharedattn.placement import Placement
from sharedattn.spaces import nearest
from sharedattn.spaces.automaton import pad
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.encoding import Encoding
from sharedattn.spaces.nearest import NearestMembers
from sharedattn.spaces.repair import difference
from sharedattn.spaces.space import Space


@pytest.fixture(scope="module")
def space():
    return BudgetedSpace(Space.load("digit-pairs-vit"), Budget(max_macs=900_000))


def distance(space, one, other):
    depths = space.space.automaton.depths
    return sum(map(difference, pad(one.stages, depths), pad(other.stages, depths)))


def test_all_members_come_by_distance_then_by_macs(space):
    costs = CostModel(space.space.backbone)
    start = space[101]
    found = list(NearestMembers(Encoding(space)).of(start))
    assert len(found) == len(set(found)) == space.in_budget - 1
    assert start not in found

    def key(member):
        macs = costs.totals(member).macs - costs.totals(start).macs
        return distance(space, start, member), abs(macs)

    keys = [key(member) for member in found]
    assert keys == sorted(keys)
    assert keys[0][0] == 1


def test_neighbours_of_a_placement_solved_by_hand():
    whole = BudgetedSpace(Space.load("digit-pairs-vit"))
    found = NearestMembers(Encoding(whole)).of(Placement.parse("V2"))
    # One attribute differs; broadcasting in the last layer changes no MACs.
    assert str(next(found)) == "V2/cb1"


def test_a_large_space_is_searched_edit_by_edit(space, monkeypatch):
    start = space[101]
    whole = list(NearestMembers(Encoding(space)).of(start))
    monkeypatch.setattr(nearest, "MAX_LISTED", 7)
    near = NearestMembers(Encoding(space))
    found = list(near.of(start))
    assert found == list(near.of(start))
    assert len(found) == len(set(found)) and set(found) <= set(whole)
    neighbours = set(near._variation.neighbours(start))
    assert set(found[: len(neighbours)]) == neighbours
    of_neighbours = [distance(space, start, member) for member in found[: len(neighbours)]]
    assert of_neighbours == sorted(of_neighbours)
    assert found[0] == whole[0]
