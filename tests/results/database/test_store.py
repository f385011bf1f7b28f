import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from sharedattn.errors import InputError
from sharedattn.results.database.errors import StaleAttemptError, StorageError
from sharedattn.results.database.store import Store
from sharedattn.results.database.writing import StudyWriter
from sharedattn.results.records import (
    AttemptOutcome,
    EpochMetrics,
    EvaluationRecord,
    FrontSnapshot,
    LatencyRecord,
    LatencySource,
    RungRow,
    SpecRecord,
    Study,
    StudyRecord,
    TrialRole,
    TrialState,
)

OFF = EpochMetrics(1, 0.25, 1.5)
SERVER = (pytest.mark.slow, pytest.mark.xdist_group("postgresql"))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=SERVER)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    url: str = request.getfixturevalue("postgresql_url")
    return url


@pytest.fixture
def study(store: Store, make_study: Callable[..., StudyRecord]) -> Study:
    return store.get_or_create_study(make_study())


@pytest.fixture
def driver(store: Store, study: Study) -> Iterator[StudyWriter]:
    with store.drive(study) as driving:
        yield driving


@pytest.fixture
def spec(make_spec: Callable[..., SpecRecord]) -> SpecRecord:
    return make_spec()


@pytest.fixture
def evaluation(
    spec: SpecRecord, make_evaluation: Callable[..., EvaluationRecord]
) -> EvaluationRecord:
    return make_evaluation(spec)


class TestStudies:
    def test_a_study_is_read_back(
        self, store: Store, make_study: Callable[..., StudyRecord]
    ) -> None:
        created = store.get_or_create_study(make_study())
        assert created.record == make_study()
        assert created.finished_at is None
        assert store.study("digits") == created
        assert store.studies() == [created]

    def test_the_same_study_is_taken_up_as_it_is(
        self, store: Store, make_study: Callable[..., StudyRecord]
    ) -> None:
        created = store.get_or_create_study(make_study(weights_dir="/weights"))
        again = store.get_or_create_study(
            make_study(
                num_trials=48,
                confirm_seeds=5,
                reference_point={"top1": 0.0, "macs": 7.0},
                provenance={"command": "another"},
                weights_dir="/elsewhere",
            )
        )
        assert again == created
        assert again.record.weights_dir == "/weights"

    def test_its_driver_alone_changes_the_totals(
        self, store: Store, study: Study, driver: StudyWriter
    ) -> None:
        driver.set_totals(num_trials=48, confirm_seeds=5)
        changed = replace(study.record, num_trials=48, confirm_seeds=5)
        assert store.study("digits") == replace(study, record=changed)

    def test_a_name_in_use_names_what_differs(
        self, store: Store, make_study: Callable[..., StudyRecord]
    ) -> None:
        store.get_or_create_study(make_study())
        other = make_study(
            fingerprint_document={"space": "s", "budget": {"macs": 13}, "workers": 2},
            num_trials=48,
        )
        message = (
            "'digits' was made with other choices: budget.macs was 11 and is now 13; "
            "seed was 5 and is now absent; workers was absent and is now 2; choose another"
        )
        with pytest.raises(InputError, match=message):
            store.get_or_create_study(other)
        assert store.study("digits").record.num_trials == 24

    def test_a_study_that_is_not_there(
        self, store: Store, make_study: Callable[..., StudyRecord]
    ) -> None:
        assert store.find_study("flowers") is None
        with pytest.raises(InputError, match="has no study 'flowers'; it has none"):
            store.study("flowers")
        store.get_or_create_study(make_study())
        with pytest.raises(InputError, match="has no study 'flowers'; it has 'digits'"):
            store.study("flowers")


