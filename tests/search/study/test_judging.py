"""Judgements at rungs without a loop: peers, what is committed, what the searcher hears."""

from types import SimpleNamespace

import pytest
from fakes import Staged
from lab import SPACE

from sharedattn.costs.model import CostModel
from sharedattn.placement import Placement
from sharedattn.results.records import EpochMetrics, RungRow, TrialState
from sharedattn.search.pruners import Pruner
from sharedattn.search.study.context import Visibility
from sharedattn.search.study.judging import RungJudge
from sharedattn.spaces.space import Space

PLACEMENT = Placement.parse("V4")
COSTS = CostModel(Space.from_document(SPACE).backbone)
MACS = COSTS.totals(PLACEMENT).macs


class BelowBest(Pruner):
    """Stops a trial where a peer was better, and keeps the numbers of the peers it was shown."""

    name = "below-best"

    def __init__(self):
        super().__init__(rungs=(1, 2))
        self.shown = []

    def document(self):
        return {}

    def should_prune(self, trial, epoch, peers):
        self.shown.append((trial.number, epoch, [peer.number for peer in peers]))
        return any(peer.top1 > trial.top1 for peer in peers)


class Writer:
    """Keeps what would be committed."""

    def __init__(self):
        self.written = []

    def report_rung(self, trial_id, report, *, attempt):
        self.written.append(("goes on", trial_id, attempt, report))

    def prune_trial(self, trial_id, report, *, attempt):
        self.written.append(("pruned", trial_id, attempt, report))


def judge_of(pruner, *, waits=True, lag=1, stored=()):
    driver = Writer()
    context = SimpleNamespace(
        driver=driver,
        store=SimpleNamespace(trials=SimpleNamespace(rung_reports=lambda study: stored)),
        study=None,
        costs=COSTS,
        evaluator=Staged(),
    )
    judge = RungJudge(context, pruner, Visibility(waits=waits, lag=lag))
    judge.restore()
    return judge, driver


def judge_at(judge, number, epoch, top1, attempt=1):
    report = EpochMetrics(epoch=epoch, top1=top1, loss=0.5)
    return judge.lets_on(number, PLACEMENT, report, trial_id=number + 10, attempt=attempt)


def test_a_judgement_is_committed_and_never_taken_back():
    judge, driver = judge_of(BelowBest())
    assert judge_at(judge, 0, 1, 0.5)
    assert not judge_at(judge, 1, 1, 0.25)
    assert driver.written == [
        ("goes on", 10, 1, EpochMetrics(1, 0.5, 0.5)),
        ("pruned", 11, 1, EpochMetrics(1, 0.25, 0.5)),
    ]
    # Another attempt reports its rungs again: nothing is judged or written for it.
    assert judge_at(judge, 0, 1, 0.125, attempt=2)
    assert not judge_at(judge, 1, 1, 0.75, attempt=2)
    assert len(driver.written) == 2


@pytest.mark.parametrize(
    ("waits", "lag", "shown"),
    [(True, 1, [0, 1, 2]), (True, 3, [0]), (False, 1, [0, 1, 2, 4])],
)
def test_peers_are_those_that_the_proposal_might_have_known(waits, lag, shown):
    pruner = BelowBest()
    judge, _ = judge_of(pruner, waits=waits, lag=lag)
    for number in (4, 0, 2, 1, 3):
        judge_at(judge, number, 1, 0.5)
    assert pruner.shown[-1] == (3, 1, shown)


def test_stored_judgements_are_peers_and_stay():
    pruner = BelowBest()
    stored = [
        RungRow(0, EpochMetrics(1, 0.5, 0.5), MACS, goes_on=True),
        RungRow(1, EpochMetrics(1, 0.25, 0.5), MACS, goes_on=False),
    ]
    judge, driver = judge_of(pruner, stored=stored)
    assert judge_at(judge, 0, 1, 0.0, attempt=2)
    assert not judge_at(judge, 1, 1, 1.0, attempt=2)
    assert not judge_at(judge, 2, 1, 0.375)
    assert pruner.shown == [(2, 1, [0, 1])]
    assert [kind for kind, *_ in driver.written] == ["pruned"]


def test_without_a_pruner_all_go_on_and_their_own_accuracy_is_told():
    judge, driver = judge_of(None)
    assert judge_at(judge, 0, 1, 0.5)
    assert judge_at(judge, 1, 1, 0.25)
    assert [kind for kind, *_ in driver.written] == ["goes on"] * 2
    assert judge.told_accuracies(0, TrialState.COMPLETE, 0.75) == (0.75,)
    assert judge.told_accuracies(1, TrialState.FAILED, None) == ()


def test_with_a_pruner_the_rungs_that_it_reached_are_told_of_every_trial():
    judge, _ = judge_of(BelowBest())
    judge_at(judge, 0, 1, 0.5)
    judge_at(judge, 0, 2, 0.625)
    judge_at(judge, 1, 1, 0.25)
    judge_at(judge, 2, 1, 0.75)
    assert judge.told_accuracies(0, TrialState.COMPLETE, 0.875) == (0.5, 0.625, 0.875)
    assert judge.told_accuracies(1, TrialState.PRUNED, None) == (0.25,)
    assert judge.told_accuracies(2, TrialState.RUNNING, None) == ()
    assert judge.told_accuracies(2, TrialState.FAILED, None) == ()


def test_a_reused_evaluation_passes_the_rungs_of_its_curve():
    judge, driver = judge_of(BelowBest())
    judge_at(judge, 0, 1, 0.5)
    curve = [
        {"epoch": epoch, "validation": {"top1": epoch / 8, "loss": 0.5, "num_images": 7}}
        for epoch in (1, 2, 3)
    ]
    known = SimpleNamespace(learning_curve=curve)
    judge.let_pass(1, PLACEMENT, known, trial_id=11, attempt=1)
    assert driver.written[1:] == [
        ("goes on", 11, 1, EpochMetrics(1, 0.125, 0.5)),
        ("goes on", 11, 1, EpochMetrics(2, 0.25, 0.5)),
    ]
    assert judge.told_accuracies(1, TrialState.COMPLETE, 0.375) == (0.125, 0.25, 0.375)
