from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from scipy.stats import chisquare

from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import PartCost
from sharedattn.placement import Placement
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.encoding import Encoding
from sharedattn.spaces.pricing import pack
from sharedattn.spaces.space import Space
from sharedattn.spaces.stages import ListedStage
from sharedattn.units import Share

Small = tuple[Space, set[Placement]]


def tight(small: Small, costs: Any, share: float = 0.3) -> Budget:
    """A budget with both bounds, each at a quantile of the members."""
    totals = [costs.total(placement) for placement in small[1]]
    place = int(share * (len(totals) - 1))
    return Budget(
        max_macs=sorted(total.macs for total in totals)[place],
        max_params=sorted(total.params for total in totals)[2 * place],
    )


def test_a_budget_admits_up_to_its_bounds() -> None:
    budget = Budget(max_macs=7, max_params=5)
    assert budget.admits(PartCost(params=5, macs=7).to_json())
    assert not budget.admits(PartCost(params=5, macs=8).to_json())
    assert not budget.admits(PartCost(params=6, macs=7).to_json())
    assert Budget(max_params=5).admits(PartCost(params=5, macs=10**15).to_json())
    assert Budget(max_macs=5).admits(PartCost(params=10**12, macs=5).to_json())
    assert str(budget) == "macs <= 7 and params <= 5"
    assert str(Budget()) == "no bound"
    with pytest.raises(InputError, match="the bound on macs is 0; give at least 1"):
        Budget(max_macs=0)


def test_a_lower_bound_on_macs() -> None:
    budget = Budget(max_macs=7, min_macs=3)
    admitted = [macs for macs in range(1, 11) if budget.admits({"macs": macs, "params": 5})]
    assert admitted == [3, 4, 5, 6, 7]
    assert budget.admits({"params": 10**12})
    assert str(budget) == "macs >= 3 and macs <= 7"
    assert not Budget(min_macs=3).is_empty and Budget().is_empty
    assert Budget.from_document(budget.to_document()) == budget
    # Studies from before lower bounds keep their fingerprints.
    assert Budget(max_macs=7).to_document() == {"max_macs": 7, "max_params": None}
    with pytest.raises(InputError, match="min_macs is 8, more than max_macs, 7; lower it or"):
        Budget(max_macs=7, min_macs=8)
    with pytest.raises(InputError, match="min_macs is 0; give at least 1"):
        Budget(min_macs=0)


