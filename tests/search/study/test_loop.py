"""The study loop: asked totals, no repeats, resume equals uninterrupted, for every searcher."""

import random
from dataclasses import dataclass, replace

import pytest
import torch
from fakes import (
    Blocked,
    DriverKilledError,
    Dying,
    Fake,
    Inline,
    Raising,
    Staged,
    disk_full,
    start_changed,
)
from lab import SPACE, Lab

from sharedattn.backbones import resolve
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, MechanismOptions, NetworkSpec, Placement
from sharedattn.results.artifacts.blobs import BlobStore
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.results.database.errors import StorageError
from sharedattn.results.database.store import Store
from sharedattn.results.records import AttemptOutcome, EpochMetrics, TrialRole, TrialState
from sharedattn.search.executors import Lost, Preempted
from sharedattn.search.executors.local import LocalExecutor
from sharedattn.search.executors.retries import MAX_DEATHS, MAX_PREEMPTIONS
from sharedattn.search.pruners import Pruner
from sharedattn.search.searchers import SEARCHERS
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space


@pytest.fixture(scope="module")
def space():
    return BudgetedSpace(Space.from_document(SPACE))


@pytest.fixture
def lab(tmp_path, space):
    return Lab(tmp_path, space)


@pytest.fixture
def other_lab(tmp_path, space):
    """A second database: within one, evaluations are shared among studies and not run again."""
    (tmp_path / "other").mkdir()
    return Lab(tmp_path / "other", space)


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_the_asked_total_of_distinct_legal_placements(lab, searcher, space):
    summary = lab.run(searcher=searcher, num_trials=30)
    placements = [row.placement for row in summary.rows]
    assert len(placements) == len(set(placements)) == 30
    assert all(Placement.parse(text) in space for text in placements)
    assert {row.state for row in summary.rows} == {TrialState.COMPLETE}
    assert [row.number for row in summary.rows] == list(range(30))
    assert summary.study.finished_at is not None


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_the_first_trial_is_the_backbone_as_published(lab, searcher):
    assert lab.run(searcher=searcher, num_trials=1).rows[0].placement == "V4"


def test_a_baseline_outside_the_budget_is_not_run(lab):
    tight = BudgetedSpace(Space.from_document(SPACE), Budget(max_macs=40_000))
    summary = lab.run(num_trials=5, space=tight)
    assert all(row.macs <= 40_000 for row in summary.rows)


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_equal_seeds_give_equal_trials(lab, other_lab, searcher):
    for place in (lab, other_lab):
        place.run(searcher=searcher, num_trials=25)
    assert lab.history() == other_lab.history()
    lab.run("another", searcher, num_trials=25, seed=4)
    assert [t[1] for t in lab.history()] != [t[1] for t in lab.history("another")]


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
@pytest.mark.parametrize("kills", [(7,), (1, 5, 6, 13, 20)])
def test_a_killed_search_goes_on_to_the_same_trials(lab, other_lab, searcher, kills):
    whole = Inline(Fake(noise=0.3))
    lab.run(searcher=searcher, num_trials=25, confirm_seeds=3, executor=whole)
    evaluated = []
    for kill in kills:
        executor = Inline(Fake(noise=0.3), die_after=kill - len(evaluated))
        with pytest.raises(DriverKilledError):
            other_lab.run(searcher=searcher, num_trials=25, confirm_seeds=3, executor=executor)
        evaluated += executor.evaluated
    executor = Inline(Fake(noise=0.3))
    other_lab.run(searcher=searcher, num_trials=25, confirm_seeds=3, executor=executor)
    assert other_lab.history() == lab.history()
    # The trial in flight at a kill was not evaluated yet; no other was evaluated twice.
    assert evaluated + executor.evaluated == whole.evaluated
    fronts = [
        [(m.placement, m.top1s) for m in place.summary().front.members]
        for place in (lab, other_lab)
    ]
    assert fronts[0] == fronts[1]


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_with_several_slots_deterministic_means_any_order_of_completion(lab, other_lab, searcher):
    for place, seed in ((lab, 1), (other_lab, 2)):
        executor = Inline(Fake(noise=0.3), num_slots=3, rng=random.Random(seed))
        place.run(searcher=searcher, num_trials=30, deterministic=True, executor=executor)
    assert lab.history() == other_lab.history()


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_a_killed_deterministic_search_of_several_slots(lab, other_lab, searcher):
    def run(place, seed, die_after=None):
        executor = Inline(
            Fake(noise=0.3), num_slots=2, rng=random.Random(seed), die_after=die_after
        )
        place.run(searcher=searcher, num_trials=30, deterministic=True, executor=executor)

    run(lab, 1)
    for seed, die_after in ((2, 9), (3, 8)):
        with pytest.raises(DriverKilledError):
            run(other_lab, seed, die_after)
    run(other_lab, 4)
    assert other_lab.history() == lab.history()


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_more_trials_go_on_where_the_last_ones_ended(lab, searcher):
    lab.run(searcher=searcher, num_trials=20)
    before = lab.history()
    lab.run(searcher=searcher, num_trials=27)
    assert lab.history()[:20] == before
    assert len(lab.history()) == 27


