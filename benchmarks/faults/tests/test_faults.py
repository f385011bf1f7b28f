"""Searches hit by faults lose and repeat nothing: a short campaign, and its verdict."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, timedelta

import pytest
from epoch_evaluator import Entry, FillableBlobs
from fakes import Fake, Inline
from fault_campaign import laboratory, prepared_search, run_struck
from fault_page import page
from fault_records import Findings, Planned, Record, Undisturbed, plan
from fault_verdict import Result, Work, violations
from faults import FAULTS, MarkedDisk, small_disk
from lab import SPACE, Lab

from sharedattn.results.database.store import Store
from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records import TrialState
from sharedattn.search.provenance import provenance
from sharedattn.search.run import run_search
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space

NUM_TRIALS = 5


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    """A finished study, whose evaluator seems to have kept weights."""
    lab = Lab(tmp_path_factory.mktemp("lab"), BudgetedSpace(Space.from_document(SPACE)))
    summary = lab.run(num_trials=NUM_TRIALS, executor=Inline(Fake()))
    return replace(summary, rows=[row._replace(weights_sha256="0" * 64) for row in summary.rows])


def changed(summary, which, **changes):
    rows = [r._replace(**changes) if r.number == which else r for r in summary.rows]
    return replace(summary, rows=rows)


def judge(struck, whole, journal=(), stored=None):
    """The verdict on `struck`, if all trials of `whole` had been seen finished."""
    seen = {row.number: row for row in whole.rows if row.finished_at is not None}
    keys = {row.evaluation_key for row in whole.rows} if stored is None else stored
    return violations(struck, Result.of(whole), seen, journal, keys)


class TestVerdict:
    def test_an_undisturbed_search_is_as_demanded(self, summary):
        assert judge(summary, summary) == []

    @pytest.mark.parametrize(
        ("changes", "found"),
        [
            ({"state": TrialState.RUNNING}, "not 5 complete trials, but"),
            ({"top1": 0.123}, "trial 2 was finished and is changed"),
            ({"top1": 0.999}, "the front is not that of an undisturbed search"),
            ({"number": 7}, "trial 2 is lost"),
            ({"number": 7}, "the trials are not those of an undisturbed search"),
        ],
    )
    def test_a_changed_trial_is_found(self, summary, changes, found):
        assert any(
            line.startswith(found) for line in judge(changed(summary, 2, **changes), summary)
        )

    def test_a_trial_that_was_evaluated_twice_is_found(self, summary):
        later = summary.rows[2].finished_at + timedelta(seconds=1)
        assert judge(changed(summary, 2, finished_at=later), summary) == [
            "trial 2 was finished and is changed"
        ]

    def test_a_repeated_placement_is_found(self, summary):
        again = changed(summary, 2, placement=summary.rows[1].placement)
        assert "1 placements repeated" in judge(again, summary)

    def test_an_evaluation_begun_after_the_end_of_its_trial_is_found(self, summary):
        end = summary.rows[2].finished_at.replace(tzinfo=UTC).timestamp()
        before, after = (
            [Entry("study/search-2", "a", 1, epoch, end + s) for epoch in (0, 1)]
            for s in (-0.5, 0.5)
        )
        assert judge(summary, summary, before) == []
        assert judge(summary, summary, after) == ["study/search-2 was begun again after its end"]

    def test_an_unmarked_study_is_found(self, summary):
        unmarked = replace(summary, study=replace(summary.study, finished_at=None))
        assert judge(unmarked, summary) == ["the study is not marked as finished"]

    def test_lost_weights_of_the_front_are_found(self, summary):
        first, *others = [member.number for member in summary.front.members]
        stored = {row.evaluation_key for row in summary.rows if row.number != first}
        assert judge(summary, summary, stored=stored) == [
            f"trials [{first}] are on the front and their weights are lost"
        ]


def test_the_journal_tells_what_was_saved_and_what_was_run_again():
    def attempt(trial, name, *epochs):
        return [Entry(trial, name, 1, epoch, 0.0) for epoch in epochs]

    journal = [
        *attempt("study/search-0", "a", 0, 1, 2, 3),  # whole
        *attempt("study/search-1", "b", 0, 1, 2),  # dies in epoch 3
        *attempt("study/search-1", "c", 2, 3),  # resumes from its checkpoint
        *attempt("study/search-2", "d", 0, 1),  # dies before its checkpoint is written
        *attempt("study/search-2", "e", 0, 1, 2, 3),
    ]
    assert Work.of(journal) == Work(
        attempts=5, retries=2, from_checkpoint=1, epochs_saved=2, epochs_again=1
    )


@pytest.mark.parametrize("is_real", [True, False])
def test_a_disk_is_full_until_there_is_room(tmp_path, is_real):
    folder = tmp_path / "disk"
    blobs = FillableBlobs(str(folder / "weights"))
    with small_disk(folder) as real:  # where this user may mount one
        disk = real if is_real else MarkedDisk(folder)
        blobs.write("a", b"before")
        disk.fill()
        with pytest.raises(OSError, match="No space left on device"):
            blobs.write("a", bytes(5000))
        assert blobs.read("a") == b"before"
        disk.make_room()
        blobs.write("a", bytes(5000))
        assert blobs.read("a") == bytes(5000)


def test_a_plan_has_all_kinds_evenly_and_follows_from_its_seed():
    planned = plan(list(FAULTS), 50, seed=3)
    assert planned == plan(list(FAULTS), 50, seed=3)
    assert planned != plan(list(FAULTS), 50, seed=4)
    assert sorted(Counter(p.kind for p in planned).values()) == [5] * 4 + [6] * 5
    assert [p.run for p in planned] == list(range(50))
    assert {p.kind: 1 for p in planned} == Counter(p.kind for p in planned if p.early)


def test_a_moment_is_counted_from_the_last_step_before_it(summary):
    undisturbed = Undisturbed(Result.of(summary), steps_s=[10.0, 14.0, 15.0], wall_time_s=20.0)
    moments = {
        (True, 0.5): (0, 7.0),
        (True, 0.75): (1, 0.5),
        (False, 0.0): (2, 0.0),
        (False, 0.5): (3, 2.0),
    }
    for (early, fraction), moment in moments.items():
        assert undisturbed.moment(Planned(0, "driver", early, fraction, 0)) == moment


@pytest.fixture
def findings(summary):
    undisturbed = Undisturbed(Result.of(summary), steps_s=[10.0, 14.0, 15.0], wall_time_s=20.0)
    found = {
        "moment_s": 12.5,
        "begun": True,
        "finished_before": 2,
        "messages": [],
        "wall_time_s": 30.0,
        "trials": {"COMPLETE": 5},
        "orphans": 0,
        "files_left": 0,
    }
    records = [
        Record(
            run=0,
            kind="driver",
            done="killed",
            exit_codes=[-9, 0],
            attempts={"COMPLETE": 5, "LOST": 2},
            work=Work(7, 2, 1, 3, 4),
            violations=[],
            **found,
        ),
        Record(
            run=1,
            kind="node",
            done="with its workers",
            exit_codes=[0],
            attempts={"COMPLETE": 5, "PREEMPTED": 1},
            work=Work(6, 1, 1, 2, 0),
            violations=["trial 2 is lost"],
            **found,
        ),
    ]
    return Findings({"trials": 5, "seed": 7}, provenance(), undisturbed, records)


def test_a_campaign_goes_on_from_its_file(findings, tmp_path):
    path = tmp_path / "faults.json"
    assert Findings.load(path, findings.asked, {}) == Findings(findings.asked, {}, None, [])
    findings.save(path)
    assert Findings.load(path, findings.asked, {}) == findings
    with pytest.raises(ValueError, match="holds another campaign, of .*'seed': 7"):
        Findings.load(path, {"trials": 5, "seed": 8}, {})


def test_the_page_adds_up(findings):
    lines = page(findings).splitlines()
    assert "**1 of 2**" in lines[2]
    assert "| driver | 1 | 1 | 2 | 5 | 2 | 0 | 2 | 1 | 3 | 4 | 30 |" in lines
    assert "| node | 1 | 0 | 1 | 5 | 0 | 1 | 1 | 1 | 2 | 0 | 30 |" in lines
    assert "| all | 2 | 1 | 3 | 10 | 2 | 1 | 3 | 2 | 5 | 4 | 30 |" in lines
    assert "| 0 | driver | killed | 12.5 | yes | 2 | -9, 0 | 2 | 0 | 30 | as demanded |" in lines
    last = "| 1 | node | with its workers | 12.5 | yes | 2 | 0 | 0 | 1 | 30 | trial 2 is lost |"
    assert last == lines[-1]


@pytest.fixture
def demanded(tmp_path, monkeypatch):
    """The result of the campaign's search, without cluster, server or separate process."""
    monkeypatch.setattr(
        "sharedattn.search.run._executor", lambda p: Inline(p.evaluator, num_slots=2)
    )
    prepared = prepared_search(tmp_path, trials=NUM_TRIALS, epoch_s=0.0)
    with Store.open(prepared.storage, create=True) as store:
        study = run_search(prepared, store)
        return Result.of(StudySummary.read(store, study))


@pytest.mark.slow
@pytest.mark.ray
def test_searches_on_a_cluster_outlast_faults(demanded):
    pytest.importorskip("ray")
    with laboratory(NUM_TRIALS, epoch_s=0.3) as lab:
        # The first step is the search's beginning, then come the workers' epochs, 30 in all: the
        # remaining ones take seconds, in which the fault hits.
        driver, worker = (
            run_struck(lab, Planned(run, kind, False, 0.0, 5), 12, 0.0, demanded)
            for run, kind in enumerate(("driver", "worker"))
        )
    for record in (driver, worker):
        assert record.violations == []
        assert record.trials == {"COMPLETE": NUM_TRIALS}
        assert record.attempts["COMPLETE"] == NUM_TRIALS
    assert driver.exit_codes == [-9, 0]
    assert worker.exit_codes == [0]
