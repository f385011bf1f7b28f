from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharedattn.placement import Placement
from sharedattn.spaces.counting import CostBox, CostPoints, CostTables, RankedMembers
from sharedattn.spaces.pricing import PricedAutomaton, macs_of, pack, params_of
from sharedattn.spaces.space import Space

Small = tuple[Space, set[Placement]]

coordinates = st.integers(0, 12)
points = st.dictionaries(
    st.builds(pack, coordinates, coordinates), st.integers(1, 2**70), min_size=1, max_size=20
)


@given(points, coordinates, coordinates, coordinates)
def test_points_count_and_select_inside_a_box(
    ways: dict[int, int], min_macs: int, max_macs: int, max_params: int
) -> None:
    inside = {
        cost: number
        for cost, number in ways.items()
        if min_macs <= macs_of(cost) <= max_macs and params_of(cost) <= max_params
    }
    box = (min_macs, max_macs, max_params)
    index = CostPoints(ways)
    total = sum(inside.values())
    assert index.count(*box) == total
    # The ranks of each cost are one run; its first and last are enough.
    rank, found = 0, {}
    while rank < total:
        cost, first = index.select(*box, rank)
        assert first == 0
        assert index.select(*box, rank + ways[cost] - 1) == (cost, ways[cost] - 1)
        found[cost] = ways[cost]
        rank += ways[cost]
    assert found == inside
    with pytest.raises(IndexError, match="rank is not below the count"):
        index.select(*box, total)


def test_a_box_holds_its_bounds() -> None:
    box = CostBox(max_macs=7, max_params=5, min_macs=3)
    held = [(m, p) for m in range(9) for p in range(7) if box.holds(pack(m, p))]
    assert held == [(m, p) for m in range(3, 8) for p in range(6)]
    assert CostBox().holds(pack(10**30, 10**12))


def test_tables_meet_and_hold_every_member(small: Small, costs: Any) -> None:
    space, members = small
    tables = CostTables(PricedAutomaton(space.automaton, costs))
    found: Counter[int] = Counter()
    for prefixes, suffixes in zip(
        tables.prefixes[tables.middle], tables.suffixes[tables.middle], strict=True
    ):
        for prefix, number in prefixes.items():
            for suffix, other in suffixes.items():
                found[prefix + suffix] += number * other
    totals = (costs.total(placement) for placement in members)
    assert found == Counter(pack(total.macs, total.params) for total in totals)


@pytest.mark.parametrize(
    ("macs", "params"),
    [((0.0, 1.0), 1.0), ((0.0, 0.3), 1.0), ((0.2, 0.7), 0.4), ((0.4, 0.4), 1.0)],
)
def test_numbers_and_members_inside_are_one_to_one(
    small: Small, costs: Any, macs: tuple[float, float], params: float
) -> None:
    space, members = small
    totals = {placement: costs.total(placement) for placement in members}
    all_macs = sorted(total.macs for total in totals.values())
    all_params = sorted(total.params for total in totals.values())
    low, high = (all_macs[int(share * (len(all_macs) - 1))] for share in macs)
    most = all_params[int(params * (len(all_params) - 1))]
    ranked = RankedMembers(
        CostTables(PricedAutomaton(space.automaton, costs)), CostBox(high, most, low)
    )
    found = [space.automaton.placement(ranked.path(number)) for number in range(ranked.size)]
    expected = {
        placement
        for placement, total in totals.items()
        if low <= total.macs <= high and total.params <= most
    }
    assert len(found) == len(expected)
    assert set(found) == expected


def test_a_number_beyond_the_members_is_refused(small: Small, costs: Any) -> None:
    space, members = small
    ranked = RankedMembers(CostTables(PricedAutomaton(space.automaton, costs)), CostBox())
    for number in (-1, len(members)):
        with pytest.raises(IndexError, match=f"numbered from 0 to {len(members) - 1}"):
            ranked.path(number)