def test_a_finished_study_runs_nothing(lab):
    lab.run(num_trials=9, confirm_seeds=2)
    finished = lab.summary().study.finished_at
    executor = Inline(Fake())
    lab.run(num_trials=9, confirm_seeds=2, executor=executor)
    assert executor.evaluated == []
    assert lab.summary().study.finished_at == finished


def test_evaluations_of_another_study_are_linked_not_made_again(lab):
    lab.run("one", "random", num_trials=20)
    executor = Inline(Fake())
    summary = lab.run("two", "nsga2", num_trials=20, executor=executor)
    known = {row.placement for row in lab.summary("one").rows}
    for row in summary.rows:
        assert row.reused == (row.placement in known)
    assert len(executor.evaluated) == sum(not row.reused for row in summary.rows) < 20


def test_options_that_no_layer_uses_do_not_part_evaluations(lab):
    lab.run("one", "random", num_trials=20)
    backbone = BackboneSpec.parse(SPACE["backbone"])
    options = MechanismOptions(external_expansion=2, dia_reduction=3)
    other = replace(backbone, options=options)
    space = BudgetedSpace(Space.from_document({**SPACE, "backbone": str(other)}))
    summary = lab.run("two", "random", num_trials=20, space=space)
    known = {row.placement for row in lab.summary("one").rows}
    gated = {placement for placement in known if "dia" in placement}
    assert known != gated != set()
    for row in summary.rows:
        assert row.reused == (row.placement in known - gated)
    assert any(row.reused for row in summary.rows)


def test_an_exhausted_space_ends_the_search(lab):
    tiny = BudgetedSpace(
        Space.from_document({**SPACE, "stages": [{"depth": [1, 2], "counts": {"V": [1, 2]}}]})
    )
    assert tiny.in_budget == 2
    for searcher in SEARCHERS:
        summary = lab.run(searcher, searcher, num_trials=10, space=tiny)
        assert {row.placement for row in summary.rows} == {"V1", "V2"}
        assert summary.study.finished_at is not None


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_a_space_is_searched_to_its_last_placement(lab, searcher):
    tight = BudgetedSpace(Space.from_document(SPACE), Budget(max_macs=30_000))
    assert 20 <= tight.in_budget <= 150
    summary = lab.run(searcher=searcher, num_trials=1000, space=tight)
    assert len({row.placement for row in summary.rows}) == len(summary.rows) == tight.in_budget


@pytest.mark.parametrize("nan", [False, True])
def test_a_trial_that_fails_is_stored_with_its_traceback_and_the_search_goes_on(lab, nan):
    summary = lab.run(num_trials=30, executor=Inline(Raising(nan=nan)))
    failed = [row for row in summary.rows if row.state is TrialState.FAILED]
    assert {row.number for row in failed} == {
        row.number for row in summary.rows if "E" in row.placement
    }
    assert 0 < len(failed) < 30
    assert len(summary.rows) == 30
    attempts = lab.attempts()
    for row in failed:
        (attempt,) = attempts[TrialRole.SEARCH, row.number]
        assert attempt.outcome is AttemptOutcome.FAILED
        assert ("`loss` finite" if nan else "MemoryError") in attempt.traceback
        assert row.top1 is None


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_every_searcher_lives_with_failures(lab, searcher):
    summary = lab.run(searcher=searcher, num_trials=40, executor=Inline(Raising()))
    assert summary.count(TrialRole.SEARCH)["running"] == 0
    assert len(summary.rows) == 40


