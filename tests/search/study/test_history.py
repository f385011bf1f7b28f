"""What a searcher hears of trials, and when: by hand, for each way to order them."""

import pytest

from sharedattn.placement import Placement
from sharedattn.search.searchers import PastTrial
from sharedattn.search.study.context import Visibility
from sharedattn.search.study.history import SearchHistory

PLACEMENTS = [Placement.parse(f"V{depth}") for depth in range(1, 9)]


class Listener:
    """Stands for a searcher, and keeps what it is told."""

    def __init__(self):
        self.heard = []

    def accept(self, trial, parameters=None):
        self.heard.append(("accept", trial.number, parameters))

    def tell(self, trial):
        self.heard.append(("tell", trial.number, trial.values, trial.failed))


def past(number, **changes):
    return PastTrial(number=number, placement=PLACEMENTS[number], attributes={}, **changes)


@pytest.mark.parametrize(
    ("deterministic", "num_slots", "waits", "lag"),
    [(False, 1, True, 1), (True, 1, True, 1), (False, 3, False, 1), (True, 3, True, 6)],
)
def test_what_a_trial_may_know_of(deterministic, num_slots, waits, lag):
    found = Visibility.of(deterministic=deterministic, num_slots=num_slots)
    assert found == Visibility(waits=waits, lag=lag)


def test_trials_are_told_by_number_once_a_proposal_may_know():
    searcher = Listener()
    history = SearchHistory(searcher, Visibility(waits=True, lag=2))
    for number in range(3):
        history.start(past(number), {"number": number})
    assert searcher.heard == [("accept", n, {"number": n}) for n in range(3)]
    assert history.seen == set(PLACEMENTS[:3])
    history.end(2, (0.5, 1.0))
    history.end(1, None, failed=True)
    history.end(0, (0.25, 2.0))
    searcher.heard.clear()
    history.tell_before(3)
    assert searcher.heard == [("tell", 0, (0.25, 2.0), False), ("tell", 1, None, True)]
    history.tell_before(3)
    assert len(searcher.heard) == 2
    history.tell_before(4)
    assert searcher.heard[2:] == [("tell", 2, (0.5, 1.0), False)]


def test_a_trial_waits_for_those_that_it_is_to_know():
    history = SearchHistory(Listener(), Visibility(waits=True, lag=2))
    for number in range(2):
        assert history.may_start(number)
        history.start(past(number), {})
    assert not history.may_start(2)
    assert history.num_ended == 0
    history.end(1, (0.5, 1.0))
    assert not history.may_start(2)
    history.end(0, (0.5, 1.0))
    assert history.may_start(2)
    assert history.num_ended == 2
    eager = SearchHistory(Listener(), Visibility(waits=False, lag=1))
    eager.start(past(0), {})
    assert eager.may_start(1)


def test_a_replay_tells_what_the_run_has_told():
    searcher = Listener()
    history = SearchHistory(searcher, Visibility(waits=True, lag=1))
    history.restore(past(0, values=(0.5, 1.0)), has_ended=True)
    history.restore(past(1, failed=True), has_ended=True)
    history.restore(past(2), has_ended=False)
    assert searcher.heard == []
    history.replay()
    assert [heard[:2] for heard in searcher.heard] == [
        ("accept", 0), ("tell", 0), ("accept", 1), ("tell", 1), ("accept", 2)
    ]  # fmt: skip
    assert history.num_ended == 2
    assert not history.may_start(3)


def test_a_replay_at_once_leaves_all_to_be_told_in_order():
    searcher = Listener()
    history = SearchHistory(searcher, Visibility(waits=True, lag=1))
    for number in range(3):
        history.restore(past(number, values=(0.5, 1.0)), has_ended=True)
    history.replay_at_once()
    history.tell_all()
    history.tell_all()
    assert [heard[:2] for heard in searcher.heard] == [
        *[("accept", n) for n in range(3)], *[("tell", n) for n in range(3)]
    ]  # fmt: skip
