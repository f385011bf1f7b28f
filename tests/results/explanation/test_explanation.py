"""Explanations of made-up studies whose truth is known."""

import json
import random
from datetime import datetime
from itertools import count

import numpy as np
import pytest

from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.placement import Placement
from sharedattn.results.explanation.contrasts import SpaceContrasts
from sharedattn.results.explanation.explanation import Explainer, Verdict, explain
from sharedattn.results.explanation.lines import (
    by_price,
    clear_effects,
    interaction_line,
    model_line,
    price_cells,
    silent_lines,
)
from sharedattn.results.explanation.observations import Observations
from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records import Study
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space
from sharedattn.spaces.stratified import StratifiedSampler

KINDS = {"V": 0.09, "L": 0.07, "E": 0.04, "N": 0.0}
NOISE = 0.01
BUDGET = {"max_macs": 1_100_000, "max_params": None}


@pytest.fixture(scope="module")
def space():
    return BudgetedSpace(Space.load("digit-pairs-vit"), Budget.from_document(BUDGET))


@pytest.fixture(scope="module")
def contrasts(space):
    return SpaceContrasts(space)


def true_top1(placement):
    return 0.55 + sum(KINDS[layer.kind] + 0.03 * layer.cb for layer in placement.layers)


def trainings(space, num, seed, among=lambda placement: True):
    """Stratified trials with noise."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    strata, costs = StratifiedSampler(space, 8), CostModel(space.space.backbone)
    chosen: dict[Placement, None] = {}
    for draw in count():
        if len(chosen) == num:
            break
        placement = strata.sample_from(rng, draw)
        if among(placement):
            chosen[placement] = None
    top1 = [min(1.0, true_top1(p) + NOISE * noise.normal()) for p in chosen]
    macs = [costs.totals(p).macs for p in chosen]
    return Observations(tuple(map(str, chosen)), tuple(macs), tuple(top1), "accuracies")


def summary_of(make_study, make_row, space, observations):
    record = make_study(
        space=space.space.to_document(), fingerprint_document=BUDGET, confirm_seeds=1
    )
    rows = [
        make_row(number, placement, top1, macs)
        for number, (placement, top1, macs) in enumerate(
            zip(observations.placements, observations.top1, observations.macs, strict=True)
        )
    ]
    began = datetime(2026, 11, 21)
    study = Study(id=1, record=record, created_at=began, finished_at=None)
    return StudySummary(study, rows)


def test_intervals_cover_what_is_true_at_their_rate(space, contrasts):
    # A small version of benchmarks/explain_coverage.py.
    truth = np.array([true_top1(member) for member in contrasts.members])
    hits, asked = 0, 0
    for seed in range(5):
        explainer = Explainer(space, trainings(space, 31, seed), contrasts)
        found = explainer.explanation("made up", [])
        questions = (*contrasts.main, *contrasts.layers)
        for effect, question in zip((*found.effects, *found.layers), questions, strict=True):
            if effect.top1 is not None:
                hits += effect.top1.low <= question.weights @ truth <= effect.top1.high
                asked += 1
                if effect.verdict is Verdict.CLEAR:
                    assert effect.top1.mean * (question.weights @ truth) > -1e-4
        assert 0.3 * NOISE < found.noise < 3 * NOISE
        assert found.left_out_error < 0.5 * found.spread
    assert asked > 70
    assert 0.8 <= hits / asked


@pytest.fixture(scope="module")
def found(space, contrasts):
    observations = trainings(space, 41, 7)
    order = sorted(range(41), key=lambda i: observations.macs[i])
    front = [Placement.parse(observations.placements[i]) for i in order[::10]]
    return Explainer(space, observations, contrasts).explanation("made up", front)


def test_what_is_clear_is_said_and_the_rest_is_one_line(found):
    said = {effect.text: top1.mean for effect, top1 in clear_effects(found)}
    assert said["context broadcasting in one more layer"] == pytest.approx(0.03, abs=0.01)
    assert list(said.values()) == sorted(said.values(), reverse=True)
    silent = [e.text for e in found.effects if e.verdict is not Verdict.CLEAR]
    lines = silent_lines(found)
    assert silent and all(sum(text in line for line in lines) == 1 for text in silent)
    assert len(lines) <= 4
    assert "41 placements: accuracies; one training's noise is about " in model_line(found)
    assert f"of {found.num_interactions} interactions asked" in interaction_line(found)


def test_the_next_point_is_priced_by_true_gains(found):
    (price,) = found.prices
    costs = CostModel(Space.load("digit-pairs-vit").backbone)
    before, after = map(Placement.parse, price.example)
    assert costs.totals(after).macs > costs.totals(before).macs
    assert price.verdict is Verdict.CLEAR
    per_point = price.macs_per_point
    assert per_point.mean == pytest.approx(0.01 * price.macs / price.top1.mean)
    assert per_point.low < per_point.mean < per_point.high
    assert price_cells(found, price)[0] == "any layer"
    assert by_price(found.prices) == [price]


def test_the_predicted_front_rises_and_knows_what_was_tried(found, space):
    macs = [one.macs for one in found.front]
    means = [one.top1.mean for one in found.front]
    assert macs == sorted(macs) and means == sorted(means)
    assert any(one.tried for one in found.front) and not all(one.tried for one in found.front)
    assert all(Placement.parse(one.placement) in space for one in found.front)


def test_what_was_tried_counts_though_the_model_keeps_few_of_many(space, contrasts):
    observations = trainings(space, 61, seed=5)
    explainer = Explainer(space, observations, contrasts)
    whole = explainer._front(())
    assert any(one.tried for one in whole)
    explainer._tried = []  # as if none of them had been kept
    assert explainer._front(list(map(Placement.parse, observations.placements))) == whole


def test_the_document_is_json_and_counts_from_1(found):
    document = json.loads(json.dumps(found.to_json()))
    assert {effect["stage"] for effect in document["effects"]} == {1}
    assert {layer["position"] for layer in document["layers"]} == {1, 2, 3, 4}
    assert document["interactions"]["asked"] == found.num_interactions
    assert document["prices"][0]["macs_per_point"]["mean"] > 0


def test_what_never_varied_is_said_to_be_unseen(space, contrasts):
    plain = trainings(space, 19, 3, among=lambda p: not any(x.cb for x in p.layers))
    found = Explainer(space, plain, contrasts).explanation("made up", [])
    text = "context broadcasting in one more layer"
    (effect,) = (one for one in found.effects if one.text == text)
    assert effect.verdict is Verdict.UNSEEN and effect.top1 is None
    assert f"never varied among the trials: {text}" in silent_lines(found)
    assert found.prices == ()


def test_a_study_that_is_too_small_says_how_many_trials_it_needs(make_study, make_row, space):
    few = trainings(space, 5, 1)
    with pytest.raises(InputError, match=r"has 5 different .* needs 12; it needs 7 more trials"):
        explain(summary_of(make_study, make_row, space, few))
    with pytest.raises(InputError, match="it needs 1 more trial:"):
        explain(summary_of(make_study, make_row, space, trainings(space, 11, 1)))


def test_a_stored_study_is_explained_by_its_own_space_and_budget(make_study, make_row, space):
    observations = trainings(space, 23, 1)
    found = explain(summary_of(make_study, make_row, space, observations))
    assert found.num_placements == 23 and found.study == "digits"
    assert max(one.macs for one in found.front) <= BUDGET["max_macs"]
    assert found == explain(summary_of(make_study, make_row, space, observations))