def test_shares_are_of_the_backbone_as_published() -> None:
    space = Space.load("digit-count-vit")
    # V4: 4 layers, stem and head, by `sharedattn cost`.
    total = CostModel(space.backbone).totals(Placement.parse("V4"))
    whole, params = total.macs, total.params
    two_thirds, least = Share(Decimal("66.7")), Share(Decimal("33.3"))
    budget = Budget(max_macs=two_thirds, max_params=Share(Decimal(50)), min_macs=least)
    assert not budget.is_empty and budget.bounds == ()
    assert str(budget) == (
        "macs >= 33.3% of the backbone's and macs <= 66.7% of the backbone's and "
        "params <= 50% of the backbone's"
    )
    numbers = Budget(
        max_macs=667 * whole // 1000,
        max_params=params // 2,
        min_macs=-(-333 * whole // 1000),
    )
    found = BudgetedSpace(space, budget)
    assert found.budget == numbers == budget.resolved({"macs": whole, "params": params})
    assert found.in_budget == BudgetedSpace(space, numbers).in_budget
    # The same share of a backbone with other classes is another number.
    wider = BudgetedSpace(
        replace(space, backbone=replace(space.backbone, num_classes=1009)),
        Budget(max_macs=two_thirds),
    )
    assert wider.budget.max_macs == 667 * (whole + 1005 * 24) // 1000
    with pytest.raises(InputError, match=r"min_macs is 67%, more than max_macs, 66.7%; lower it"):
        Budget(max_macs=two_thirds, min_macs=Share(Decimal(67)))
    with pytest.raises(InputError, match="more than max_macs, 667"):
        Budget(max_macs=two_thirds, min_macs=668).resolved({"macs": 1000})


def test_a_budget_inside_another() -> None:
    assert Budget(max_macs=5, min_macs=3).is_inside(Budget(max_macs=7))
    assert Budget(max_macs=5, min_macs=3).is_inside(Budget(max_macs=5, min_macs=2))
    assert not Budget(max_macs=5).is_inside(Budget(max_macs=7, min_macs=2))
    assert not Budget(max_params=5).is_inside(Budget(max_macs=7))
    assert Budget(max_params=5).is_inside(Budget())


def test_members_between_two_bounds(small: Small, costs: Any) -> None:
    space, members = small
    totals = {placement: costs.total(placement) for placement in members}
    macs = sorted(total.macs for total in totals.values())
    low, high = macs[len(macs) // 3], macs[2 * len(macs) // 3]
    counted = BudgetedSpace(space, Budget(max_macs=high, min_macs=low), costs=costs)
    inside = {placement for placement in members if low <= totals[placement].macs <= high}
    assert 0 < len(inside) < len(members)
    assert counted.in_budget == len(inside)
    assert set(counted.enumerate()) == inside
    assert {placement for placement in members if placement in counted} == inside
    assert counted.macs_range == (macs[0], macs[-1])
    assert counted.macs_span == counted.macs_range_in_budget == (low, high)
    # A bin is cut to the bounds.
    assert counted.num_in_macs_bin(macs[0], macs[-1]) == len(inside)
    encoding = Encoding(counted)
    rng = random.Random(29)
    for placement in rng.sample(sorted(members - inside, key=str), 11):
        assert encoding.repair(placement.stages) in inside


def test_an_infeasible_lower_bound_names_the_nearest(
    make_space: Callable[..., Space], choices: Callable[..., Any], costs: Any
) -> None:
    # V has 503 MACs, L 307: three layers of them cost 0, 1, 2 or 3 times 196 less than V3.
    space = make_space(
        ListedStage(layers=(choices("V"), choices("V", "L"), choices("V", "L")), depth=(3,))
    )
    most = costs.fixed.macs + 3 * 503
    with pytest.raises(InputError, match=f"macs >= {most + 1}; lower min_macs to {most}$"):
        BudgetedSpace(space, Budget(min_macs=most + 1), costs=costs)
    between = Budget(max_macs=most - 1, min_macs=most - 195)
    message = f"lower min_macs to {most - 196}, or raise max_macs to {most}$"
    with pytest.raises(InputError, match=message):
        BudgetedSpace(space, between, costs=costs)
    assert BudgetedSpace(space, Budget(most - 1, min_macs=most - 196), costs=costs).in_budget == 2


def test_sizes_and_ranges(small: Small, costs: Any) -> None:
    space, members = small
    budget = tight(small, costs)
    counted = BudgetedSpace(space, budget, costs=costs)
    totals = {placement: costs.total(placement) for placement in members}
    inside = {placement for placement, total in totals.items() if budget.admits(total.to_json())}
    assert (counted.size, counted.in_budget) == (len(members), len(inside))
    assert 0 < len(inside) < len(members)
    assert set(counted.enumerate()) == inside
    assert {placement for placement in members if placement in counted} == inside
    macs = [total.macs for total in totals.values()]
    assert counted.macs_range == (min(macs), max(macs))
    params = [total.params for total in totals.values()]
    assert counted.params_range == (min(params), max(params))
    assert totals[counted.cheapest].macs == min(macs)
    assert totals[counted.most_expensive].macs == max(macs)
    assert BudgetedSpace(space, costs=costs).in_budget == len(members)


def test_a_placement_of_other_stages_is_not_inside(small: Small, costs: Any) -> None:
    counted = BudgetedSpace(small[0], costs=costs)
    assert Placement.all_vanilla([1] * (len(small[0].stages) + 1)) not in counted


@pytest.mark.parametrize("bounded", [False, True])
def test_samples_are_uniform(small: Small, costs: Any, bounded: bool) -> None:
    counted = BudgetedSpace(small[0], tight(small, costs) if bounded else Budget(), costs=costs)
    rng = random.Random(7)
    drawn = Counter(counted.sample(rng) for _ in range(20 * counted.in_budget))
    frequencies = [drawn[placement] for placement in counted.enumerate()]
    assert sum(frequencies) == 20 * counted.in_budget
    assert chisquare(frequencies).pvalue > 1e-3


def test_samples_of_a_bin_are_uniform(small: Small, costs: Any) -> None:
    budget = tight(small, costs, 0.4)
    counted = BudgetedSpace(small[0], budget, costs=costs)
    inside = [costs.total(placement).macs for placement in counted.enumerate()]
    low, high = sorted(inside)[len(inside) // 4], sorted(inside)[-1] + 5
    band = {p for p in counted.enumerate() if low <= costs.total(p).macs <= high}
    rng = random.Random(11)
    drawn = Counter(counted.sample_in_macs_bin(rng, low, high) for _ in range(20 * len(band)))
    assert set(drawn) <= band
    assert chisquare([drawn[placement] for placement in band]).pvalue > 1e-3


def test_a_bin_without_members_is_refused(small: Small, costs: Any) -> None:
    counted = BudgetedSpace(small[0], costs=costs)
    most = counted.macs_range[1]
    with pytest.raises(InputError, match=f"no member inside the budget .* has {most + 1} <= macs"):
        counted.sample_in_macs_bin(random.Random(1), most + 1, most + 9)


def test_many_samples_differ(small: Small, costs: Any) -> None:
    counted = BudgetedSpace(small[0], tight(small, costs), costs=costs)
    everything = counted.sample_many(random.Random(3), counted.in_budget)
    assert len(set(everything)) == counted.in_budget
    assert len(set(counted.sample_many(random.Random(3), 5))) == 5
    with pytest.raises(InputError, match="`count` is .* members are inside the budget"):
        counted.sample_many(random.Random(3), counted.in_budget + 1)


def test_many_samples_are_uniform(
    make_space: Callable[..., Space], choices: Callable[..., Any], costs: Any
) -> None:
    space = make_space(
        ListedStage(layers=(choices("V", "N"), choices("V", "N", "N/cb")), depth=(2,))
    )
    counted = BudgetedSpace(space, costs=costs)
    rng = random.Random(5)
    # All 6 * 5 * 4 orders of three of the six members.
    drawn = Counter(tuple(counted.sample_many(rng, 3)) for _ in range(120 * 20))
    assert len(drawn) == 120
    assert chisquare(list(drawn.values())).pvalue > 1e-3


def test_the_same_seed_gives_the_same_samples(small: Small, costs: Any) -> None:
    budget = tight(small, costs)
    one, other = (BudgetedSpace(small[0], budget, costs=costs) for _ in range(2))
    rngs = random.Random(13), random.Random(13)
    assert [one.sample(rngs[0]) for _ in range(50)] == [other.sample(rngs[1]) for _ in range(50)]
    assert one[0] == other[0]


def test_an_infeasible_budget_names_the_nearest(small: Small, costs: Any) -> None:
    totals = [costs.total(placement) for placement in small[1]]
    macs, params = (min(t.macs for t in totals), min(t.params for t in totals))
    with pytest.raises(
        InputError,
        match=f"the budget macs <= {macs - 1}; the fewest macs of any member are {macs}$",
    ):
        BudgetedSpace(small[0], Budget(max_macs=macs - 1), costs=costs)
    with pytest.raises(InputError, match=f"the fewest params of any member are {params}$"):
        BudgetedSpace(small[0], Budget(max_params=params - 1), costs=costs)
    with pytest.raises(InputError, match=f"are {macs}, the fewest params of any member are"):
        BudgetedSpace(small[0], Budget(macs - 1, params - 1), costs=costs)
    assert BudgetedSpace(small[0], Budget(max_macs=macs), costs=costs).in_budget > 0


def test_bounds_that_exclude_each_other_name_the_nearest(
    make_space: Callable[..., Space], choices: Callable[..., Any], costs: Any
) -> None:
    # L has fewer MACs than V and more params: 307 against 503, 113 against 101.
    stage = ListedStage(layers=(choices("V"), choices("V", "L"), choices("V", "L")), depth=(3,))
    space = make_space(stage)
    fixed = costs.fixed
    budget = Budget(fixed.macs + 3 * 503 - 1, fixed.params + 3 * 101 + 11)
    message = (
        f"each bound can be met alone, but not both together: members within max_params have "
        f"at least {fixed.macs + 3 * 503} macs, members within max_macs at least "
        f"{fixed.params + 2 * 101 + 113} params"
    )
    with pytest.raises(InputError, match=message):
        BudgetedSpace(space, budget, costs=costs)
    nearest = Budget(budget.max_macs, fixed.params + 2 * 101 + 113)
    assert BudgetedSpace(space, nearest, costs=costs).in_budget == 2


def test_costs_are_the_models_own() -> None:
    space = Space.load("digit-pairs-vit")
    counted = BudgetedSpace(space)
    model = CostModel(space.backbone)
    for placement in counted.sample_many(random.Random(17), 100):
        path = space.automaton.path(placement)
        total = model.totals(placement)
        assert path is not None
        assert counted.priced.member_cost(path) == pack(total.macs, total.params)


@pytest.mark.parametrize(
    ("with_macs", "with_params"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_the_range_of_macs_in_a_budget_is_exact(
    small: Small, costs: Any, with_macs: bool, with_params: bool
) -> None:
    space, members = small
    totals = [costs.total(placement) for placement in members]
    rng = random.Random(17)
    for _ in range(12):
        anchor = rng.choice(totals)
        max_macs = anchor.macs + 1 if with_macs else None
        max_params = anchor.params if with_params else None
        counted = BudgetedSpace(
            space, Budget(max_macs=max_macs, max_params=max_params), costs=costs
        )
        inside = [
            total.macs
            for total in totals
            if (max_macs is None or total.macs <= max_macs)
            and (max_params is None or total.params <= max_params)
        ]
        assert counted.macs_range_in_budget == (min(inside), max(inside))
        if with_params:
            assert counted.macs_span == counted.macs_range_in_budget
        else:
            # What stored studies have drawn from: up to the bound itself.
            most = max(total.macs for total in totals)
            assert counted.macs_span == (min(inside), min(most, max_macs or most))


def test_some_members_are_counted_drawn_and_repaired_like_a_space_of_their_own() -> None:
    space = Space.load("digit-count-vit")
    whole = BudgetedSpace(space)
    chosen = [whole[number] for number in range(3, whole.size, 101)]
    counted = BudgetedSpace(space, among=chosen)
    assert counted.in_budget == len(chosen) == 60 and counted.size == whole.size
    assert set(counted.enumerate()) == set(chosen)
    assert (counted.macs_range, counted.params_range) == (whole.macs_range, whole.params_range)
    macs = [CostModel(space.backbone).totals(placement).macs for placement in chosen]
    assert counted.macs_range_in_budget == (min(macs), max(macs))
    assert all(placement in counted for placement in chosen)
    assert sum(placement in counted for placement in whole.enumerate()) == 60
    encoding = Encoding(counted)
    rng = random.Random(0)
    for _ in range(100):
        assert counted.sample(rng) in chosen
        repaired = encoding.repair(encoding.decode(Encoding(whole).encode(whole.sample(rng))))
        assert repaired in chosen
    half = sorted(macs)[29]
    within = BudgetedSpace(space, Budget(max_macs=half), among=chosen)
    assert within.in_budget == sum(m <= half for m in macs)


def test_members_to_choose_from_are_of_the_space_and_inside_the_budget() -> None:
    space = Space.load("digit-count-vit")
    with pytest.raises(InputError, match="E1/s7 is not a member of digit-count-vit"):
        BudgetedSpace(space, among=[Placement.parse("V4"), Placement.parse("E1/s7")])
    with pytest.raises(InputError, match="no member of digit-count-vit lies inside the budget"):
        BudgetedSpace(space, Budget(max_macs=100), among=[Placement.parse("V4")])
    with pytest.raises(InputError, match="none of the members of digit-count-vit to choose from"):
        BudgetedSpace(space, among=[])
