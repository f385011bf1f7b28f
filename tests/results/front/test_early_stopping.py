from collections.abc import Callable
from datetime import datetime

import pytest

from sharedattn.results.front.early_stopping import Stopping, stopping_of
from sharedattn.results.front.summary import StudySummary, front_document
from sharedattn.results.records import (
    EpochMetrics,
    RungRow,
    Study,
    StudyRecord,
    TrialRow,
    TrialState,
)
from sharedattn.results.report import render_report

Row = Callable[..., TrialRow]


def report(number: int, epoch: int, goes_on: bool, macs: int = 1) -> RungRow:
    return RungRow(number, EpochMetrics(epoch, 0.5, 0.7), macs, goes_on)


@pytest.fixture
def rows(make_row: Row) -> list[TrialRow]:
    """Of seven epochs: two complete, two stopped at epochs 1 and 3, others that count not."""
    return [
        make_row(0, "V4", macs=100),
        make_row(1, "V3", macs=10, state=TrialState.PRUNED),
        make_row(2, "V2", macs=40, state=TrialState.PRUNED),
        make_row(3, "V1", macs=30),
        make_row(4, "V5", macs=1000, reused=True),
        make_row(5, "V6", macs=1000, state=TrialState.FAILED),
        make_row(6, "V7", macs=1000, state=TrialState.RUNNING),
        make_row(0, "V4", macs=100, replicate=1),
    ]


@pytest.fixture
def reports() -> list[RungRow]:
    return [
        report(0, 1, True),
        report(1, 1, False),
        report(0, 3, True),
        report(2, 1, True),
        report(3, 1, True),
        report(2, 3, False),
        report(3, 3, True),
        report(6, 1, True),
        report(6, 5, True),
    ]


def test_the_share_of_epochs_times_macs(rows: list[TrialRow], reports: list[RungRow]) -> None:
    stopping = stopping_of(rows, reports, 7)
    assert stopping is not None
    assert stopping.stopped == {1: 1, 3: 1, 5: 0}
    assert stopping.compute_share == (7 * 100 + 1 * 10 + 3 * 40 + 7 * 30) / (7 * 180)
    assert stopping.to_json() == {
        "stopped": {"1": 1, "3": 1, "5": 0},
        "compute_share": stopping.compute_share,
    }


def test_nothing_is_said_where_none_was_stopped(rows: list[TrialRow]) -> None:
    assert stopping_of(rows, [], 7) is None
    assert stopping_of(rows, [report(0, 1, True)], 7) is None


def test_no_share_without_a_complete_trial(make_row: Row) -> None:
    pruned = [make_row(0, state=TrialState.PRUNED)]
    stopping = stopping_of(pruned, [report(0, 1, False)], None)
    assert stopping == Stopping(stopped={1: 1}, compute_share=None)
    assert str(stopping) == "1 trial stopped at epoch 1"


def test_the_sentence() -> None:
    assert str(Stopping(stopped={1: 12, 3: 0, 9: 4}, compute_share=0.3125)) == (
        "12 trials stopped at epoch 1, 0 at epoch 3, 4 at epoch 9; training took 31.2% of the "
        "compute of training all fully"
    )


def test_report_and_document_say_it(
    rows: list[TrialRow], reports: list[RungRow], make_study: Callable[..., StudyRecord]
) -> None:
    record = make_study(confirm_seeds=1)
    study = Study(id=1, record=record, created_at=datetime(2026, 11, 21), finished_at=None)
    summary = StudySummary(study, rows, reports)
    assert front_document(summary)["stopping"]["stopped"] == {"1": 1, "3": 1, "5": 0}
    page = render_report(summary, convention="")
    assert "Early stopping: 1 trial stopped at epoch 1, 1 at epoch 3, 0 at epoch 5;" in page
    assert not {member.number for member in summary.front.members} & {1, 2}
    silent = StudySummary(study, rows)
    assert front_document(silent)["stopping"] is None
    assert "Early stopping" not in render_report(silent, convention="")