class TestTrials:
    def test_a_trial_from_its_beginning_to_its_end(
        self,
        store: Store,
        study: Study,
        driver: StudyWriter,
        spec: SpecRecord,
        evaluation: EvaluationRecord,
    ) -> None:
        trial_id = driver.begin_trial(
            number=0,
            spec=spec,
            proposed={"a": 1},
            repaired={"a": 2},
            sampler_attributes={"generation": 0},
        )
        (begun,) = store.trials.of(study)
        assert (begun.state, begun.finished_at, begun.top1) == (TrialState.RUNNING, None, None)
        assert begun.fidelity_key is None
        (parameters,) = store.trials.parameters(study, states=[TrialState.RUNNING])
        assert (parameters.proposed, parameters.repaired) == ({"a": 1}, {"a": 2})
        assert parameters.spec_document == spec.document
        assert parameters.num_attempts == 1

        driver.finish_trial(trial_id, evaluation, attempt=1)
        (row,) = store.trials.of(study, TrialRole.SEARCH)
        assert row.state is TrialState.COMPLETE and row.role is TrialRole.SEARCH
        assert (row.number, row.replicate, row.reused, row.error) == (0, 0, False, None)
        assert (row.spec_key, row.placement) == (spec.key, "V2L1")
        assert row.costs == {"params": 101, "macs": 1009, "attention_bytes": 13}
        assert (row.macs, row.seed) == (1009, 5)
        assert (row.top1, row.loss, row.wall_time_s) == (0.875, 0.25, 3.5)
        assert row.evaluation_key == evaluation.identity.key
        assert row.fidelity_key == evaluation.identity.fidelity.key
        assert row.weights_sha256 == "a" * 64
        assert row.finished_at is not None and row.finished_at >= row.created_at
        (parameters,) = store.trials.parameters(study)
        assert parameters.sampler_attributes == {"generation": 0}
        assert parameters.top1 == 0.875
        assert store.trials.parameters(study, states=[TrialState.RUNNING]) == []
        (attempt,) = store.trials.attempts(trial_id)
        assert (attempt.number, attempt.outcome) == (1, AttemptOutcome.COMPLETE)
        assert store.spec(spec.key) == spec

    def test_a_failed_trial_keeps_its_traceback(
        self, store: Store, study: Study, driver: StudyWriter, spec: SpecRecord
    ) -> None:
        trial_id = driver.begin_trial(number=0, spec=spec)
        driver.fail_trial(trial_id, "Traceback:\n  here\nRuntimeError: out of memory\n", attempt=1)
        (row,) = store.trials.of(study)
        assert row.state is TrialState.FAILED
        assert row.error == "RuntimeError: out of memory"
        (attempt,) = store.trials.attempts(trial_id)
        assert attempt.traceback == "Traceback:\n  here\nRuntimeError: out of memory\n"
        silent = driver.begin_trial(number=1, spec=spec)
        driver.fail_trial(silent, "", attempt=1)
        assert store.trials.of(study)[1].error == "unknown error"

    def test_a_stopped_trial_is_pruned_with_what_it_measured(
        self, store: Store, study: Study, driver: StudyWriter, spec: SpecRecord
    ) -> None:
        trial_id = driver.begin_trial(number=0, spec=spec)
        driver.prune_trial(trial_id, EpochMetrics(1, 0.25, 1.5), attempt=1)
        (row,) = store.trials.of(study)
        assert (row.state, row.top1, row.evaluation_key) == (TrialState.PRUNED, None, None)
        assert [row.metrics.top1 for row in store.trials.rung_reports(study)] == [0.25]

    def test_rungs_are_kept_in_the_order_of_their_decisions(
        self,
        store: Store,
        study: Study,
        driver: StudyWriter,
        make_spec: Callable[..., SpecRecord],
    ) -> None:
        first = driver.begin_trial(number=0, spec=make_spec("V2", macs=11, params=13))
        second = driver.begin_trial(number=1, spec=make_spec("V1", macs=5, params=7))
        other = driver.begin_trial(
            number=0, spec=make_spec("V1"), role=TrialRole.CONFIRM, replicate=1
        )
        on = EpochMetrics(epoch=1, top1=0.25, loss=1.5)
        driver.report_rung(second, on, attempt=1)
        driver.report_rung(first, on, attempt=1)
        driver.report_rung(other, on, attempt=1)
        stop = EpochMetrics(epoch=3, top1=0.5, loss=0.75)
        driver.prune_trial(second, stop, attempt=1)
        assert store.trials.rung_reports(study) == [
            RungRow(1, on, macs=5, goes_on=True),
            RungRow(0, on, macs=11, goes_on=True),
            RungRow(1, stop, macs=5, goes_on=False),
        ]
        assert [row.state for row in store.trials.of(study, TrialRole.SEARCH)] == [
            TrialState.RUNNING,
            TrialState.PRUNED,
        ]
        assert [a.outcome for a in store.trials.attempts(second)] == [AttemptOutcome.PRUNED]

    def test_a_rung_that_is_passed_again_keeps_what_was_decided(
        self, store: Store, study: Study, driver: StudyWriter, spec: SpecRecord
    ) -> None:
        trial_id = driver.begin_trial(number=0, spec=spec)
        driver.report_rung(trial_id, EpochMetrics(1, 0.25, 1.5), attempt=1)
        driver.restart_trial(trial_id, attempt=1)
        driver.report_rung(trial_id, EpochMetrics(1, 0.5, 1.25), attempt=2)
        (row,) = store.trials.rung_reports(study)
        assert (row.metrics, row.goes_on) == (EpochMetrics(1, 0.25, 1.5), True)
        stop = EpochMetrics(1, 0.125, 2.0)
        with pytest.raises(ValueError, match="was let on at epoch 1 and cannot be stopped"):
            driver.prune_trial(trial_id, stop, attempt=2)
        assert store.trials.rung_reports(study) == [row]
        assert store.trials.of(study)[0].state is TrialState.RUNNING

    def test_a_trial_whose_worker_died_is_started_again(
        self,
        store: Store,
        study: Study,
        driver: StudyWriter,
        spec: SpecRecord,
        evaluation: EvaluationRecord,
    ) -> None:
        trial_id = driver.begin_trial(number=3, spec=spec)
        assert driver.restart_trial(trial_id, attempt=1, traceback="killed by signal 9") == 2
        (parameters,) = store.trials.parameters(study, states=[TrialState.RUNNING])
        assert (parameters.number, parameters.num_attempts) == (3, 2)
        driver.finish_trial(trial_id, evaluation, attempt=2)
        attempts = store.trials.attempts(trial_id)
        assert [(a.number, a.outcome) for a in attempts] == [
            (1, AttemptOutcome.LOST),
            (2, AttemptOutcome.COMPLETE),
        ]
        assert attempts[0].traceback == "killed by signal 9"
        assert attempts[1].traceback is None

    def test_a_trial_ends_once(
        self, driver: StudyWriter, spec: SpecRecord, evaluation: EvaluationRecord
    ) -> None:
        trial_id = driver.begin_trial(number=0, spec=spec)
        driver.finish_trial(trial_id, evaluation, attempt=1)
        endings: list[Callable[[], object]] = [
            lambda: driver.finish_trial(trial_id, evaluation, attempt=1),
            lambda: driver.prune_trial(trial_id, OFF, attempt=1),
            lambda: driver.fail_trial(trial_id, "late", attempt=1),
            lambda: driver.restart_trial(trial_id, attempt=1),
        ]
        for ending in endings:
            with pytest.raises(StaleAttemptError, match="has ended already, as COMPLETE"):
                ending()

    def test_an_attempt_that_was_given_up_is_not_heard_any_more(
        self,
        store: Store,
        study: Study,
        driver: StudyWriter,
        spec: SpecRecord,
        evaluation: EvaluationRecord,
    ) -> None:
        driver.finish_trial(driver.begin_trial(number=0, spec=spec), evaluation, attempt=1)
        known = store.find_evaluation(evaluation.identity)
        assert known is not None
        trial_id = driver.begin_trial(number=1, spec=spec)
        assert driver.restart_trial(trial_id, attempt=1) == 2
        report = EpochMetrics(epoch=1, top1=0.5, loss=0.25)
        message = "is at attempt 2, but the result is of attempt"
        for attempt in (1, 3):
            late: list[Callable[[], object]] = [
                lambda: driver.finish_trial(trial_id, evaluation, attempt=attempt),  # noqa: B023
                lambda: driver.finish_trial(trial_id, known, attempt=attempt),  # noqa: B023
                lambda: driver.prune_trial(trial_id, OFF, attempt=attempt),  # noqa: B023
                lambda: driver.fail_trial(trial_id, "late", attempt=attempt),  # noqa: B023
                lambda: driver.restart_trial(trial_id, attempt=attempt),  # noqa: B023
                lambda: driver.report_rung(trial_id, report, attempt=attempt),  # noqa: B023
            ]
            for answer in late:
                with pytest.raises(StaleAttemptError, match=f"{message} {attempt}"):
                    answer()
        assert store.trials.rung_reports(study) == []
        assert [row.state for row in store.trials.of(study)] == [
            TrialState.COMPLETE,
            TrialState.RUNNING,
        ]
        assert [a.outcome for a in store.trials.attempts(trial_id)] == [AttemptOutcome.LOST, None]
        driver.finish_trial(trial_id, evaluation, attempt=2)
        assert store.trials.counts(study, TrialRole.SEARCH)[TrialState.COMPLETE] == 2

    def test_an_attempt_without_a_result_says_how_it_ended(
        self, store: Store, study: Study, driver: StudyWriter, spec: SpecRecord
    ) -> None:
        trial_id = driver.begin_trial(number=0, spec=spec)
        preempted = AttemptOutcome.PREEMPTED
        assert driver.restart_trial(trial_id, attempt=1, outcome=preempted, traceback="spot") == 2
        assert driver.restart_trial(trial_id, attempt=2, outcome=AttemptOutcome.FAILED) == 3
        with pytest.raises(
            ValueError, match="an attempt without a result is one of FAILED, LOST, PREEM"
        ):
            driver.restart_trial(trial_id, attempt=3, outcome=AttemptOutcome.PRUNED)
        with pytest.raises(ValueError, match="but got COMPLETE"):
            driver.fail_trial(trial_id, "no", attempt=3, outcome=AttemptOutcome.COMPLETE)
        driver.fail_trial(trial_id, "no", attempt=3, outcome=AttemptOutcome.LOST)
        assert store.trials.of(study)[0].state is TrialState.FAILED
        assert [a.outcome for a in store.trials.attempts(trial_id)] == [
            AttemptOutcome.PREEMPTED,
            AttemptOutcome.FAILED,
            AttemptOutcome.LOST,
        ]

    def test_a_driver_writes_to_its_own_study_only(
        self,
        store: Store,
        driver: StudyWriter,
        spec: SpecRecord,
        evaluation: EvaluationRecord,
        make_study: Callable[..., StudyRecord],
    ) -> None:
        other = store.get_or_create_study(make_study(name="flowers"))
        with store.drive(other) as other_driver:
            trial_id = other_driver.begin_trial(number=0, spec=spec)
            with pytest.raises(ValueError, match="is not a trial of this study"):
                driver.finish_trial(trial_id, evaluation, attempt=1)

    def test_an_evaluation_is_of_its_trial_s_spec(
        self,
        store: Store,
        study: Study,
        driver: StudyWriter,
        evaluation: EvaluationRecord,
        make_spec: Callable[..., SpecRecord],
    ) -> None:
        trial_id = driver.begin_trial(number=0, spec=make_spec("V1"))
        with pytest.raises(ValueError, match="but the evaluation is of"):
            driver.finish_trial(trial_id, evaluation, attempt=1)
        assert store.trials.of(study)[0].state is TrialState.RUNNING

    def test_a_number_is_taken_once_in_its_role(
        self, store: Store, study: Study, driver: StudyWriter, spec: SpecRecord
    ) -> None:
        driver.begin_trial(number=0, spec=spec, searcher_attributes={"kept": 1})
        with pytest.raises(IntegrityError, match="(?i)unique constraint"):
            driver.begin_trial(number=0, spec=spec, searcher_attributes={"kept": 2})
        driver.begin_trial(number=0, spec=spec, role=TrialRole.CONFIRM, replicate=1)
        # The refused trial left nothing behind.
        assert store.searcher_attributes(study) == {"kept": 1}
        roles = [(row.role, row.number, row.replicate) for row in store.trials.of(study)]
        assert roles == [(TrialRole.SEARCH, 0, 0), (TrialRole.CONFIRM, 0, 1)]

    def test_trials_come_by_role_and_number_and_are_counted(
        self, store: Store, study: Study, driver: StudyWriter, spec: SpecRecord
    ) -> None:
        for number in (2, 0, 1):
            trial_id = driver.begin_trial(number=number, spec=spec)
            if number:
                driver.fail_trial(trial_id, "no", attempt=1)
        driver.begin_trial(number=0, spec=spec, role=TrialRole.CONFIRM, replicate=1)
        numbers = [(row.role.value, row.number) for row in store.trials.of(study)]
        assert numbers == [("search", 0), ("search", 1), ("search", 2), ("confirm", 0)]
        assert len(store.trials.of(study, TrialRole.CONFIRM)) == 1
        assert store.trials.counts(study, TrialRole.SEARCH) == {
            TrialState.RUNNING: 1,
            TrialState.COMPLETE: 0,
            TrialState.PRUNED: 0,
            TrialState.FAILED: 2,
        }


