from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from sharedattn.errors import InputError
from sharedattn.objectives import parse_objectives
from sharedattn.results.database.store import Store
from sharedattn.results.front.pareto import hypervolume
from sharedattn.results.front.summary import StudySummary, front_document, hypervolume_rises
from sharedattn.results.records import (
    Document,
    EvaluationRecord,
    LatencySource,
    SpecRecord,
    Study,
    StudyRecord,
    TrialRow,
    TrialState,
)

Row = Callable[..., TrialRow]
BEGAN = datetime(2026, 11, 21, 11)


@pytest.fixture
def summary(make_study: Callable[..., StudyRecord], make_row: Row) -> StudySummary:
    """Front V1, E2V1/s8, V2 (confirmed); V4 is dominated, V5 failed, V2 was proposed twice."""
    accuracies = {"V1": (0, 100, 0.6), "E2V1/s8": (1, 200, 0.8), "V2": (2, 900, 0.85)}
    rows = [make_row(number, p, top1, macs) for p, (number, macs, top1) in accuracies.items()]
    rows += [
        make_row(3, "V4", 0.82, 1000),
        make_row(4, "V5", macs=7, state=TrialState.FAILED, error="RuntimeError: no"),
        make_row(5, "V2", 0.85, 900, reused=True),
    ]
    rows += [
        make_row(10 * number + replicate, p, top1 + replicate / 100, macs, replicate=replicate)
        for p, (number, macs, top1) in accuracies.items()
        for replicate in (1, 2)
    ]
    study = Study(id=1, record=make_study(), created_at=BEGAN, finished_at=None)
    return StudySummary(study, rows)


@pytest.fixture
def empty(make_study: Callable[..., StudyRecord], make_row: Row) -> StudySummary:
    study = Study(id=1, record=make_study(), created_at=BEGAN, finished_at=None)
    return StudySummary(study, [make_row(0, state=TrialState.RUNNING, finished_at=None)])


def test_knee_best_and_baseline(summary: StudySummary) -> None:
    assert summary.front.is_confirmed
    assert [m.placement for m in summary.front.members] == ["V1", "E2V1/s8", "V2"]
    assert summary.knee is not None and summary.knee.placement == "E2V1/s8"
    assert summary.best is not None and summary.best.placement == "V2"
    # V4 is the deepest all-vanilla placement that was measured, on the front or not.
    assert summary.baseline is not None and summary.baseline.placement == "V4"


@pytest.mark.parametrize(
    ("text", "is_baseline"),
    [("V2 | V3", True), ("V12", True), ("V2/cb", False), ("V2/dia1", False), ("V2 | V1L1", False)],
)
def test_the_baseline_is_vanilla_in_every_layer_and_nothing_else(
    text: str, is_baseline: bool, make_study: Callable[..., StudyRecord], make_row: Row
) -> None:
    study = Study(id=1, record=make_study(), created_at=BEGAN, finished_at=None)
    baseline = StudySummary(study, [make_row(0, text)]).baseline
    assert (baseline is not None) == is_baseline


def test_the_hypervolume_is_of_the_confirmed_front(summary: StudySummary) -> None:
    # Means 0.61, 0.81, 0.86; the box is 0.5 to 1 by 0 to 1100.
    by_hand = (0.11 * 100 + 0.31 * 700 + 0.36 * 200) / (0.5 * 1100)
    assert summary.hypervolume == pytest.approx(by_hand, abs=1e-12)


