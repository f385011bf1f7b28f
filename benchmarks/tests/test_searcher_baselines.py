"""Searchers of other tools: the order of evolution by hand, and searches by each that is here."""

import random
from importlib.util import find_spec

import numpy as np
import pytest

from benchmarks.searcher_baselines import (
    BASELINES,
    EvolutionSearcher,
    SyneEHVISearcher,
    fitness_order,
)
from benchmarks.searcher_tables import OBJECTIVES, RuleTable
from benchmarks.searchers import search
from sharedattn.errors import InputError
from sharedattn.search.searchers import PastTrial
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space
from sharedattn.spaces.variation import Variation


@pytest.fixture(scope="module")
def space():
    return BudgetedSpace(Space.load("digit-pairs-vit"), Budget(max_macs=700_000))


def test_the_fittest_are_of_the_first_rank_and_far_from_others():
    # The first four are of rank 0; the next is dominated by two of them, and dominates the last.
    values = np.array([(0.9, 90), (0.5, 10), (0.6, 20), (0.8, 70), (0.5, 25), (0.4, 30)])
    # Crowding inside: 0.3 / 0.4 + 60 / 80 = 1.5 of row 2, 0.3 / 0.4 + 70 / 80 = 1.625 of row 3.
    assert fitness_order(values, OBJECTIVES).tolist() == [0, 1, 3, 2, 4, 5]
    values[[2, 3]] = values[[3, 2]]
    assert fitness_order(values, OBJECTIVES).tolist() == [0, 1, 2, 3, 4, 5]
    assert fitness_order(values[:1], OBJECTIVES).tolist() == [0]


def test_a_child_is_an_edit_of_a_fit_member_of_the_newest(space):
    searcher = EvolutionSearcher(space, OBJECTIVES, seed=0, num_trials=44, study_attributes={})
    assert searcher.num_first == 11
    members = space.sample_many(random.Random(0), 24)
    for number, member in enumerate(members):
        # The older, the better: the oldest have died nevertheless.
        values = (0.9 - 0.01 * number, 100.0 + number)
        trial = PastTrial(number=number, placement=member, attributes={}, values=values)
        searcher.accept(trial)
        searcher.tell(trial)
    variation = Variation(searcher.encoding)
    parents = {m: set(variation.neighbours(m)) for m in members[-11:]}
    children = [searcher.ask(24, attempt).placement for attempt in range(60)]
    edited = [child for child in children if any(child in near for near in parents.values())]
    # One in twenty jumps. The two fittest of each draw are those of the least age.
    assert len(edited) >= 54
    fittest = [child in parents[members[-11]] for child in edited]
    assert sum(fittest) > len(edited) / 11
    assert children == [searcher.ask(24, attempt).placement for attempt in range(60)]


@pytest.mark.parametrize("name", ["evolution", "gp"])
def test_a_search_by_others_is_a_search_like_ours(space, name):
    table = RuleTable(space, "saturating", 3)
    row, again = (search(table, "saturating", name, 3, num_trials=11, slots=2) for _ in range(2))
    assert row.regrets == again.regrets and row.repeats == again.repeats
    assert len(row.regrets) == 11 and 0.0 <= row.regrets[-1] < row.regrets[0] <= 1.0


@pytest.mark.parametrize("name", ["syne-evolution", "syne-ehvi"])
def test_what_is_not_installed_is_named(space, name):
    table = RuleTable(space, "saturating", 3)
    if find_spec("syne_tune") is not None:
        row = search(table, "saturating", name, 3, num_trials=11, slots=1)
        assert 0.0 <= row.regrets[-1] < row.regrets[0] <= 1.0
        return
    with pytest.raises(InputError, match="needs Syne Tune .*; pip install syne-tune botorch"):
        search(table, "saturating", name, 3, num_trials=11, slots=1)


def test_syne_tune_minimises_shares_of_the_box_that_end_at_minus_two(space):
    searcher = SyneEHVISearcher(space, OBJECTIVES, seed=0, num_trials=11, study_attributes={})
    told = []
    searcher.__dict__["_searcher"] = type(
        "Made", (), {"on_trial_complete": lambda self, *told_: told.append(told_)}
    )()
    member = space[7]
    for top1, macs in ((0.5, 1.1 * space.macs_range[1]), (1.0, 0.0)):
        trial = PastTrial(number=3, placement=member, attributes={}, values=(top1, macs))
        searcher.tell(trial)
    assert [metrics for _, _, metrics in told] == [
        pytest.approx([-2.0, -2.0]),
        pytest.approx([-3.0, -3.0]),
    ]
    number, config, _ = told[0]
    choices = searcher.encoding.dimensions
    parameters = {name: choices[name][int(place)] for name, place in config.items()}
    assert number == 3 and searcher.encoding.decode(parameters) == member.stages
    assert set(BASELINES) == {"gp", "evolution", "syne-evolution", "syne-ehvi"}
