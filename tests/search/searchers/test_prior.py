"""What an earlier study's results add to the features of a placement, and to a search."""

import numpy as np
import pytest

from sharedattn.costs.model import CostModel
from sharedattn.objectives import parse_objectives
from sharedattn.results.accuracy_model.gaussian_process import GaussianProcess, GroupKernel
from sharedattn.results.accuracy_model.scores import scores_of
from sharedattn.results.front.pareto import hypervolume
from sharedattn.search.searchers import PastTrial
from sharedattn.search.searchers.model_search import ModelSearcher
from sharedattn.search.searchers.prior import GROUP, PRIOR_NOTE, PriorFeatures
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.features import PlacementFeatures
from sharedattn.spaces.space import Space

OBJECTIVES = parse_objectives(("top1", "macs"))
KINDS = {"V": 0.3, "L": 0.2, "E": 0.12, "N": 0.02}


@pytest.fixture(scope="module")
def space():
    return BudgetedSpace(Space.load("digit-pairs-vit"), Budget(max_macs=900_000))


@pytest.fixture(scope="module")
def members(space):
    return list(space.enumerate())


def true_top1(placement):
    gain = sum(KINDS[layer.kind] + 0.05 * layer.cb for layer in placement.layers)
    return 0.5 + 0.45 * (1.0 - np.exp(-3.0 * gain))


def earlier(members, seed, worth=lambda placement: 0.8 * true_top1(placement)):
    """31 accuracies of shorter trainings, with noise."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(members), 31, replace=False)
    return {members[i]: worth(members[i]) + rng.normal(0.0, 0.01) for i in chosen}


def test_the_added_feature_is_the_score_that_earlier_results_predict(space, members):
    plain, results = PlacementFeatures(space), earlier(members, 3)
    features = PriorFeatures(plain, results)
    assert features.groups[GROUP].tolist() == [len(plain.keys)]
    assert {name: features.groups[name].tolist() for name in plain.groups} == {
        name: columns.tolist() for name, columns in plain.groups.items()
    }
    shown = features.of(members[:97])
    assert np.array_equal(shown[:, :-1], plain.of(members[:97]))

    # The same process by hand, conditioned on every result.
    inputs, scores = plain.of(list(results)), scores_of(np.array(list(results.values())))
    kernel = GroupKernel(plain.groups)
    scales = kernel.fitted(inputs, (scores - scores.mean()) / scores.std())
    process = GaussianProcess.of(
        kernel, scales, inputs, scores, mean=scores.mean(), spread=scores.std()
    )
    expected = (process.predict_mean(plain.of(members[:97])) - scores.mean()) / scores.std()
    assert shown[:, -1] == pytest.approx(expected, abs=1e-9)
    # Between its results, too, it says which members are the better ones.
    every = features.of(members)[:, -1]
    assert np.corrcoef(every, [true_top1(member) for member in members])[0, 1] > 0.97


def regret(space, members, prior, seed, num_trials=12):
    costs = CostModel(space.space.backbone)
    searcher = ModelSearcher(
        space,
        OBJECTIVES,
        seed=seed,
        num_trials=num_trials,
        study_attributes={PRIOR_NOTE: {str(p): top1 for p, top1 in prior.items()}}
        if prior
        else {},
    )
    rng, points = np.random.default_rng(seed), []
    for number in range(num_trials):
        placement = searcher.ask(number, 0).placement
        macs = costs.totals(placement).macs
        points.append((true_top1(placement), macs))
        seen = min(1.0, true_top1(placement) + rng.normal(0.0, 0.01))
        trial = PastTrial(
            number=number, placement=placement, attributes={}, values=(seen, float(macs))
        )
        searcher.accept(trial)
        searcher.tell(trial)
    reference = {"top1": 0.5, "macs": 1.1 * space.macs_range[1]}
    every = np.array([(true_top1(p), costs.totals(p).macs) for p in members])
    full = hypervolume(every, OBJECTIVES, reference)
    return 1 - hypervolume(np.array(points), OBJECTIVES, reference) / full


def test_a_prior_that_knows_helps_even_if_its_order_is_the_reverse(space, members):
    def mean_regret(prior_of):
        return np.mean([regret(space, members, prior_of(seed), seed) for seed in (1, 2, 3)])

    without = mean_regret(lambda seed: {})
    knowing = mean_regret(lambda seed: earlier(members, seed))
    reversed_order = mean_regret(
        lambda seed: earlier(members, seed, lambda placement: 1.4 - true_top1(placement))
    )
    assert max(knowing, reversed_order) < 0.3 * without


def test_results_without_any_difference_add_a_column_of_zeros(space, members):
    features = PriorFeatures(PlacementFeatures(space), dict.fromkeys(members[:13], 0.6))
    assert np.abs(features.of(members)[:, -1]).max() < 1e-6
