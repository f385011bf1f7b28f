"""The model-based searcher: no repeats, exact replay, pending trials, budgets, what it learns."""

import random

import numpy as np
import pytest
from fakes import Fake, Inline
from lab import SPACE, Lab

from sharedattn.costs.model import CostModel
from sharedattn.objectives import parse_objectives
from sharedattn.results.accuracy_model.fitting import LEAST_RESULTS
from sharedattn.results.front.pareto import hypervolume
from sharedattn.search.searchers import SEARCHERS, PastTrial, candidates
from sharedattn.search.searchers.candidates import DrawnCandidates, candidates_of
from sharedattn.search.searchers.model_search import NUM_BANDS, ModelSearcher, _fitted_size
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.encoding import Encoding
from sharedattn.spaces.features import PlacementFeatures
from sharedattn.spaces.space import Space

OBJECTIVES = parse_objectives(("top1", "macs"))
KINDS = {"V": 0.3, "L": 0.2, "E": 0.12, "N": 0.02}


@pytest.fixture(scope="module")
def space():
    return BudgetedSpace(Space.load("digit-pairs-vit"), Budget(max_macs=900_000))


@pytest.fixture
def drawn(monkeypatch):
    """Makes every space one that is too large to be listed."""
    monkeypatch.setattr(candidates, "MAX_LISTED", 7)
    monkeypatch.setattr(candidates, "NUM_BLOCKS", 5)
    monkeypatch.setattr(candidates, "DRAWS_PER_BLOCK", 13)


def make(space, seed=5, objectives=OBJECTIVES):
    return ModelSearcher(space, objectives, seed=seed, num_trials=31, study_attributes={})


def true_top1(placement):
    gain = sum(KINDS[layer.kind] + 0.05 * layer.cb for layer in placement.layers)
    return 0.5 + 0.45 * (1.0 - np.exp(-3.0 * gain))


def trial_of(space, number, placement, objectives=OBJECTIVES, **changes):
    costs = CostModel(space.space.backbone)
    noise = random.Random(str(placement)).gauss(0.0, 0.01)
    known = [float(o.value_of(costs, placement)) for o in objectives[1:] if o.value_of]
    # A latency that follows the depth.
    measured = [1.0 + len(placement.layers) for o in objectives[1:] if not o.value_of]
    values = (min(1.0, true_top1(placement) + noise), *known, *measured)
    return PastTrial(
        number=number, placement=placement, attributes={}, **{"values": values, **changes}
    )


def searched(searcher, space, num_trials, objectives=OBJECTIVES, begin=0):
    """The placements of one trial after the other."""
    found = []
    for number in range(begin, num_trials):
        placement = searcher.ask(number, 0).placement
        trial = trial_of(space, number, placement, objectives)
        searcher.accept(trial)
        searcher.tell(trial)
        found.append(placement)
    return found


def test_after_the_first_trials_nothing_is_proposed_twice(space):
    found = searched(make(space), space, 40)
    assert len(set(found[LEAST_RESULTS:])) == len(found) - LEAST_RESULTS
    assert not set(found[:LEAST_RESULTS]) & set(found[LEAST_RESULTS:])
    assert all(placement in space for placement in found)


def test_the_first_trials_cover_the_costs(space):
    costs = CostModel(space.space.backbone)
    searcher = make(space)
    found = [searcher.ask(number, 0).placement for number in range(1, 1 + NUM_BANDS)]
    least, most = space.macs_span
    bands = [(costs.totals(p).macs - least) * NUM_BANDS / (most - least) for p in found]
    for expected, band in zip((0, 3, 6, 2, 5, 1, 4), bands, strict=True):
        assert expected <= band <= expected + 1


def test_a_few_results_suffice_for_the_model(space):
    searcher = make(space)
    searched(searcher, space, LEAST_RESULTS)
    assert searcher.ask(LEAST_RESULTS, 0).placement == searcher._ranked(4, 4)[0]


@pytest.mark.parametrize("large", [False, True])
def test_a_new_object_that_is_told_the_same_goes_on_alike(space, large, request):
    if large:
        request.getfixturevalue("drawn")
    searcher = make(space)
    found = searched(searcher, space, 29)
    again = make(space)
    assert isinstance(again._candidates, DrawnCandidates) == large
    for number, placement in enumerate(found[:17]):
        trial = trial_of(space, number, placement)
        again.accept(trial)
        again.tell(trial)
    assert searched(again, space, 29, begin=17) == found[17:]


def test_what_runs_is_not_proposed_and_counts_as_expected(space):
    searcher = make(space)
    searched(searcher, space, 14)
    alone = [searcher.ask(14, attempt).placement for attempt in range(3)]
    batch = []
    for number in range(14, 22):
        placement = searcher.ask(number, 0).placement
        searcher.accept(PastTrial(number=number, placement=placement, attributes={}))
        batch.append(placement)
    assert batch[0] == alone[0]
    assert len(set(batch)) == 8
    # Without the belief, the second is the next best of the first ranking.
    ranked = make(space)
    for number, (placement, *_) in enumerate(searcher._told):
        trial = trial_of(space, number, placement)
        ranked.accept(trial)
        ranked.tell(trial)
    order = ranked._ranked(14, 14)
    assert order[0] == batch[0]
    assert list(order[:8]) != batch


