"""Proposals without a loop: what is asked, refused, drawn instead, and encoded."""

import random
from types import SimpleNamespace

import pytest
from lab import SPACE

from sharedattn.errors import InputError
from sharedattn.objectives import parse_objectives
from sharedattn.placement import Placement
from sharedattn.search.searchers import Proposal
from sharedattn.search.study.context import StudyContext, Visibility
from sharedattn.search.study.history import SearchHistory
from sharedattn.search.study.proposing import MAX_DRAWS, MAX_PROPOSALS, CheckedBounds, Proposer
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.encoding import Encoding
from sharedattn.spaces.space import Space

COUNTED = BudgetedSpace(Space.from_document(SPACE))
ALL = list(COUNTED.enumerate())
V4 = Placement.parse("V4")
OTHERS = [placement for placement in ALL if placement != V4]


class Scripted:
    """A searcher that proposes by a script, and keeps what it was asked."""

    def __init__(self, script, notes=None):
        self.script = script
        self.others = ()
        self.notes = notes or {}
        self.asked = []
        self.accepted = []
        self.encoding = SimpleNamespace(encode=self._encode)
        self.num_encoded = 0

    def _encode(self, placement):
        self.num_encoded += 1
        return Encoding(COUNTED).encode(placement)

    def ask(self, number, attempt):
        self.asked.append((number, attempt))
        return Proposal(
            placement=self.script(number, attempt),
            proposed={"drawn": attempt},
            attributes={"attempt": attempt},
            study_attributes={"asked": len(self.asked), **self.notes},
        )

    def instead_of(self, refused):
        return self.others

    def generator(self, number, attempt):
        return random.Random(100 * number + attempt)

    def accept(self, trial, parameters=None):
        self.accepted.append((trial.number, trial.placement, parameters))


class Timed:
    """Latencies that are known, but for those that want quiet."""

    def __init__(self, latency_ms, max_ms=None):
        self.latency_ms = latency_ms
        self.max_ms = max_ms

    def needs_quiet(self, spec):
        return True

    def of(self, spec, record):
        return self.latency_ms(spec.placement)


class Desk:
    """A proposer of a study that stands nowhere."""

    def __init__(self, script, *, space=COUNTED, num_trials=10, latencies=None, notes=None):
        self.searcher = Scripted(script, notes)
        self.num_waits = 0
        self.context = StudyContext(
            store=SimpleNamespace(searcher_attributes=lambda study: {"kept": 1}),
            driver=None,
            study=SimpleNamespace(record=SimpleNamespace(num_trials=num_trials)),
            space=space,
            objectives=parse_objectives(("top1", "macs")),
            evaluator=None,
        )
        self.history = SearchHistory(self.searcher, Visibility(waits=True, lag=1))
        self.bounds = CheckedBounds(self.context, latencies, self._wait)
        self.proposer = Proposer(self.context, self.searcher, self.history, self.bounds)

    def _wait(self):
        self.num_waits += 1


def test_the_first_trial_is_the_backbone_as_published_with_the_searchers_notes():
    desk = Desk(lambda number, attempt: OTHERS[0], notes={"kept": 1})
    first = desk.proposer.accept_next()
    assert (first.number, first.placement) == (0, V4)
    assert first.proposed == {}
    assert first.attributes == {"attempt": 0}
    # What stands in the database already is not written again.
    assert first.changed_notes == {"asked": 1}
    assert desk.context.notes == {"kept": 1, "asked": 1}


def test_repeats_are_refused_and_what_is_accepted_is_encoded_once():
    desk = Desk(lambda number, attempt: V4 if attempt < 3 else OTHERS[number])
    desk.proposer.accept_next()
    second = desk.proposer.accept_next()
    assert desk.searcher.asked == [(0, 0), (1, 0), (1, 1), (1, 2), (1, 3)]
    assert (second.placement, second.proposed) == (OTHERS[1], {"drawn": 3})
    assert second.parameters == Encoding(COUNTED).encode(OTHERS[1])
    assert desk.searcher.num_encoded == 2
    assert desk.searcher.accepted[1] == (1, OTHERS[1], second.parameters)
    assert desk.history.seen == {V4, OTHERS[1]}


def test_a_searcher_that_repeats_itself_gets_the_first_unseen_draw():
    desk = Desk(lambda number, attempt: V4)
    desk.proposer.accept_next()
    second = desk.proposer.accept_next()
    assert desk.searcher.asked[1:] == [(1, attempt) for attempt in range(MAX_PROPOSALS)]
    rng = random.Random(100 + MAX_PROPOSALS)
    draws = (COUNTED.sample(rng) for _ in range(MAX_DRAWS))
    assert second.placement == next(placement for placement in draws if placement != V4)
    assert second.proposed == {}


def test_what_a_searcher_has_instead_comes_before_the_draw():
    desk = Desk(lambda number, attempt: V4)
    desk.proposer.accept_next()
    desk.searcher.others = [V4, OTHERS[2], OTHERS[1]]
    assert desk.proposer.accept_next().placement == OTHERS[2]
    third = desk.proposer.accept_next()
    assert (third.placement, third.proposed) == (OTHERS[1], {})
    fourth = desk.proposer.accept_next()
    assert fourth.placement not in (V4, OTHERS[2], OTHERS[1])


def test_the_last_placement_is_found_and_then_none_is_left():
    tight = BudgetedSpace(
        Space.from_document(SPACE), Budget(max_macs=int(1.15 * COUNTED.macs_range[0]))
    )
    few = list(tight.enumerate())
    desk = Desk(lambda number, attempt: few[0], space=tight, num_trials=50)
    assert desk.proposer.num_left == len(few)
    found = {desk.proposer.accept_next().placement for _ in few}
    assert found == set(few)
    assert desk.proposer.exhausted
    assert desk.proposer.num_left == 0


def test_placements_are_timed_when_nothing_runs_and_what_is_slow_is_refused():
    latencies = Timed(lambda placement: 2.0 if placement in OTHERS[:2] else 5.0, max_ms=3.0)
    desk = Desk(lambda number, attempt: OTHERS[number], latencies=latencies)
    first = desk.proposer.accept_next()
    # The backbone as published is too slow: the searcher's own takes its place.
    assert first.placement == OTHERS[0]
    assert desk.context.latency_ms == {V4: 5.0, OTHERS[0]: 2.0}
    assert desk.num_waits == 2
    assert desk.proposer.accept_next().placement == OTHERS[1]
    # The space is small enough for all of it to be timed, and nothing more is fast.
    assert desk.proposer.accept_next() is None
    assert desk.proposer.exhausted
    assert len(desk.context.latency_ms) == len(ALL)


def test_a_bound_that_nothing_meets_names_the_option_and_the_fastest():
    latencies = Timed(lambda placement: 5.0, max_ms=3.0)
    desk = Desk(lambda number, attempt: OTHERS[0], latencies=latencies)
    fastest = rf"--max-latency-ms 3; the fastest of {len(ALL)} takes 5 ms; raise the bound"
    with pytest.raises(InputError, match=fastest):
        desk.proposer.accept_next()
