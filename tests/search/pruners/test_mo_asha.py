"""MO-ASHA: hand-solved judgements, what holds of all of them, and whole searches with it."""

import itertools
import random

import pytest
from fakes import DriverKilledError, Inline, Staged
from lab import SPACE, Lab

from sharedattn.errors import InputError
from sharedattn.results.database.store import Store
from sharedattn.results.records import TrialRole, TrialState
from sharedattn.search.pruners import RungPoint, default_rungs
from sharedattn.search.pruners.mo_asha import MoAsha, num_better
from sharedattn.search.searchers import SEARCHERS
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space


def rule(**changes):
    return MoAsha(**{"rungs": (1, 2), "reduction_factor": 3, **changes})


def points(*values):
    return [RungPoint(number, top1, macs) for number, (top1, macs) in enumerate(values)]


def goes_on(pruner, *values):
    """Whether the last of some trials goes on, judged by those before it."""
    *peers, trial = points(*values)
    return not pruner.should_prune(trial, 1, peers)


@pytest.mark.parametrize(
    ("epochs", "ratio", "rungs"),
    [(2, 3, (1,)), (4, 3, (1,)), (6, 3, (1, 2)), (9, 3, (1, 3)), (300, 3, (33, 100)),
     (16, 4, (1, 4)), (16, 2, (4, 8))],
)  # fmt: skip
def test_default_rungs_stand_at_a_ratio_and_its_square(epochs, ratio, rungs):
    assert default_rungs(epochs, ratio) == rungs


def test_one_epoch_has_no_rung():
    with pytest.raises(InputError, match="no epoch to judge trials at in 1 epochs"):
        default_rungs(1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rungs": ()}, "`rungs` is empty"),
        ({"reduction_factor": 1}, "`reduction_factor` is 1; give one above 1"),
    ],
)
def test_values_out_of_range_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        rule(**changes)


def test_the_first_goes_on_and_so_do_the_best_third():
    pruner = rule()
    assert goes_on(pruner, (0.5, 150))
    # Second of two and second of three are not among the best third, second of four is.
    assert not goes_on(pruner, (0.9, 150), (0.5, 150))
    assert not goes_on(pruner, (0.9, 150), (0.1, 150), (0.5, 150))
    assert goes_on(pruner, (0.9, 150), (0.1, 150), (0.2, 150), (0.5, 150))
    assert goes_on(pruner, (0.8, 150), (0.1, 150), (0.9, 150))


@pytest.mark.parametrize(
    ("values", "better"),
    [
        ((0.90, 450), 0),  # dominates one end of the front, and is it now
        ((0.60, 401), 0),  # cheaper than all: the other end
        ((0.80, 410), 2),  # equal to the one in the middle: after the ends, before no one
        # Spans of 0.2 and 50. Its distance is 0.1 / 0.2 + 45 / 50, of 0.80 it is then
        # 0.15 / 0.2 + 15 / 50; and the next one's is 0.1 / 0.2 + 5 / 50.
        ((0.85, 420), 2),
        ((0.75, 407), 3),
        ((0.80, 415), 3),  # dominated by one, and so of the second front, after all of the first
        ((0.65, 460), 3),
    ],
)
def test_the_rank_is_by_dominance_then_crowding(values, better):
    others = points((0.90, 455), (0.80, 410), (0.70, 405))
    assert num_better(RungPoint(9, *values), others) == better


def dominates(one, other):
    return (
        one.top1 >= other.top1
        and one.macs <= other.macs
        and (one.top1, one.macs) != (other.top1, other.macs)
    )