def test_failed_trials_teach_nothing_and_are_not_proposed_again(space):
    searcher = make(space)
    searched(searcher, space, 12)
    refused = searcher.ask(12, 0).placement
    trial = trial_of(space, 12, refused, values=None, failed=True)
    searcher.accept(trial)
    searcher.tell(trial)
    assert len(searcher._told) == 12 and not searcher._pending
    assert searcher.ask(13, 0).placement != refused


def test_a_model_finds_more_of_the_front_than_its_control(space):
    members = list(space.enumerate())
    costs = CostModel(space.space.backbone)
    points = {p: (true_top1(p), costs.totals(p).macs) for p in members}
    reference = {"top1": 0.5, "macs": 1.1 * space.macs_range[1]}
    full = hypervolume(np.array(list(points.values())), OBJECTIVES, reference)

    def regret(name, seed):
        searcher = SEARCHERS[name](
            space, OBJECTIVES, seed=seed, num_trials=24, study_attributes={}
        )
        found = searched(searcher, space, 24)
        return 1 - hypervolume(np.array([points[p] for p in found]), OBJECTIVES, reference) / full

    ours, control = (
        np.mean([regret(n, seed) for seed in (1, 2)]) for n in ("model", "stratified")
    )
    assert ours < 0.5 * control


@pytest.mark.parametrize(
    "names", [("top1", "macs", "params"), ("top1", "macs", "latency_ms"), ("top1", "latency_ms")]
)
def test_more_costs_and_measured_ones_are_served(space, names):
    objectives = parse_objectives(names)
    searcher = make(space, objectives=objectives)
    found = searched(searcher, space, 13, objectives)
    assert len(set(found[LEAST_RESULTS:])) == 9
    again = make(space, objectives=objectives)
    for number, placement in enumerate(found[:11]):
        trial = trial_of(space, number, placement, objectives)
        again.accept(trial)
        again.tell(trial)
    assert searched(again, space, 13, objectives, begin=11) == found[11:]


def test_expected_latencies_come_near_the_true_ones(space):
    objectives = parse_objectives(("top1", "latency_ms"))
    searcher = make(space, objectives=objectives)
    searched(searcher, space, 20, objectives)
    table = searcher._candidates.of([space[i] for i in range(0, space.in_budget, 13)])
    model = searcher._model(1, range(20), searcher._candidates.of(()))
    expected = [1.0 + len(placement.layers) for placement in table.placements]
    assert model.predict_mean(table.features) == pytest.approx(expected, abs=0.3)


def test_scales_are_fitted_at_fixed_numbers_of_results():
    sizes = [_fitted_size(num) for num in range(LEAST_RESULTS, 40)]
    assert sizes == sorted(sizes)
    assert [_fitted_size(num) for num in (4, 5, 6, 24, 25)] == [4, 5, 6, 22, 22]
    assert sorted(set(sizes)) == [4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 19, 22, 26, 31, 37]


def test_drawn_candidates_are_draws_and_neighbours_of_the_front(space, drawn):
    encoding = Encoding(space)
    found = candidates_of(space, OBJECTIVES[1:], PlacementFeatures(space), encoding, 3)
    seen = found.of([space[5], space[6]])
    table = found.unseen(4, seen, [space[5]])
    assert len(set(table.placements)) == len(table.placements) > 13
    assert not {space[5], space[6]} & set(table.placements)
    assert all(placement in space for placement in table.placements)
    neighbours = set(found._variation.neighbours(space[5])) - {space[6]}
    assert neighbours <= set(table.placements)
    later = found.unseen(5, seen, [space[5]])
    # All draws but one block's are those of the trial before.
    assert len(set(table.placements) - set(later.placements)) <= 13
    assert table.placements != later.placements
    costs = CostModel(space.space.backbone)
    macs = [costs.totals(placement).macs for placement in table.placements]
    assert table.costs[:, 0] == pytest.approx(np.array(macs) / (1.1 * space.macs_range[1]))
    near = found.near([space[5]], table.keys)
    assert not set(near.placements) & set(table.placements)


@pytest.mark.parametrize("num_slots", [1, 3])
def test_a_study_taken_up_goes_on_as_one_that_never_stopped(tmp_path, num_slots):
    space = BudgetedSpace(Space.from_document(SPACE))
    labs = [Lab(tmp_path / name, space) for name in ("stopped", "whole")]
    for lab, parts in zip(labs, ((13, 23), (23,)), strict=True):
        lab.folder.mkdir()
        for num_trials in parts:
            lab.run(
                searcher="model",
                num_trials=num_trials,
                executor=Inline(Fake(), num_slots=num_slots, rng=random.Random(1)),
                deterministic=True,
            )
    stopped, whole = (lab.history() for lab in labs)
    assert stopped == whole
    assert len({row[1] for row in whole}) == 23
