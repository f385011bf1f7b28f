"""How the trials of a search rank what was trained for longer."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest

from sharedattn.objectives import parse_objectives
from sharedattn.results.front.confirmation import (
    NUM_CHECKED,
    candidates,
    next_confirmations,
    study_front,
    to_check,
)
from sharedattn.results.front.ranking import ranking_of
from sharedattn.results.front.summary import StudySummary, front_document
from sharedattn.results.records import Fidelity, Study, StudyRecord, TrialRole, TrialRow

Row = Callable[..., TrialRow]
OBJECTIVES = parse_objectives(("top1", "macs"))
SHORT, LONG = Fidelity(epochs=4, image_size=16), Fidelity(epochs=64, image_size=16)
# By MACs: the trial's accuracy and the long ones. Four of six pairs keep their order in trials,
# five of six by MACs.
TABLE = {
    "V1": (100, 0.60, (0.81, 0.83)),
    "V1N1": (150, 0.50, (0.84, 0.86)),
    "V2": (200, 0.80, (0.88, 0.88)),
    "V3": (300, 0.55, (0.85, 0.87)),
}


@pytest.fixture
def rows(make_row: Row) -> list[TrialRow]:
    searched = [
        make_row(i, text, top1, macs, fidelity_key=SHORT.key)
        for i, (text, (macs, top1, _)) in enumerate(TABLE.items())
    ]
    longer = [
        make_row(2 * i + r, text, top1, macs, replicate=r, fidelity_key=LONG.key)
        for i, (text, (macs, _, top1s)) in enumerate(TABLE.items())
        for r, top1 in enumerate(top1s)
    ]
    return [*searched, *(row._replace(role=TrialRole.CONFIRM) for row in longer)]


def test_tau_counts_the_pairs_that_keep_their_order(rows: list[TrialRow]) -> None:
    found = ranking_of(rows, OBJECTIVES)
    assert found is not None
    # Concordant less discordant pairs, of six: 4 - 2 for trials, 5 - 1 for MACs.
    assert found.tau == pytest.approx((4 - 2) / 6)
    assert found.macs_tau == pytest.approx((5 - 1) / 6)
    low, high = found.interval
    assert -1 <= low <= found.tau <= high <= 1
    assert [c.placement for c in found.trial_front] == ["V1", "V2"]
    [said] = found.warnings
    assert said.startswith("trials of 4 epochs rank 4 placements (tau 0.33) no better than MACs")
    assert str(found).startswith("4 placements trained for 64 epochs as well as for 4 epochs; ")


def test_trials_that_rank_better_than_costs_are_not_warned_of(rows: list[TrialRow]) -> None:
    order = {"V1": 0.1, "V1N1": 0.2, "V2": 0.4, "V3": 0.3}
    better = [
        row._replace(top1=order[row.placement]) if row.role is TrialRole.SEARCH else row
        for row in rows
    ]
    found = ranking_of(better, OBJECTIVES)
    assert found.tau == pytest.approx(1.0)
    assert found.warnings == []


def test_two_placements_are_too_few(rows: list[TrialRow]) -> None:
    found = ranking_of([r for r in rows if r.placement in ("V1", "V2")], OBJECTIVES)
    assert (found.tau, found.interval, found.warnings) == (None, None, [])
    assert str(found).endswith("too few to compare their orders")
    assert ranking_of([r for r in rows if r.role is TrialRole.SEARCH], OBJECTIVES) is None


def test_members_get_all_seeds_and_what_is_checked_one(rows: list[TrialRow]) -> None:
    searched = [row for row in rows if row.role is TrialRole.SEARCH]
    due = next_confirmations(searched, OBJECTIVES, 2, retrains=True)
    assert [(run.placement, run.replicate) for run in due] == [
        ("V1", 0),
        ("V1", 1),
        ("V2", 0),
        ("V2", 1),
        # The deepest all-vanilla network, then the others once.
        ("V3", 0),
        ("V3", 1),
        ("V1N1", 0),
    ]
    # Until all have ended the front is that of the trials.
    begun = study_front(rows[:6], OBJECTIVES, 2, retrains=True)
    assert (begun.fidelity, begun.is_confirmed) == (SHORT, False)
    ended = study_front(rows, OBJECTIVES, 2, retrains=True)
    assert (ended.fidelity, ended.is_confirmed) == (LONG, True)
    assert [c.placement for c in ended.members] == ["V1", "V1N1", "V2"]
    assert next_confirmations(rows, OBJECTIVES, 2, retrains=True) == ()


def test_what_is_checked_is_spread_over_macs(make_row: Row) -> None:
    rows = [make_row(i, f"V{i + 1}", 0.9 - i / 100, 1000 + i) for i in range(21)]
    pool = candidates(rows, 1)
    chosen = to_check(pool, pool[:1])
    assert [c.macs for c in chosen] == [1003, 1008, 1013, 1018]
    assert len(chosen) == NUM_CHECKED
    assert to_check(pool[:1], pool[:1]) == ()


def test_the_document_has_both_fronts(
    rows: list[TrialRow], make_study: Callable[..., StudyRecord]
) -> None:
    record = make_study()
    record = replace(
        record,
        confirm_seeds=2,
        fingerprint_document={**record.fingerprint_document, "final_epochs": 64},
    )
    study = Study(id=1, record=record, created_at=datetime(2026, 12, 1), finished_at=None)
    document = front_document(StudySummary(study, rows))
    assert document["fidelity"]["epochs"] == 64
    assert [m["placement"] for m in document["front"]] == ["V1", "V1N1", "V2"]
    ranking = document["ranking"]
    assert [m["placement"] for m in ranking["trial_front"]] == ["V1", "V2"]
    assert [p["top1"] for p in ranking["placements"]] == pytest.approx([0.82, 0.85, 0.88, 0.86])
    assert any("no better than MACs" in warning for warning in document["warnings"])