LOST = Lost("the worker was ended by SIGKILL")
TAKEN = Preempted("the node was drained")


def test_a_lost_worker_is_tried_again_and_no_more(lab):
    lab.run("once", num_trials=2, executor=Inline(Fake(), deaths=[LOST] * (MAX_DEATHS - 1)))
    assert lab.summary("once").count(TrialRole.SEARCH)["complete"] == 2
    first, second = lab.attempts("once").values()
    assert [a.outcome for a in first] == [AttemptOutcome.LOST, AttemptOutcome.COMPLETE]
    assert [a.outcome for a in second] == [AttemptOutcome.COMPLETE]
    dying = Inline(Fake(), deaths=[LOST] * MAX_DEATHS)
    lab.run("often", num_trials=1, seed=99, executor=dying)
    (row,) = lab.summary("often").rows
    assert (row.state, row.error) == (TrialState.FAILED, LOST.reason)
    (attempts,) = lab.attempts("often").values()
    assert [a.outcome for a in attempts] == [AttemptOutcome.LOST] * MAX_DEATHS


def test_a_slot_that_is_taken_away_is_no_fault_of_the_trial(lab):
    deaths = [TAKEN] * MAX_DEATHS + [LOST] * (MAX_DEATHS - 1) + [TAKEN]
    lab.run(num_trials=1, executor=Inline(Fake(), deaths=deaths))
    attempts = lab.attempts()[TrialRole.SEARCH, 0]
    outcomes = [attempt.outcome for attempt in attempts]
    assert outcomes == [
        *[AttemptOutcome.PREEMPTED] * MAX_DEATHS,
        *[AttemptOutcome.LOST] * (MAX_DEATHS - 1),
        AttemptOutcome.PREEMPTED,
        AttemptOutcome.COMPLETE,
    ]
    assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))


def test_a_machine_that_takes_every_slot_away_is_given_up(lab):
    lab.run(num_trials=1, executor=Inline(Fake(), deaths=[TAKEN] * MAX_PREEMPTIONS))
    (row,) = lab.summary().rows
    assert (row.state, row.error) == (TrialState.FAILED, TAKEN.reason)
    attempts = lab.attempts()[TrialRole.SEARCH, 0]
    assert len(attempts) == MAX_PREEMPTIONS
    assert {attempt.outcome for attempt in attempts} == {AttemptOutcome.PREEMPTED}


class Best(Pruner):
    """A trial goes on unless one of its peers was better at this rung."""

    name = "best"

    def document(self):
        return {"name": self.name}

    def should_prune(self, trial, epoch, peers):
        return any(peer.top1 > trial.top1 for peer in peers)


def rungs_of(lab, name="study"):
    with Store.open(lab.url) as store:
        return [
            (row.number, row.metrics.epoch, round(row.metrics.top1, 9), row.goes_on)
            for row in store.trials.rung_reports(store.study(name))
        ]


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_trials_are_judged_at_rungs_by_those_before_them(lab, searcher):
    executor = Inline(Staged(noise=0.3))
    summary = lab.run(
        searcher=searcher, num_trials=20, executor=executor, pruner=Best(rungs=(1, 2))
    )
    states = {row.number: row.state for row in summary.rows}
    finals = {
        row.number: Staged(noise=0.3).measure(executor.evaluator.task(spec_of(row), 3)).top1
        for row in summary.rows
    }
    best = 0.0
    expected = []
    for number in range(20):
        for epoch in (1, 2):
            goes_on = finals[number] >= best
            rung = round(finals[number] - 0.1 * (3 - epoch), 9)
            expected.append((number, epoch, rung, goes_on))
            if not goes_on:
                break
        assert states[number] is (TrialState.COMPLETE if goes_on else TrialState.PRUNED)
        best = max(best, finals[number])
    assert rungs_of(lab) == expected
    counts = summary.count(TrialRole.SEARCH)
    assert counts["complete"] + counts["pruned"] == 20
    assert counts["pruned"] == len(executor.stopped) > 0
    # Nothing that was stopped is on a front, or complete in any other sense.
    complete = {n for n, state in states.items() if state is TrialState.COMPLETE}
    assert {member.number for member in summary.front.members} <= complete
    for (_, number), attempts in lab.attempts().items():
        expected_outcome = AttemptOutcome(states[number].value)
        assert [attempt.outcome for attempt in attempts] == [expected_outcome]