class TestEvaluations:
    def test_an_evaluation_is_found_from_any_study(
        self,
        store: Store,
        driver: StudyWriter,
        spec: SpecRecord,
        evaluation: EvaluationRecord,
        make_study: Callable[..., StudyRecord],
        make_evaluation: Callable[..., EvaluationRecord],
    ) -> None:
        assert store.find_evaluation(evaluation.identity) is None
        driver.finish_trial(driver.begin_trial(number=0, spec=spec), evaluation, attempt=1)
        found = store.find_evaluation(evaluation.identity)
        assert found is not None and found.record == evaluation
        assert store.find_evaluation(evaluation.identity.key) == found
        assert store.find_evaluation(make_evaluation(spec, seed=6).identity) is None

        other = store.get_or_create_study(make_study(name="flowers"))
        with store.drive(other) as other_driver:
            trial_id = other_driver.begin_trial(number=0, spec=spec)
            other_driver.finish_trial(trial_id, found, attempt=1)
        (row,) = store.trials.of(other)
        assert (row.state, row.reused, row.top1) == (TrialState.COMPLETE, True, 0.875)

    def test_a_measurement_stands_with_its_own_weights(
        self,
        store: Store,
        study: Study,
        driver: StudyWriter,
        spec: SpecRecord,
        evaluation: EvaluationRecord,
        make_evaluation: Callable[..., EvaluationRecord],
    ) -> None:
        driver.finish_trial(driver.begin_trial(number=0, spec=spec), evaluation, attempt=1)
        # The file of their key is the second one's, and so are the figures.
        again = make_evaluation(
            spec, top1=0.75, loss=0.5, threads=2, versions={"torch": "3"}, weights_sha256="b" * 64
        )
        driver.finish_trial(driver.begin_trial(number=1, spec=spec), again, attempt=1)
        rows = store.trials.of(study)
        assert [(row.top1, row.reused) for row in rows] == [(0.75, False), (0.75, True)]
        found = store.find_evaluation(evaluation.identity)
        assert found is not None and found.record == again
        # One without weights leaves that file alone, and so the figures.
        without = make_evaluation(spec, top1=0.5, weights_sha256=None)
        driver.finish_trial(driver.begin_trial(number=2, spec=spec), without, attempt=1)
        assert store.find_evaluation(evaluation.identity) == found
        assert [row.reused for row in store.trials.of(study)] == [False, True, True]

    def test_other_studies_of_an_evaluation_are_found(
        self,
        store: Store,
        study: Study,
        driver: StudyWriter,
        spec: SpecRecord,
        evaluation: EvaluationRecord,
        make_study: Callable[..., StudyRecord],
    ) -> None:
        key = evaluation.identity.key
        driver.finish_trial(driver.begin_trial(number=0, spec=spec), evaluation, attempt=1)
        found = store.find_evaluation(key)
        assert found is not None
        other = store.get_or_create_study(make_study(name="flowers"))
        assert not store.other_studies_with(key, study)
        assert store.other_studies_with(key, other)
        with store.drive(other) as other_driver:
            trial_id = other_driver.begin_trial(number=0, spec=spec)
            assert not store.other_studies_with(key, study)
            other_driver.finish_trial(trial_id, found, attempt=1)
        assert store.other_studies_with(key, study)
        assert not store.other_studies_with("e" * 64, study)

    def test_weights_come_and_go(
        self,
        store: Store,
        study: Study,
        driver: StudyWriter,
        spec: SpecRecord,
        evaluation: EvaluationRecord,
    ) -> None:
        driver.finish_trial(driver.begin_trial(number=0, spec=spec), evaluation, attempt=1)
        driver.record_weights(evaluation.identity.key, None)
        assert store.trials.of(study)[0].weights_sha256 is None
        driver.record_weights(evaluation.identity.key, "c" * 64)
        assert store.trials.of(study)[0].weights_sha256 == "c" * 64

    def test_a_spec_that_is_not_there(self, store: Store) -> None:
        with pytest.raises(InputError, match="the database has no spec abc"):
            store.spec("abc")


