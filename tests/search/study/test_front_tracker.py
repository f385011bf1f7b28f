"""The search's front, trial by trial, against fronts that were drawn by hand."""

import random

import numpy as np
import pytest

from sharedattn.objectives import parse_objectives
from sharedattn.results.front.pareto import non_dominated, to_losses
from sharedattn.search.study.front_tracker import CompleteTrial, FrontTracker

OBJECTIVES = parse_objectives(("top1", "macs"))
REFERENCE = {"top1": 0.5, "macs": 100.0}


def trial(number, top1, macs):
    return CompleteTrial(number=number, evaluation_key=f"key {number}", values=(top1, macs))


@pytest.fixture
def tracker():
    return FrontTracker(OBJECTIVES, REFERENCE)


def test_each_trial_changes_the_front_as_drawn_by_hand(tracker):
    change = tracker.add(trial(0, 0.75, 60.0))
    # A box of 1/2 of the accuracies above the reference's times 2/5 of its MACs.
    assert change.snapshot.hypervolume == pytest.approx(0.5 * 0.4)
    assert (change.snapshot.num_complete, change.snapshot.members) == (1, (0,))
    assert change.off == ()

    change = tracker.add(trial(1, 0.7, 80.0))
    assert change.snapshot is None
    assert change.off == ("key 1",)

    change = tracker.add(trial(2, 0.6, 20.0))
    # The second stair: 1/5 of the accuracies, and 2/5 of the MACs more than the first.
    assert change.snapshot.hypervolume == pytest.approx(0.5 * 0.4 + 0.2 * 0.4)
    assert (change.snapshot.num_complete, change.snapshot.members) == (3, (0, 2))
    assert change.off == ()

    change = tracker.add(trial(3, 0.8, 20.0))
    assert change.snapshot.members == (3,)
    assert change.snapshot.hypervolume == pytest.approx(0.6 * 0.8)
    assert change.off == ("key 0", "key 2")


def test_equal_trials_are_both_on_the_front(tracker):
    tracker.add(trial(0, 0.75, 60.0))
    change = tracker.add(trial(1, 0.75, 60.0))
    assert change.snapshot.members == (0, 1)
    assert change.off == ()


@pytest.mark.parametrize("objectives", [("top1", "macs"), ("top1", "macs", "params")])
def test_one_at_a_time_or_all_at_once_make_the_same_front(objectives):
    rng = random.Random(5)
    chosen = parse_objectives(objectives)
    reference = dict.fromkeys(objectives, 20.0) | {"top1": 0.0}
    # Few values, so that many are equal in one objective or in all.
    trials = [
        CompleteTrial(
            number=number,
            evaluation_key=str(number),
            values=(rng.randint(0, 9) / 10, *(float(rng.randint(1, 9)) for _ in chosen[1:])),
        )
        for number in range(60)
    ]
    by_one, members = FrontTracker(chosen, reference), ()
    for given in trials[:50]:
        change = by_one.add(given)
        members = members if change.snapshot is None else change.snapshot.members
    values = np.array([given.values for given in trials[:50]])
    assert members == tuple(np.flatnonzero(non_dominated(to_losses(values, chosen))))
    at_once = FrontTracker(chosen, reference)
    at_once.restore(trials[:50])
    for given in trials[50:]:
        assert at_once.add(given) == by_one.add(given)


def test_a_study_without_a_complete_trial_begins_with_none(tracker):
    tracker.restore([])
    assert tracker.add(trial(4, 0.75, 60.0)).snapshot.num_complete == 1
