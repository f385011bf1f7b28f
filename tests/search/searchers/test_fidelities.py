"""What the accuracies at later rungs and at the end add to a search that stops trials."""

import numpy as np
import pytest

from sharedattn.costs.model import CostModel
from sharedattn.objectives import parse_objectives
from sharedattn.results.accuracy_model.gaussian_process import GaussianProcess, GroupKernel
from sharedattn.results.accuracy_model.scores import scores_of
from sharedattn.results.front.pareto import hypervolume
from sharedattn.search.searchers import PastTrial, model_search
from sharedattn.search.searchers.fidelities import Fidelities, kernel_above
from sharedattn.search.searchers.model_search import ModelSearcher
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space

OBJECTIVES = parse_objectives(("top1", "macs"))
KINDS = {"V": 0.3, "L": 0.2, "E": 0.12, "N": 0.02}


@pytest.fixture(scope="module")
def space():
    return BudgetedSpace(Space.load("digit-pairs-vit"), Budget(max_macs=900_000))


def final_top1(placement):
    gain = sum(KINDS[layer.kind] + 0.05 * layer.cb for layer in placement.layers)
    return 0.5 + 0.45 * (1.0 - np.exp(-3.0 * gain))


def early_top1(placement):
    """The dearer a network, the later it learns: the reverse order."""
    return 1.2 - 0.8 * final_top1(placement)


def make(space, seed=5):
    return ModelSearcher(space, OBJECTIVES, seed=seed, num_trials=31, study_attributes={})


def trial_of(costs, number, placement, noise=0.0, *, every=True):
    """Every third trial ends, the others stop at the first of two rungs."""
    early, late = (
        float(np.clip(top1 + noise, 0.0, 1.0))
        for top1 in (early_top1(placement), final_top1(placement))
    )
    accuracies = (early, 0.25 * early + 0.75 * late, late) if number % 3 == 0 else (early,)
    return PastTrial(
        number=number,
        placement=placement,
        attributes={},
        values=(early, float(costs.totals(placement).macs)),
        accuracies=accuracies if every else (),
    )


def searched(searcher, space, num_trials, begin=0, *, every=True, seed=3):
    costs, rng = CostModel(space.space.backbone), np.random.default_rng(seed)
    noises = rng.normal(0.0, 0.01, num_trials)
    found = []
    for number in range(begin, num_trials):
        placement = searcher.ask(number, 0).placement
        trial = trial_of(costs, number, placement, noises[number], every=every)
        searcher.accept(trial)
        searcher.tell(trial)
        found.append(placement)
    return found


def test_each_fidelity_takes_the_one_below_as_its_last_feature():
    rng = np.random.default_rng(7)
    groups = {"one": np.array([0, 1]), "other": np.array([2])}
    few, many, asked = rng.normal(size=(5, 3)), rng.normal(size=(11, 3)), rng.normal(size=(7, 3))
    low, high = rng.normal(2.0, 0.5, 11), rng.normal(-1.0, 0.1, 5)
    kernels = [GroupKernel(groups), kernel_above(groups, 3)]
    assert kernel_above(groups, 3).groups[-1].tolist() == [3]
    # As strong as all others together, before anything is known.
    linear = np.exp(kernels[1].prior_mean[:3])
    assert linear[2] == pytest.approx(3 * linear[0])

    def process(kernel, features, outputs):
        mean, spread = outputs.mean(), outputs.std()
        scales = kernel.fitted(features, (outputs - mean) / spread)
        return GaussianProcess.of(kernel, scales, features, outputs, mean=mean, spread=spread)

    first = process(kernels[0], many, low)
    column = (first.predict_mean(few) - low.mean()) / low.std()
    second = process(kernels[1], np.column_stack([few, column]), high)
    model = Fidelities((first, second))
    inputs = np.column_stack([asked, (first.predict_mean(asked) - low.mean()) / low.std()])
    assert model.predict_mean(asked) == pytest.approx(second.predict_mean(inputs), abs=1e-12)
    for shown, expected in zip(model.predict(asked), second.predict(inputs), strict=True):
        assert shown == pytest.approx(expected, abs=1e-12)
    assert Fidelities(()).above(asked) is asked
    assert Fidelities((first,)).predict_mean(asked) == pytest.approx(first.predict_mean(asked))
    above = model.above(asked)
    assert np.array_equal(above[:, :3], asked)
    scaled = (second.predict_mean(inputs) - high.mean()) / high.std()
    assert above[:, 3] == pytest.approx(scaled, abs=1e-12)