class TestStudyMarks:
    def test_searcher_attributes_are_added_and_replaced_with_their_trial(
        self, store: Store, study: Study, driver: StudyWriter, spec: SpecRecord
    ) -> None:
        trial_id = driver.begin_trial(
            number=0, spec=spec, searcher_attributes={"parent:0": [1, 2], "seed": 3}
        )
        driver.fail_trial(trial_id, "no", attempt=1)
        driver.save_searcher_attributes({"parent:1": [4], "seed": None})
        attributes = {"parent:0": [1, 2], "parent:1": [4], "seed": None}
        assert store.searcher_attributes(study) == attributes
        assert [store.note(study, key) for key in ("parent:1", "seed", "none")] == [
            [4],
            None,
            None,
        ]
        assert (store.notes("parent:0"), store.notes("none")) == ([[1, 2]], [])

    def test_a_latency_is_of_a_study_and_a_spec_and_stands(
        self,
        store: Store,
        study: Study,
        driver: StudyWriter,
        spec: SpecRecord,
        make_study: Callable[..., StudyRecord],
        make_spec: Callable[..., SpecRecord],
        make_latency: Callable[..., LatencyRecord],
    ) -> None:
        first, refused = make_latency(latency_ms=1.5), make_latency(latency_ms=7.25, peak_bytes=11)
        driver.record_latency(spec, first)
        driver.record_latency(make_spec("V5"), refused)
        driver.record_latency(spec, make_latency(latency_ms=99.0))
        assert store.latencies(study) == {spec.key: first, make_spec("V5").key: refused}
        driver.begin_trial(number=0, spec=spec)
        driver.begin_trial(number=1, spec=make_spec("V1"))
        assert [
            (row.costs.get("latency_ms"), row.latency_source) for row in store.trials.of(study)
        ] == [
            (1.5, LatencySource.NETWORK),
            (None, None),
        ]
        assert [row.costs.get("latency_ms") for row in store.trials.parameters(study)] == [
            1.5,
            None,
        ]
        other = store.get_or_create_study(make_study(name="another"))
        with store.drive(other) as other_driver:
            other_driver.begin_trial(number=0, spec=spec)
        assert store.latencies(other) == {}
        assert [row.costs.get("latency_ms") for row in store.trials.of(other)] == [None]

    def test_how_latencies_are_obtained_stands_as_it_was_first_written(
        self, store: Store, make_study: Callable[..., StudyRecord]
    ) -> None:
        first = make_study(name="timed", latency={"source": "network", "worst_error": 0.25})
        assert store.get_or_create_study(first).record == first
        again = store.get_or_create_study(make_study(name="timed", latency={"source": "table"}))
        assert again.record == first
        assert again.record.fingerprint == make_study().fingerprint

    def test_a_finished_study_is_unfinished_by_its_next_trial(
        self, store: Store, study: Study, driver: StudyWriter, spec: SpecRecord
    ) -> None:
        driver.finish_study()
        assert store.study("digits").finished_at is not None
        driver.begin_trial(number=0, spec=spec)
        assert store.study("digits").finished_at is None

    def test_a_snapshot_is_written_with_its_trial_or_not_at_all(
        self,
        store: Store,
        study: Study,
        driver: StudyWriter,
        spec: SpecRecord,
        evaluation: EvaluationRecord,
    ) -> None:
        first = FrontSnapshot(num_complete=1, members=(0,), hypervolume=0.25)
        second = FrontSnapshot(num_complete=2, members=(0, 1), hypervolume=0.5)
        trial_id = driver.begin_trial(number=0, spec=spec)
        driver.finish_trial(trial_id, evaluation, attempt=1, snapshot=first)
        known = store.find_evaluation(evaluation.identity)
        assert known is not None
        again_id = driver.begin_trial(number=1, spec=spec)
        unwritable = replace(second, hypervolume=None)  # type: ignore[arg-type]
        with pytest.raises(IntegrityError, match="(?i)not.null constraint"):
            driver.finish_trial(again_id, known, attempt=1, snapshot=unwritable)
        assert [row.state for row in store.trials.of(study)] == [
            TrialState.COMPLETE,
            TrialState.RUNNING,
        ]
        driver.finish_trial(again_id, known, attempt=1, snapshot=second)
        assert store.snapshots(study) == [first, second]
        # One of as many complete trials is replaced, as where a search goes on after a kill.
        third = replace(second, hypervolume=0.75)
        driver.finish_trial(
            driver.begin_trial(number=2, spec=spec), evaluation, attempt=1, snapshot=third
        )
        assert store.snapshots(study) == [first, third]


