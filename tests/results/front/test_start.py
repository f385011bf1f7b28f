"""What is said of a start, and of what is below it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest

from sharedattn.results.front.start import start_warnings
from sharedattn.results.front.summary import StudySummary, front_document, start_lines
from sharedattn.results.records import Fidelity, Start, Study, StudyRecord, TrialRole, TrialRow

Row = Callable[..., TrialRow]
INHERITED = Fidelity(epochs=11, image_size=16, weights="inherited")
START = Start(
    weights_sha256="w" * 64, macs=23_600_000, params=1_200_000, top1=0.853, num_images=300
)


@pytest.fixture
def scored(make_study: Callable[..., StudyRecord], make_row: Row) -> StudySummary:
    """V1 and V2 by shared weights on a third of the images, none of them trained."""
    study = Study(id=1, record=make_study(), created_at=datetime(2026, 12, 1), finished_at=None)
    rows = [
        make_row(i, text, top1, macs, num_images=100, fidelity_key=INHERITED.key)
        for i, (text, top1, macs) in enumerate((("V1", 0.7, 8000), ("V2", 0.81, 15_400)))
    ]
    return StudySummary(study, rows, start=START)


def trained(summary: StudySummary, make_row: Row, top1: float) -> StudySummary:
    rows = [
        make_row(2 * i + r, text, top1 - 0.1 + i / 10, macs, replicate=r, num_images=300)
        for i, (text, macs) in enumerate((("V1", 8000), ("V2", 15_400)))
        for r in range(3)
    ]
    rows = [row._replace(role=TrialRole.CONFIRM) for row in rows]
    return replace(summary, rows=[*summary.rows, *rows])


def test_a_supernet_below_the_start_says_by_how_much(scored: StudySummary) -> None:
    assert start_lines(scored) == [
        str(START),
        "the supernet's best score is 4.3 points below the start: 0.810, 15.4 k MACs (id 1); it "
        "was measured on 100 of the 300 validation images",
    ]
    assert front_document(scored)["start"] == START.summary("top1")
    assert front_document(replace(scored, start=None))["start"] is None
    assert start_lines(replace(scored, start=None)) == []


def test_a_front_below_the_start_says_by_how_much(scored: StudySummary, make_row: Row) -> None:
    below = trained(scored, make_row, 0.841)
    assert below.front.is_confirmed
    assert start_lines(below)[1].startswith("the supernet's best score is 4.3 points below")
    assert start_lines(below)[2] == (
        "the front's best is 1.2 points below the start: 0.841, 15.4 k MACs (id 1)"
    )
    close = start_lines(trained(scored, make_row, 0.8527))[2]
    assert close.startswith("the front's best is less than 0.1 points below the start: 0.853,")
    # What is as good as the start is not below it.
    assert len(start_lines(trained(scored, make_row, 0.853))) == 2


def test_a_start_at_chance_says_what_may_be_wrong(
    scored: StudySummary, make_study: Callable[..., StudyRecord]
) -> None:
    record = make_study(data={"class_counts": {"validation": [50] * 6}})
    at_chance = replace(START, top1=1 / 6)
    [said] = start_warnings(record, at_chance)
    assert said.startswith(
        "the start is not above guessing: its top-1 is 0.167; guessing gets 0.167 (chance among 6 "
        "classes), and only above 0.204 is more than noise (300 validation images); the model may "
        "have been trained on other pixels (--pixels, --mean,"
    )
    assert "another order (--classes), or its head may be untrained or of other classes" in said
    [of_features] = start_warnings(record, replace(at_chance, head_images=97))
    assert of_features.endswith(
        "--crop-mode), or it may be untrained: its features do not tell these classes apart"
    )
    # Of 300 answers 61 are below the bar, 62 above it.
    assert start_warnings(record, replace(START, top1=61 / 300))
    assert start_warnings(record, replace(START, top1=62 / 300)) == []
    assert start_warnings(record, replace(START, top1=1.0, num_images=1)) == [
        "1 validation images are too few to tell the start from guessing"
    ]
    study = replace(scored.study, record=record)
    assert replace(scored, study=study, start=at_chance).warnings[0] == said
