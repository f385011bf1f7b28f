from __future__ import annotations

from typing import Any

from sharedattn.placement import LayerChoice, Placement
from sharedattn.spaces.automaton import pad
from sharedattn.spaces.pricing import PricedAutomaton, macs_of, pack, params_of
from sharedattn.spaces.space import Space

Small = tuple[Space, set[Placement]]


def test_packed_costs_add_and_compare() -> None:
    one, other = pack(7, 2**42), pack(11, 13)
    assert (macs_of(one), params_of(one)) == (7, 2**42)
    assert (macs_of(one + other), params_of(one + other)) == (18, 2**42 + 13)
    assert one < other


def test_what_is_around_the_layers_may_cost_less_than_nothing() -> None:
    fixed, layer = pack(-3, -17), pack(11, 13)
    assert (macs_of(fixed), params_of(fixed)) == (-3, -17)
    assert (macs_of(fixed + layer), params_of(fixed + layer)) == (8, -4)
    assert pack(7, 3) < fixed + layer < pack(8, 0)


def test_a_members_cost_is_the_sum_over_its_layers_and_cells(small: Small, costs: Any) -> None:
    space, members = small
    priced = PricedAutomaton(space.automaton, costs)
    for placement in members:
        path = space.automaton.path(placement)
        assert path is not None
        total = costs.total(placement)
        assert priced.member_cost(path) == pack(total.macs, total.params)
        assert priced.proposal_cost(path) == pack(total.macs, total.params)


def test_no_member_has_no_cost_but_a_proposal_has(small: Small, costs: Any) -> None:
    space, _ = small
    priced = PricedAutomaton(space.automaton, costs)
    gated = LayerChoice.of("E", slots=11, dia=0, cb=True)
    stages = tuple((gated, gated) for _ in space.stages)
    path = pad(stages, space.automaton.depths)
    assert priced.member_cost(path) is None
    total = costs.total(Placement(stages))
    assert priced.proposal_cost(path) == pack(total.macs, total.params)


def test_ranges_and_extremes(small: Small, costs: Any) -> None:
    space, members = small
    priced = PricedAutomaton(space.automaton, costs)
    totals = {placement: costs.total(placement) for placement in members}
    macs = [total.macs for total in totals.values()]
    params = [total.params for total in totals.values()]
    assert priced.cost_range(macs_of) == (min(macs), max(macs))
    assert priced.cost_range(params_of) == (min(params), max(params))
    by_cost = [pack(total.macs, total.params) for total in totals.values()]
    for path, extreme in (
        (priced.cheapest(), min(by_cost)),
        (priced.most_expensive(), max(by_cost)),
    ):
        assert priced.member_cost(path) == extreme