class TestReading:
    def test_a_consistent_block_sees_one_state_and_holds_nobody_up(
        self,
        store: Store,
        study: Study,
        driver: StudyWriter,
        spec: SpecRecord,
        url: str,
    ) -> None:
        driver.begin_trial(number=0, spec=spec)
        with Store.open(url, read_only=True) as reader:
            with reader.database.consistent():
                assert len(reader.trials.of(study)) == 1
                driver.begin_trial(number=1, spec=spec)
                driver.set_totals(num_trials=48, confirm_seeds=3)
                with reader.database.consistent():
                    assert len(reader.trials.of(study)) == 1
                assert reader.trials.counts(study, TrialRole.SEARCH)[TrialState.RUNNING] == 1
                assert reader.study("digits") == study
                assert len(store.trials.of(study)) == 2
            assert len(reader.trials.of(study)) == 2
            assert reader.study("digits").record.num_trials == 48

    def test_a_consistent_block_ends_with_its_error(self, store: Store, study: Study) -> None:
        with pytest.raises(KeyError), store.database.consistent():
            store.trials.of(study)
            raise KeyError
        store.get_or_create_study(study.record)


class TestOnSQLite:
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'study.db'}"

    def test_other_studies_of_an_evaluation_are_found_by_an_index(
        self, store: Store, study: Study
    ) -> None:
        asked: list[tuple[str, Any]] = []
        engine = store.database.engine
        event.listen(engine, "before_cursor_execute", lambda *a: asked.append((a[2], a[3])))
        store.other_studies_with("e" * 64, study)
        query, parameters = asked[-1]
        with store.database.engine.connect() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", parameters).all()
        assert "SEARCH trials USING INDEX ix_trials_evaluation_id" in str(plan)

    def test_a_second_driver_is_refused_and_readers_are_welcome(
        self, store: Store, study: Study, driver: StudyWriter, url: str
    ) -> None:
        with Store.open(url, read_only=True) as reader:
            assert reader.trials.of(study) == []
        message = f"'digits' is being searched by process {os.getpid()}"
        with Store.open(url) as second, pytest.raises(InputError, match=message):
            with second.drive(study):
                pass

    def test_a_study_can_be_driven_again_and_beside_another(
        self, store: Store, study: Study, make_study: Callable[..., StudyRecord]
    ) -> None:
        with store.drive(study):
            pass
        other = store.get_or_create_study(make_study(name="flowers"))
        with store.drive(study), store.drive(other):
            pass

    def test_a_driver_that_lost_its_lock_stops_at_its_next_write(
        self,
        store: Store,
        study: Study,
        driver: StudyWriter,
        spec: SpecRecord,
        tmp_path: Path,
    ) -> None:
        (lock,) = tmp_path.glob("*.lock")
        lock.unlink()  # as on a network disk that forgets locks
        with store.drive(study) as successor:
            with pytest.raises(
                StorageError, match="another process has begun to drive.*this one stops"
            ):
                driver.begin_trial(number=0, spec=spec)
            successor.begin_trial(number=0, spec=spec)
        assert len(store.trials.of(study)) == 1

    def test_a_full_disk_is_a_storage_error_and_leaves_whole_rows(
        self,
        store: Store,
        study: Study,
        driver: StudyWriter,
        make_spec: Callable[..., SpecRecord],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        driver.begin_trial(number=0, spec=make_spec())
        with store.database.engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            # SQLite then fails as it does on a full disk: SQLITE_FULL.
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StorageError, match="disk is full.*was committed before is kept"):
            for number in itertools.count(1):
                driver.begin_trial(number=number, spec=make_spec(), proposed={"a": "b" * 999})
        rows = store.trials.of(study)
        assert [row.number for row in rows] == list(range(len(rows)))
        assert all(len(store.trials.attempts(row.id)) == 1 for row in rows)

    def test_a_database_that_another_program_holds_is_a_storage_error(
        self,
        driver: StudyWriter,
        spec: SpecRecord,
        url: str,
        store: Store,
    ) -> None:
        with store.database.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout = 50")
        other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="database is locked"):
            driver.begin_trial(number=0, spec=spec)
        other.execute("ROLLBACK")
        other.close()
        driver.begin_trial(number=0, spec=spec)


