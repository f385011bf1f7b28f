"""The weights of questions: closed forms, pairs of members, sampling."""

from itertools import combinations

import numpy as np
import pytest

from sharedattn.results.explanation import contrasts as module
from sharedattn.results.explanation.contrasts import Members, SpaceContrasts, Topic
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space


@pytest.fixture(scope="module")
def space():
    return BudgetedSpace(Space.load("digit-pairs-vit"), Budget(max_macs=1_100_000))


@pytest.fixture(scope="module")
def contrasts(space):
    return SpaceContrasts(space)


def question(contrasts, text):
    asked = (*contrasts.main, *contrasts.layers, *contrasts.interactions)
    return next(one for one in asked if one.text == text)


def test_at_equal_macs_an_effect_is_a_weighted_mean_over_pairs():
    rng = np.random.default_rng(3)
    values, top1 = rng.integers(0, 4, 31).astype(float), rng.uniform(size=31)
    weights = Members(values[:, None], np.full(31, 7.0)).weights_of(values)
    pairs = [(i, j) for i, j in combinations(range(31), 2) if values[i] != values[j]]
    slopes = [(top1[i] - top1[j]) / (values[i] - values[j]) for i, j in pairs]
    by = [(values[i] - values[j]) ** 2 for i, j in pairs]
    assert weights @ top1 == pytest.approx(np.average(slopes, weights=by))


def test_weights_match_macs_in_every_bin_and_count_one_more(contrasts):
    members = contrasts.every
    answered = [asked for asked in contrasts.main if asked.weights is not None]
    assert len(answered) > 5
    for asked in answered:
        values = asked.count(members.raw)
        assert asked.weights @ values == pytest.approx(1.0)
        for rows in members.bins:
            assert asked.weights[rows].sum() == pytest.approx(0.0, abs=1e-9)
            assert asked.weights[rows] @ members.macs[rows] == pytest.approx(0.0, abs=1e-3)


def test_what_is_worth_the_same_everywhere_is_found_exactly(contrasts):
    members = contrasts.every
    asked = question(contrasts, "one more layer of vanilla attention")
    top1 = 0.5 + 0.07 * asked.count(members.raw) + 1e-7 * members.macs
    assert asked.weights @ top1 == pytest.approx(0.07)
    assert asked.fewer is not None
    one, other = (
        question(contrasts, f"one more {text}").count(members.raw)
        for text in ("layer of vanilla attention", "DIA unit")
    )
    both = question(
        contrasts, "one more layer of vanilla attention together with one more DIA unit"
    )
    assert both.weights @ (0.3 * one + 0.2 * other - 0.1 * one * other) == pytest.approx(-0.1)
    bent = question(contrasts, "one more DIA unit, each beyond the one before")
    # 0.2, then 0.2 - 0.06.
    assert bent.weights @ (0.23 * other - 0.03 * other**2) == pytest.approx(-0.06)


def test_depths_slots_and_layers_compare_the_members_that_have_them(contrasts):
    members = contrasts.every
    depth = question(contrasts, "a depth of 2 instead of 1")
    depths = {len(contrasts.members[i].layers) for i in np.flatnonzero(depth.weights)}
    assert depths == {1, 2} and depth.topic is Topic.DEPTH
    slots = question(contrasts, "twice the memory slots of external attention")
    with_slots = [contrasts.members[i] for i in np.flatnonzero(slots.weights)]
    assert with_slots and all(any(x.kind == "E" for x in p.layers) for p in with_slots)
    second = question(contrasts, "external attention in layer 2")
    assert all(len(contrasts.members[i].layers) > 1 for i in np.flatnonzero(second.weights))
    assert second.weights @ second.count(members.raw) == pytest.approx(1.0)


@pytest.mark.parametrize(("slots", "asked"), [("[8]", False), ("[8, 16]", True)])
def test_slots_are_asked_of_only_where_a_space_has_several(slots, asked):
    text = f"""name: slots
backbone: vit(depth=3,embed_dim=6,num_heads=2,patch_size=4)@8
order: any
stages:
  - depth: 3
    counts: {{V: 0..3, E: 0..2}}
    slots: {slots}
"""
    contrasts = SpaceContrasts(BudgetedSpace(Space.from_yaml(text, "slots.yaml")))
    assert any("memory slots" in one.text for one in contrasts.main) == asked


def test_what_macs_decide_has_no_weights():
    rng = np.random.default_rng(3)
    macs = np.sort(rng.uniform(size=97))
    members = Members(np.zeros((97, 1)), macs)
    assert members.weights_of(3.0 * macs + 1.0) is None
    assert members.weights_of(np.ones(97)) is None
    # Three members that differ are too few.
    few = np.zeros(97)
    few[[5, 50, 90]] = 1.0
    assert members.weights_of(few) is None


def test_blocks_of_convolutions_are_compared_with_none():
    contrasts = SpaceContrasts(BudgetedSpace(Space.load("digit-count-resnet")))
    assert {one.letter for one in contrasts.layers} == {"V"}
    found = {one.text for one in contrasts.main if one.stage == 1}
    assert "one more residual block" in found and "one more SE unit" in found
    third = [one for one in contrasts.layers if (one.stage, one.position) == (2, 1)]
    top1 = 0.25 * third[0].count(contrasts.every.raw)
    assert third[0].weights @ top1 == pytest.approx(0.25)


def test_a_sample_of_members_is_as_far_off_as_its_variance_says(monkeypatch):
    space = BudgetedSpace(Space.load("digit-pairs-vit"))
    whole = SpaceContrasts(space)
    monkeypatch.setattr(module, "MAX_LISTED", 1009)
    monkeypatch.setattr(module, "NUM_DRAWN", 1009)
    sampled = SpaceContrasts(space)
    assert sampled.missing_share == pytest.approx(1.0 - 1009 / space.in_budget)
    place = {member: i for i, member in enumerate(whole.members)}
    rows = [place[member] for member in sampled.members]
    rng, ratios = np.random.default_rng(5), []
    pairs = [
        (one, other)
        for one, other in zip(whole.main, sampled.main, strict=True)
        if one.weights is not None and other.weights is not None
    ]
    weights = np.array([other.weights for _, other in pairs])
    for _ in range(40):
        top1 = rng.normal(size=len(whole.members))
        off = weights @ top1[rows] - np.array([one.weights @ top1 for one, _ in pairs])
        ratios.append(off**2 / sampled.sampling_variance(weights, top1[rows]))
    assert np.sqrt(np.mean(ratios)) == pytest.approx(1.0, abs=0.25)
    assert not whole.sampling_variance(np.array([whole.main[0].weights]), top1).any()
