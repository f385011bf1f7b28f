"""Which trials an explanation learns from, in studies of every kind."""

from dataclasses import replace
from datetime import datetime

import pytest

from sharedattn.results.explanation.observations import observations_of
from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records import (
    EpochMetrics,
    Fidelity,
    RungRow,
    Study,
    TrialRole,
    TrialState,
)

SHORT, LONG = Fidelity(epochs=7, image_size=16), Fidelity(epochs=29, image_size=16)
INHERITED = replace(SHORT, weights="inherited")


@pytest.fixture
def summary(make_study, make_row):
    def make(rows, reports=(), **changes):
        study = Study(
            id=1,
            record=make_study(**changes),
            created_at=datetime(2026, 11, 21),
            finished_at=None,
        )
        return StudySummary(study, rows, reports)

    return make


def test_further_seeds_are_trainings_of_their_own(summary, make_row):
    rows = [
        make_row(0, "V4", 0.85, num_images=71),
        make_row(1, "V2", 0.80, num_images=71),
        make_row(2, "N2", state=TrialState.FAILED, error="RuntimeError"),
        make_row(0, "V4", 0.85, replicate=1, num_images=71),
        make_row(1, "V4", 0.83, replicate=2, num_images=71),
        make_row(0, "E4", 0.10, role=TrialRole.BASELINE, num_images=71),
    ]
    found = observations_of(summary(rows))
    assert found.placements == ("V4", "V2", "V4", "V4")
    assert found.top1 == (0.85, 0.80, 0.85, 0.83)
    assert found.num_placements == 2 and found.what == "accuracies after 7 epochs"


def test_a_table_that_answers_every_seed_alike_counts_once(summary, make_row):
    rows = [
        make_row(0, "V4", 0.85, num_images=0),
        make_row(0, "V4", 0.85, replicate=1, num_images=0),
        make_row(1, "V4", 0.83, replicate=2, num_images=0),
    ]
    assert observations_of(summary(rows)).top1 == (0.85, 0.83)


def test_longer_trainings_and_those_after_a_supernet_are_left_out(summary, make_row):
    rows = [
        make_row(0, "V4", 0.85, fidelity_key=SHORT.key),
        make_row(0, "V4", 0.95, replicate=1, fidelity_key=LONG.key),
    ]
    assert observations_of(summary(rows)).top1 == (0.85,)
    scored = [
        make_row(0, "V4", 0.75, fidelity_key=INHERITED.key),
        make_row(1, "V2", 0.70, fidelity_key=INHERITED.key),
        make_row(0, "V4", 0.95, replicate=1, fidelity_key=LONG.key),
    ]
    found = observations_of(summary(scored))
    assert found.top1 == (0.75, 0.70) and found.what == "accuracies by shared weights"


def test_with_early_stopping_all_are_seen_at_the_first_rung(summary, make_row):
    rows = [
        make_row(0, "V4", 0.85),
        make_row(1, "V2", state=TrialState.PRUNED),
        make_row(2, "V3", state=TrialState.RUNNING),
        make_row(0, "V4", 0.86, replicate=1),
    ]
    reports = [
        RungRow(number, EpochMetrics(epoch, top1, 1.0), 1, True)
        for number, epoch, top1 in ((0, 2, 0.6), (1, 2, 0.5), (0, 5, 0.7), (2, 2, 0.4))
    ]
    document = {"early_stopping": {"rule": "mo-asha"}}
    found = observations_of(summary(rows, reports, fingerprint_document=document))
    assert found.placements == ("V4", "V2") and found.top1 == (0.6, 0.5)
    assert found.what == "accuracies after 2 epochs, the first rung"


def test_a_study_without_results_has_none(summary):
    assert observations_of(summary([])).num_placements == 0
