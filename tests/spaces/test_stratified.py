from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from sharedattn.errors import InputError
from sharedattn.placement import Placement
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space
from sharedattn.spaces.stratified import StratifiedSampler

Small = tuple[Space, set[Placement]]


def test_bins_part_the_members_of_a_budget(small: Small, costs: Any) -> None:
    space, members = small
    macs = sorted(costs.total(placement).macs for placement in members)
    counted = BudgetedSpace(space, Budget(max_macs=macs[len(macs) * 2 // 3]), costs=costs)
    sampler = StratifiedSampler(counted, 7)
    assert 1 <= len(sampler.filled_bins) <= 7
    of_bins = [counted.num_in_macs_bin(*bin_) for bin_ in sampler.filled_bins]
    assert min(of_bins) >= 1
    assert sum(of_bins) == counted.in_budget
    by_hand = [
        sum(low <= costs.total(placement).macs <= high for placement in counted.enumerate())
        for low, high in sampler.filled_bins
    ]
    assert of_bins == by_hand


def test_bins_are_drawn_from_equally_often(small: Small, costs: Any) -> None:
    counted = BudgetedSpace(small[0], costs=costs)
    sampler = StratifiedSampler(counted, 5)

    def bin_of(placement: Placement) -> int:
        macs = costs.total(placement).macs
        return next(i for i, (low, high) in enumerate(sampler.filled_bins) if low <= macs <= high)

    rng = random.Random(3)
    num_bins = len(sampler.filled_bins)
    drawn = Counter(bin_of(sampler.sample(rng)) for _ in range(300))
    assert set(drawn) == set(range(num_bins))
    assert min(drawn.values()) > 300 / num_bins / 2


def test_many_differ_and_are_spread_as_evenly_as_members_allow(small: Small, costs: Any) -> None:
    counted = BudgetedSpace(small[0], costs=costs)
    sampler = StratifiedSampler(counted, 3)
    count = min(13, counted.in_budget)
    many = sampler.sample_many(random.Random(5), count)
    assert len(set(many)) == count
    assert many == sampler.sample_many(random.Random(5), count)
    sizes = [counted.num_in_macs_bin(*bin_) for bin_ in sampler.filled_bins]
    shares = [
        sum(low <= costs.total(placement).macs <= high for placement in many)
        for low, high in sampler.filled_bins
    ]
    # Nobody gave less than another has, unless it had no more.
    assert all(
        share == size or share >= max(shares) - 1
        for share, size in zip(shares, sizes, strict=True)
    )
    everything = sampler.sample_many(random.Random(5), counted.in_budget)
    assert set(everything) == set(counted.enumerate())
    with pytest.raises(InputError, match="members? (is|are) inside the budget"):
        sampler.sample_many(random.Random(5), counted.in_budget + 1)


def test_at_least_one_band(small: Small, costs: Any) -> None:
    with pytest.raises(ValueError, match="`num_bins` is 0; give at least 1"):
        StratifiedSampler(BudgetedSpace(small[0], costs=costs), 0)


def test_a_bin_gives_no_more_members_than_it_has(small: Small, costs: Any) -> None:
    counted = BudgetedSpace(small[0], costs=costs)
    low, high = counted.macs_range
    many = counted.sample_many_in_macs_bin(random.Random(7), low, high, counted.in_budget)
    assert set(many) == set(counted.enumerate())
    with pytest.raises(ValueError, match="members have"):
        counted.sample_many_in_macs_bin(random.Random(7), low, low, counted.in_budget)