def spec_of(row):
    return resolve(
        NetworkSpec(BackboneSpec.parse(SPACE["backbone"]), Placement.parse(row.placement))
    )


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
@pytest.mark.parametrize("num_slots", [1, 3])
def test_a_search_with_rungs_that_is_killed_goes_on_to_the_same_trials(
    lab, other_lab, searcher, num_slots
):
    def run(place, seed, die_after=None):
        executor = Inline(
            Staged(noise=0.3), num_slots=num_slots, rng=random.Random(seed), die_after=die_after
        )
        place.run(
            searcher=searcher,
            num_trials=25,
            deterministic=True,
            executor=executor,
            pruner=Best(rungs=(1, 2)),
        )

    run(lab, 1)
    for seed, die_after in ((2, 5), (3, 1), (4, 12)):
        with pytest.raises(DriverKilledError):
            run(other_lab, seed, die_after)
    run(other_lab, 5)
    assert other_lab.history() == lab.history()
    assert sorted(rungs_of(other_lab)) == sorted(rungs_of(lab))


def test_the_searcher_learns_from_stopped_trials(lab, other_lab):
    """NSGA-II's population is 7 for 24 trials: complete trials alone would never fill it."""
    counts = lab.run(
        searcher="nsga2",
        num_trials=24,
        executor=Inline(Staged(noise=0.3)),
        pruner=Best(rungs=(1, 2)),
    ).count(TrialRole.SEARCH)
    assert counts["complete"] < 7 < counts["pruned"]
    generations = [
        attributes.get("NSGAIISampler:generation") for *_, attributes, _ in lab.history()
    ]
    assert generations == [0] * 7 + [1] * 7 + [2] * 7 + [3] * 3


def test_an_evaluation_that_is_there_passes_its_rungs(lab):
    first = lab.run("one", num_trials=20, executor=Inline(Staged(noise=0.3)))
    executor = Inline(Staged(noise=0.3))
    second = lab.run("two", num_trials=20, executor=executor, pruner=Best(rungs=(1, 2)))
    assert executor.evaluated == [] and executor.stopped == []
    assert [row.top1 for row in second.rows] == [row.top1 for row in first.rows]
    assert rungs_of(lab, "two") == rungs_of(lab, "one")
    assert len(rungs_of(lab, "two")) == 40


@dataclass(frozen=True)
class NanAtRung(Staged):
    def evaluate(self, task, on_progress=None):
        yield EpochMetrics(epoch=1, top1=float("nan"), loss=0.5)


def test_a_rung_that_is_no_number_makes_a_failed_trial(lab):
    executor = Inline(NanAtRung())
    summary = lab.run(num_trials=3, executor=executor, pruner=Best(rungs=(1, 2)))
    assert [row.state for row in summary.rows] == [TrialState.FAILED] * 3
    assert all("`top1` from 0 to 1" in (row.error or "") for row in summary.rows)
    assert rungs_of(lab) == []


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (disk_full, StorageError, "the disk is full: .*No space left on device"),
        (start_changed, InputError, "put those back; the same command goes on, all finished"),
    ],
)
def test_what_blocks_every_trial_stops_the_search_and_loses_nothing(
    lab, other_lab, tmp_path, error, raised, message
):
    folder = tmp_path / "begun"
    folder.mkdir()
    executor = Inline(Blocked(folder=str(folder), error=error))
    with pytest.raises(raised, match=message):
        lab.run(searcher="nsga2", num_trials=12, executor=executor)
    counts = lab.summary().count(TrialRole.SEARCH)
    assert counts == {"complete": 5, "running": 1, "failed": 0, "pruned": 0}
    lab.run(searcher="nsga2", num_trials=12)
    other_lab.run(searcher="nsga2", num_trials=12)
    assert lab.history() == other_lab.history()