# Imports once, for seconds, and forks a driver of its own for each line that it reads.
_WRITER = """
import os
import sys
from sharedattn.results.records import *
from sharedattn.results.database.store import Store
from sharedattn.placement import NetworkSpec

while sys.stdin.readline():
    driver_id = os.fork()
    if driver_id == 0:
        break
    os.waitpid(driver_id, 0)
    print("gone", flush=True)
else:
    sys.exit()
print(os.getpid(), flush=True)
with Store.open(sys.argv[1], create=True) as store:
    study = store.get_or_create_study(StudyRecord(
        name="digits", fingerprint_document={}, space={}, data={}, recipe={},
        objectives=("top1", "macs"), searcher="random", seed=0,
        reference_point={}, provenance={}, num_trials=10, confirm_seeds=1))
    network = NetworkSpec.parse("vit: V1")
    spec = SpecRecord.of(network, params=1, macs=1, attention_bytes=1)
    with store.drive(study) as driver:
        print("driving", flush=True)
        for trial in store.trials.parameters(study, states=[TrialState.RUNNING]):
            attempt = driver.restart_trial(trial.id, attempt=trial.num_attempts)
            driver.fail_trial(trial.id, "was lost", attempt=attempt)
        for number in range(len(store.trials.of(study)), 100_000):
            trial_id = driver.begin_trial(
                number=number, spec=spec, searcher_attributes={"begun": number})
            print("begun", number, flush=True)
            identity = EvaluationIdentity(spec_key=spec.key, recipe_key="r", data_fingerprint="d",
                fidelity=Fidelity(epochs=1, image_size=8), seed=number)
            driver.finish_trial(trial_id, EvaluationRecord(identity=identity, split="validation",
                top1=0.5, loss=0.5, num_images=8, wall_time_s=0, device="cpu", threads=1,
                versions={}), attempt=1)
            print("ended", number, flush=True)
"""


