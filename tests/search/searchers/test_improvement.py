"""Expected improvement of a hypervolume: by hand, by Monte Carlo, and against our hypervolume."""

import numpy as np
import pytest
from scipy.stats import norm

from sharedattn.objectives import parse_objectives
from sharedattn.results.accuracy_model.scores import scores_of, top1_of
from sharedattn.results.front.pareto import hypervolume
from sharedattn.search.searchers.improvement import KnownFront, expected_improvement

SURE = np.array([1e-9])


def test_an_improvement_solved_by_hand():
    # k = exp(-m) = 0.5: d = 0, so 0.5 * 0.5 - 0.5 * exp(0.5) * Phi(-1).
    mean = np.array([np.log(2.0)])
    found = expected_improvement(mean, np.ones(1), np.array([0.55]))
    assert found == pytest.approx(0.25 - 0.5 * np.exp(0.5) * 0.1586553, abs=1e-7)
    level = np.array([0.5])
    sure = scores_of(np.array([0.75, 0.25]))
    assert expected_improvement(sure, SURE, level) == pytest.approx([0.25, 0.0], abs=1e-8)


def test_an_improvement_is_what_draws_give():
    mean, sd, level = 1.3, 0.4, 0.72
    draws = top1_of(norm.ppf((np.arange(100_000) + 0.5) / 100_000, mean, sd))
    found = expected_improvement(np.array([mean]), np.array([sd]), np.array([level]))
    assert found == pytest.approx(np.maximum(draws - level, 0.0).mean(), rel=1e-4)


def test_the_volume_under_stairs_solved_by_hand():
    # Stairs of 0.5 below cost 0.25, of 0.6 from there, of 0.8 from 0.5 on; costs end at 1.
    front = KnownFront(np.array([0.8, 0.6, 0.55]), np.array([[0.5], [0.25], [0.75]]), 0.5)
    mean = np.array([0.7, 0.7, 0.9, 0.9, 0.55])
    costs = np.array([[0.125], [0.375], [0.375], [0.5], [0.0]])
    expected = [
        0.125 * 0.2 + 0.25 * 0.1,
        0.125 * 0.1,
        0.125 * 0.3 + 0.5 * 0.1,
        0.5 * 0.1,
        0.25 * 0.05,
    ]
    found = front.improvements(scores_of(mean), np.full(5, 1e-9), costs)
    assert found == pytest.approx(expected, abs=1e-8)


def test_an_empty_front_is_improved_by_the_whole_box():
    front = KnownFront(np.empty(0), np.empty((0, 1)), 0.5)
    assert front.improvements(scores_of(np.array([0.75])), SURE, np.array([[0.6]]))[
        0
    ] == pytest.approx(0.1)


@pytest.mark.parametrize("num_costs", [1, 2])
def test_the_closed_form_is_what_draws_give(num_costs):
    rng = np.random.default_rng(7)
    names = ("top1", "macs", "params")[: num_costs + 1]
    objectives = parse_objectives(names)
    reference = dict(zip(names, (0.5, 1.0, 1.0), strict=False))
    accuracies, costs = rng.uniform(0.5, 0.9, 11), rng.uniform(0.1, 0.9, (11, num_costs))
    front = KnownFront(accuracies, costs, 0.5)
    mean, sd = scores_of(np.array([0.8, 0.62])), np.array([0.2, 0.25])
    at = rng.uniform(0.1, 0.5, (2, num_costs))
    found = front.improvements(mean, sd, at)
    points = np.column_stack([accuracies, costs])

    def volume(extra):
        # Our hypervolume is a share of a box half as high.
        return 0.5 * hypervolume(np.vstack([points, extra]), objectives, reference)

    for i in range(2):
        draws = top1_of(norm.ppf((np.arange(500) + 0.5) / 500, mean[i], sd[i]))
        gains = [volume([[top1, *at[i]]]) - volume(np.empty((0, len(names)))) for top1 in draws]
        # Two costs are integrated over 1,024 points.
        assert found[i] == pytest.approx(np.mean(gains), rel=0.01 if num_costs == 1 else 0.06)