def test_the_history_is_of_single_runs(summary: StudySummary) -> None:
    numbers, volumes = hypervolume_rises(summary)
    # V4 (0.82 at 1000) adds nothing to V2 (0.85 at 900).
    assert numbers == [0, 1, 2]
    values = [[0.6, 100], [0.8, 200], [0.85, 900]]
    expected = [
        hypervolume(
            values[: i + 1],  # type: ignore[arg-type]
            parse_objectives(["top1", "macs"]),
            {"top1": 0.5, "macs": 1100},
        )
        for i in range(3)
    ]
    assert volumes == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("expression", "placement"),
    [
        ("knee", "E2V1/s8"),
        (" best ", "V2"),
        ("0", "V1"),
        ("#3", "V4"),  # measured, not on the front
        ("5", "V2"),  # the second proposal of trial 2
        ("macs<900", "E2V1/s8"),
        ("macs<=900", "V2"),
        ("macs < 0.9k", "E2V1/s8"),
        ("params<=1k", "V1"),
    ],
)
def test_pick(summary: StudySummary, expression: str, placement: str) -> None:
    assert summary.pick(expression).placement == placement


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("nicest", 'write knee, best, an id, or a limit such as "macs<1.2G"'),
        ("top1<0.5", "'top1' is no cost; name one of macs, params"),
        ("macs<much", "is no quantity"),
        ("macs<100", "no member of the front has macs below 100; the least is 100"),
        ("4", "trial 4 of study 'digits' is not complete; give the id"),
        ("99", "trial 99 of study 'digits' is not there"),
    ],
)
def test_a_pick_that_names_nothing(summary: StudySummary, expression: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        summary.pick(expression)


def test_a_study_without_a_complete_trial(empty: StudySummary) -> None:
    for expression in ("knee", "best", "macs<1G"):
        with pytest.raises(InputError, match="no complete trial yet: there is nothing to pick"):
            empty.pick(expression)
    assert empty.hypervolume == 0
    assert hypervolume_rises(empty) == ([], [])
    assert empty.baseline is None
    document = front_document(empty)
    assert document["wall_time_s"] == 0
    assert document["front"] == [] and document["fidelity"] is None
    assert document["trials"] == {"running": 1, "complete": 0, "pruned": 0, "failed": 0}


def test_the_front_document(summary: StudySummary) -> None:
    document = front_document(summary, report=Path("out/report.html"), wall_time_s=2.5)
    assert document["study"] == "digits"
    assert document["trials"] == {"running": 0, "complete": 5, "pruned": 0, "failed": 1}
    assert document["confirmations"]["complete"] == 6
    assert [m["id"] for m in document["front"]] == [0, 1, 2]
    member = document["front"][0]
    assert member == {
        "id": 0,
        "placement": "V1",
        "top1": pytest.approx(0.61, abs=1e-15),
        "top1_standard_error": pytest.approx(0.01 / 3**0.5, abs=1e-15),
        "top1_by_seed": {"5": 0.6, "6": 0.61, "7": 0.62},
        "macs": 100,
        "params": 1000,
        "latency_ms": None,
        "latency_source": None,
        "seeds": 3,
        "reused": False,
        "spec_key": "key of V1",
    }
    assert document["hypervolume"] == summary.hypervolume
    assert document["reference_point"] == {"top1": 0.5, "macs": 1100.0}
    assert document["fidelity"] == {
        "epochs": 7,
        "image_size": 16,
        "data_fraction": 1.0,
        "weights": "trained",
    }
    assert (document["report"], document["wall_time_s"]) == ("out/report.html", 2.5)
    assert (document["knee"], document["confirmed"]) == (1, True)
    assert document["latency"] is None


def timed(summary: StudySummary, document: Document) -> StudySummary:
    """The study with a latency of 4 ms less a hundredth for each MAC, and how it was obtained."""
    rows = [
        row._replace(
            costs={**row.costs, "latency_ms": 4 - row.macs / 100 / 10},
            latency_source=LatencySource.TABLE,
        )
        for row in summary.rows
    ]
    record = replace(summary.study.record, latency=document)
    return StudySummary(replace(summary.study, record=record), rows)


LATENCY = {
    "source": "table",
    "where": "a processor, 2 threads",
    "worst_error": 0.0312,
    "checks": [{"placement": "V1"}, {"placement": "V2"}],
    "parts": {"stem": 1.5},
}


def test_latencies_are_picked_by_and_documented(summary: StudySummary) -> None:
    study = timed(summary, LATENCY)
    # Of V1, E2V1/s8 and V2: 3.9, 3.8 and 3.1 ms.
    assert study.pick("latency_ms<3.2").placement == "V2"
    assert study.pick("latency_ms <= 3.1").placement == "V2"
    with pytest.raises(InputError, match=r"has latency_ms below 3\.1 ms; the least is 3\.1"):
        study.pick("latency_ms<3.1")
    with pytest.raises(InputError, match="'3G' is no number of ms"):
        study.pick("latency_ms<3G")
    document = front_document(study)
    assert [(m["latency_ms"], m["latency_source"]) for m in document["front"]] == [
        (pytest.approx(3.9), "table"),
        (pytest.approx(3.8), "table"),
        (pytest.approx(3.1), "table"),
    ]
    assert document["latency"] == {k: v for k, v in LATENCY.items() if k != "parts"}
    assert study.latency_text == "summed from parts; a processor, 2 threads"
    whole = timed(summary, LATENCY | {"source": "network"})
    assert whole.latency_text == "each network measured whole; a processor, 2 threads"


def test_a_pick_by_a_latency_that_was_not_measured(summary: StudySummary) -> None:
    assert summary.latency_text is None
    with pytest.raises(InputError, match="has no latency_ms; pick by macs, params"):
        summary.pick("latency_ms<3")


def test_the_study_s_time_runs_to_its_last_trial(summary: StudySummary) -> None:
    # The rows end at 13:00.
    assert front_document(summary)["wall_time_s"] == timedelta(hours=2).total_seconds()
    assert front_document(summary)["report"] is None


def test_a_summary_is_read_from_the_database(
    store: Store,
    make_study: Callable[..., StudyRecord],
    make_spec: Callable[..., SpecRecord],
    make_evaluation: Callable[..., EvaluationRecord],
) -> None:
    study = store.get_or_create_study(make_study(confirm_seeds=1))
    with store.drive(study) as driver:
        driver.finish_trial(
            driver.begin_trial(number=0, spec=make_spec()),
            make_evaluation(make_spec()),
            attempt=1,
        )
    summary = StudySummary.read(store, study)
    assert [m.placement for m in summary.front.members] == ["V2L1"]