@pytest.fixture
def writer(url: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def test_what_is_committed_survives_a_kill_at_any_moment(
    url: str, writer: subprocess.Popen[str]
) -> None:
    """Three times: what the driver said it had done is there, nothing by halves, no stale lock."""
    assert writer.stdin is not None and writer.stdout is not None
    begun = ended = -1
    for delay_s in (0.0, 0.003, 0.007):
        writer.stdin.write("drive\n")
        writer.stdin.flush()
        driver_id = int(writer.stdout.readline())
        assert writer.stdout.readline() == "driving\n"
        # Some trials first, however slow the machine; then somewhere in those that follow.
        lines = [writer.stdout.readline() for _ in range(9)]
        time.sleep(delay_s)
        os.kill(driver_id, signal.SIGKILL)
        for line in itertools.chain(lines, writer.stdout):
            what, _, number = line.strip().partition(" ")
            if what == "gone":
                break
            if what == "begun":
                begun = int(number)
            if what == "ended":
                ended = int(number)

        with Store.open(url, read_only=True) as store:
            study = store.study("digits")
            rows = store.trials.of(study)
            assert len(rows) > begun >= 0
            assert [row.number for row in rows] == list(range(len(rows)))
            assert rows[ended].state is TrialState.COMPLETE
            assert sum(row.state is TrialState.RUNNING for row in rows) <= 1
            attributes = store.searcher_attributes(study)
            assert attributes["begun"] == len(rows) - 1
            for row in rows:
                is_complete = row.state is TrialState.COMPLETE
                assert (row.top1 == 0.5) == is_complete == (row.evaluation_key is not None)
                open_attempts = [a for a in store.trials.attempts(row.id) if a.finished_at is None]
                assert len(open_attempts) == (row.state is TrialState.RUNNING)
    assert ended >= 3
