"""Spaces of the front door: counted, listed, drawn, bounded."""

import pytest

import sharedattn as sa


def test_a_space_is_counted_listed_and_drawn(space):
    members = list(space.members())
    assert space.size == len(members) == len(set(members))
    drawn = space.sample(5, seed=1)
    assert drawn == space.sample(5, seed=1) != space.sample(5, seed=2)
    assert set(drawn) <= set(members) and len(set(drawn)) == 5
    assert drawn[0] in space and "V4" not in space


def test_bounds_are_numbers_or_texts_and_add_up(space):
    inside = space.within(max_macs="50k")
    assert inside.size == space.within(max_macs=50_000).size < space.size
    assert all(sa.cost(inside.network(p)).macs <= 50_000 for p in inside.sample(20))
    # The narrower one of two bounds counts.
    assert inside.within(max_macs="1M").budget == inside.budget
    both = inside.within(max_params=1500)
    assert dict(both.budget.bounds) == {"macs": 50_000, "params": 1500}
    assert repr(both).endswith("macs <= 50000 and params <= 1500>")
    # Of two lower bounds the higher one.
    between = inside.within(min_macs="45k").within(min_macs=40_000)
    assert 0 < between.size < inside.size
    assert all(45_000 <= sa.cost(space.network(p)).macs <= 50_000 for p in between.sample(20))
    # Shares of the backbone as published narrow as numbers do, but not together with them.
    half = space.within(max_macs="50.5%").within(max_macs="75%")
    whole = sa.cost(space.network("V4")).macs
    assert half.size == space.within(max_macs=505 * whole // 1000).size < space.size
    with pytest.raises(sa.InputError, match="`max_macs` is 60%, and 50000 before; give both as"):
        inside.within(max_macs="60%")


@pytest.mark.parametrize(
    ("bounds", "rule"),
    [
        ({"min_params": 3}, "`min_params` is no bound"),
        ({"max_macs": "50k", "min_macs": "51k"}, "min_macs is 51000, more than max_macs, 50000"),
        ({"max_joules": 3}, "joules"),
        ({"max_macs": "much"}, "much"),
        ({"max_macs": 0}, "the bound on macs is 0"),
        ({"max_macs": "0%"}, "leaves nothing; give a share above 0%"),
        ({"max_macs": "5%", "min_macs": "6 %"}, "min_macs is 6%, more than max_macs, 5%"),
    ],
)
def test_bounds_are_checked(space, bounds, rule):
    with pytest.raises(sa.InputError, match=rule):
        space.within(**bounds)


def test_a_preset_by_name():
    assert sa.Space.load("digit-pairs-vit").size == 6039