def test_front_members_are_confirmed_with_further_seeds(lab):
    executor = Inline(Fake(noise=0.3), num_slots=2, rng=random.Random(0))
    summary = lab.run(num_trials=30, confirm_seeds=3, executor=executor)
    assert summary.front.is_confirmed
    assert all(len(member.runs) == 3 for member in summary.front.members)
    for member in summary.front.members:
        assert [run.seed for run in member.runs] == [3, 4, 5]
    confirmations = [row for row in summary.rows if row.role is TrialRole.CONFIRM]
    assert {row.replicate for row in confirmations} == {1, 2}
    assert len({(r.placement, r.replicate) for r in confirmations}) == len(confirmations)


@dataclass(frozen=True)
class Saving(Fake):
    """Writes weights for every evaluation, also for those whose top1 is above 1 and so fail."""

    weights: WeightsStore | None = None

    def evaluate(self, task, on_progress=None):
        measured = yield from super().evaluate(task)
        sha256 = self.weights.save(task.identity.key, {"x": torch.zeros(3)})
        return replace(measured, weights_sha256=sha256)


def test_only_weights_of_the_front_are_kept(lab, tmp_path):
    weights = WeightsStore(BlobStore(str(tmp_path / "weights")))
    executor = Inline(Saving(noise=0.6, weights=weights))
    summary = lab.run(num_trials=30, confirm_seeds=2, executor=executor, weights=weights)
    assert summary.count(TrialRole.SEARCH)["failed"]
    on_front = {run.evaluation_key for member in summary.front.members for run in member.runs}
    assert weights.keys() == on_front
    assert {row.evaluation_key for row in summary.rows if row.weights_sha256} == on_front


def test_weights_of_attempts_that_were_given_up_go(lab, tmp_path):
    weights = WeightsStore(BlobStore(str(tmp_path / "weights")))
    executor = Inline(Saving(noise=0.3, weights=weights))
    before = lab.run(executor=executor, weights=weights)
    (member, *_) = before.front.members
    late = weights.save(member.best_run.evaluation_key, {"x": torch.ones(3)})
    assert late != member.best_run.weights_sha256
    after = lab.run(executor=executor, weights=weights)
    runs = [run for member in after.front.members for run in member.runs]
    assert {weights.blobs.shown(name) for name in weights.blobs.names()} == {
        weights.shown(run.evaluation_key, run.weights_sha256) for run in runs
    }


def test_weights_that_another_study_may_need_stay(lab, tmp_path):
    weights = WeightsStore(BlobStore(str(tmp_path / "weights")))

    def run(name, num_trials):
        executor = Inline(Saving(noise=0.3, weights=weights))
        return lab.run(name, num_trials=num_trials, executor=executor, weights=weights)

    first = run("one", 12)
    kept = {run.evaluation_key for member in first.front.members for run in member.runs}
    second = run("two", 40)
    assert {row.evaluation_key for row in second.rows if row.reused} >= kept
    assert kept <= weights.keys()


def test_an_evaluation_that_is_there_is_linked_also_after_a_kill(lab, monkeypatch):
    lab.run("one", num_trials=12)

    def die(*_, **__):
        raise DriverKilledError

    # Killed between the row that says RUNNING and the one that links the evaluation.
    with monkeypatch.context() as patch:
        patch.setattr("sharedattn.results.database.writing.StudyWriter.finish_trial", die)
        with pytest.raises(DriverKilledError):
            lab.run("two", num_trials=12)
    executor = Inline(Fake())
    summary = lab.run("two", num_trials=12, executor=executor)
    assert executor.evaluated == []
    assert all(row.reused for row in summary.rows)


def test_snapshots_hold_the_front_as_it_grew(lab):
    summary = lab.run(num_trials=30)
    with Store.open(lab.url) as store:
        snapshots = store.snapshots(summary.study)
    volumes = [snapshot.hypervolume for snapshot in snapshots]
    assert volumes == sorted(volumes)
    assert volumes[-1] == pytest.approx(summary.hypervolume)
    assert set(snapshots[-1].members) == {member.number for member in summary.front.members}


@pytest.mark.slow
def test_real_workers_that_die_once(lab, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    executor = LocalExecutor(Dying(folder=str(marks)), num_slots=1, threads=1)
    executor.evaluator = Dying(folder=str(marks))
    summary = lab.run(num_trials=2, executor=executor)
    assert summary.count(TrialRole.SEARCH)["complete"] == len(list(marks.iterdir())) == 2