def test_accuracies_are_predicted_as_they_end(space):
    """Of 24 trials 8 end, and the order at the first rung is the reverse of the end's."""
    searcher = make(space)
    searched(searcher, space, 24)
    members = [space[i] for i in range(0, space.in_budget, 7)]
    final = np.array([final_top1(member) for member in members])
    features = searcher._candidates.of(members).features
    nothing = searcher._candidates.of(())
    every = searcher._model(0, range(24), nothing)
    assert len(every.processes) == 3
    means = every.predict_mean(features)
    assert np.corrcoef(means, scores_of(final))[0, 1] > 0.9

    told_less = make(space)
    searched(told_less, space, 24, every=False)
    first = told_less._model(0, range(24), nothing)
    assert len(first.processes) == 1
    assert np.corrcoef(first.predict_mean(features), scores_of(final))[0, 1] < -0.5


def test_a_fidelity_counts_once_it_has_enough_results(space):
    searcher = make(space)
    nothing = searcher._candidates.of(())
    for num_trials, num_fidelities in ((4, 1), (9, 1), (10, 3)):
        searched(searcher, space, num_trials, begin=len(searcher._told))
        rows = range(num_trials)
        assert len(searcher._model(0, rows, nothing).processes) == num_fidelities


def test_a_stopped_trial_is_on_no_front(space, monkeypatch):
    fronts = []

    class Front(model_search.KnownFront):
        def __init__(self, top1, costs, chance):
            fronts.append(costs[:, 0].tolist())
            super().__init__(top1, costs, chance)

    monkeypatch.setattr(model_search, "KnownFront", Front)
    searcher = make(space)
    found = searched(searcher, space, 22)
    told = searcher._candidates.of(found).costs[:, 0].tolist()
    # Trial 0, 3, ... end; trial 21 saw 21 results.
    assert set(fronts[-1]) <= {told[number] for number in range(0, 21, 3)}
    assert len(fronts[-1]) > 1


def test_a_new_object_that_is_told_the_same_goes_on_alike(space):
    searcher = make(space)
    found = searched(searcher, space, 26)
    again = make(space)
    costs = CostModel(space.space.backbone)
    noises = np.random.default_rng(3).normal(0.0, 0.01, 26)
    # It was never asked before, so that no scales were fitted on the way.
    for number, placement in enumerate(found[:25]):
        trial = trial_of(costs, number, placement, noises[number])
        again.accept(trial)
        again.tell(trial)
    assert again.ask(25, 0).placement == found[25]


def test_it_finds_more_than_a_searcher_that_knows_the_first_rung_alone(space):
    costs = CostModel(space.space.backbone)
    points = {p: (final_top1(p), costs.totals(p).macs) for p in space.enumerate()}
    reference = {"top1": 0.5, "macs": 1.1 * space.macs_range[1]}
    full = hypervolume(np.array(list(points.values())), OBJECTIVES, reference)

    def regret(seed, every):
        # Fifteen of them end.
        found = searched(make(space, seed), space, 43, every=every, seed=seed)
        complete = np.array([points[placement] for placement in found[::3]])
        return 1 - hypervolume(complete, OBJECTIVES, reference) / full

    every, first = (np.mean([regret(seed, e) for seed in (1, 2, 3)]) for e in (True, False))
    assert every < 0.4 * first