def random_points(rng):
    """Trials at a rung, with many equal values."""
    count = rng.randint(2, 14)
    return [RungPoint(n, rng.randint(0, 8) / 8, rng.randrange(100, 501, 25)) for n in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_who_dominates_goes_on_where_the_dominated_does(seed):
    rng = random.Random(seed)
    num_pairs = 0
    for _ in range(20):
        pruner = rule(reduction_factor=rng.choice([2, 3, 4]))
        everybody = random_points(rng)
        judged = {
            point: not pruner.should_prune(point, 1, [p for p in everybody if p is not point])
            for point in everybody
        }
        for one, other in itertools.permutations(everybody, 2):
            if dominates(one, other):
                assert judged[one] >= judged[other]
                num_pairs += 1
        # Judged by all others, at least the best part goes on, rounded up.
        assert sum(judged.values()) >= -(-len(judged) // pruner.reduction_factor)
    assert num_pairs > 100


@pytest.mark.parametrize("seed", range(4))
def test_a_judgement_is_one_of_values_and_not_of_their_order(seed):
    rng = random.Random(seed)
    trial, *peers = random_points(rng)
    pruner = rule()
    found = pruner.should_prune(trial, 1, peers)
    for _ in range(10):
        rng.shuffle(peers)
        assert pruner.should_prune(trial, 1, peers) is found
        assert pruner.should_prune(trial, 2, tuple(peers)) is found


# Whole searches


@pytest.fixture(scope="module")
def space():
    return BudgetedSpace(Space.from_document(SPACE))


@pytest.fixture
def lab(tmp_path, space):
    return Lab(tmp_path, space)


@pytest.fixture
def pruner():
    return rule()


def reports(lab, name="study"):
    with Store.open(lab.url) as store:
        return store.trials.rung_reports(store.study(name))


@pytest.mark.parametrize("searcher", ["nsga2", "random"])
def test_a_search_ends_with_all_its_trials_and_a_front_of_complete_ones(lab, searcher, pruner):
    summary = lab.run(
        searcher=searcher, num_trials=60, executor=Inline(Staged(noise=0.3)), pruner=pruner
    )
    search = [row for row in summary.rows if row.role is TrialRole.SEARCH]
    assert [row.number for row in search] == list(range(60))
    states = {row.number: row.state for row in search}
    assert set(states.values()) == {TrialState.COMPLETE, TrialState.PRUNED}
    stopped = {report.number for report in reports(lab) if not report.goes_on}
    assert stopped == {n for n, state in states.items() if state is TrialState.PRUNED}
    assert not stopped & {member.number for member in summary.front.members}
    # A third of 60 at most goes on from the second rung but for the first ones.
    assert 5 <= sum(state is TrialState.COMPLETE for state in states.values()) <= 20
    # The judgements are those of the rule, each by what was there before it.
    seen = {1: [], 2: []}
    for report in reports(lab):
        epoch = report.metrics.epoch
        point = RungPoint(report.number, report.metrics.top1, report.macs)
        assert report.goes_on is not pruner.should_prune(point, epoch, seen[epoch])
        seen[epoch].append(point)
    assert len(seen[1]) == 60


def test_the_searcher_learns_from_stopped_trials(lab, pruner, space):
    executor = Inline(Staged(noise=0.3))
    summary = lab.run(searcher="nsga2", num_trials=60, executor=executor, pruner=pruner)
    generations = {
        attribute
        for trial in lab.history()
        for attribute in trial[5].items()
        if "generation" in attribute[0]
    }
    # Populations of 11: told of complete trials alone, 60 of them would fill the first one only.
    assert max(value for _, value in generations) >= 4
    placements = [row.placement for row in summary.rows if row.role is TrialRole.SEARCH]
    searcher = SEARCHERS["random"](space, (), seed=3, num_trials=60, study_attributes={})
    at_random = [str(searcher.ask(number, 0).placement) for number in range(1, 60)]
    assert placements[12:] != at_random[11:]


@pytest.mark.parametrize("searcher", ["nsga2", "random"])
def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(
    tmp_path, space, lab, searcher, pruner
):
    def ended(lab):
        return (
            lab.history(),
            sorted(reports(lab), key=lambda row: (row.number, row.metrics.epoch)),
            sorted(member.number for member in lab.summary().front.members),
        )

    (tmp_path / "other").mkdir()
    other = Lab(tmp_path / "other", space)
    options = {"searcher": searcher, "num_trials": 18, "confirm_seeds": 2, "pruner": pruner}
    other.run(**options, executor=Inline(Staged(noise=0.3)))
    for kill_after in (1, 8, 25):
        with pytest.raises(DriverKilledError):
            lab.run(**options, executor=Inline(Staged(noise=0.3), die_after=kill_after))
    lab.run(**options, executor=Inline(Staged(noise=0.3)))
    assert ended(lab) == ended(other)
