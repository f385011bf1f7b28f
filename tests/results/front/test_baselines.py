"""A front beside networks made by hand."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest

from sharedattn.placement import NetworkSpec
from sharedattn.results.front.baselines import (
    Baseline,
    baseline_lines,
    baseline_warnings,
    best_by_hand,
    difference,
    in_budget,
    in_budget_document,
)
from sharedattn.results.front.confirmation import Candidate
from sharedattn.results.front.summary import StudySummary, front_document
from sharedattn.results.records import Study, StudyRecord, TrialRow
from sharedattn.spaces.naive import NaiveKind

Row = Callable[..., TrialRow]
VIT = "vit(depth=6,embed_dim=36,num_heads=3,patch_size=8)@24"


@pytest.fixture
def candidate(make_row: Row) -> Callable[..., Candidate]:
    def make(number: int, top1s: list[float], macs: int) -> Candidate:
        rows = [
            make_row(number, f"V{number + 1}", top1, macs, replicate=r)._replace(seed=r)
            for r, top1 in enumerate(top1s)
        ]
        return Candidate(number, tuple(rows))

    return make


@pytest.fixture
def baseline(candidate: Callable[..., Candidate]) -> Callable[..., Baseline]:
    def make(kind: str, text: str, top1s: list[float], macs: int) -> Baseline:
        spec = NetworkSpec.parse(text if ":" in text else f"{VIT}: {text}")
        return Baseline(kind=NaiveKind(kind), spec=spec, candidate=candidate(0, top1s, macs))

    return make


def test_a_difference_is_paired_by_seed(candidate, baseline):
    front = [candidate(1, [0.7, 0.7, 0.7], 900), candidate(2, [0.9, 0.8, 0.7], 1000)]
    first = baseline("first", "V4", [0.8, 0.75, 0.6], 1000)
    found = difference(first, front)
    # Differences 0.1, 0.05 and 0.1: mean 1/12, standard error 1/60, t of 2 degrees 4.30265.
    assert found.member.number == 2
    assert found.top1 == pytest.approx(1 / 12)
    assert found.half_width == pytest.approx(4.302653 / 60, rel=1e-6)
    assert str(found) == "+8.3 ± 7.2 points"
    # A dearer member does not count, however good it is.
    assert difference(baseline("first", "V4", [0.8], 999), front).member.number == 1
    assert difference(baseline("first", "V1", [0.8], 899), front) is None


def test_one_seed_has_no_interval(candidate, baseline):
    found = difference(baseline("even", "V1X1V1", [0.75], 1000), [candidate(1, [0.7], 1000)])
    assert found.top1 == pytest.approx(-0.05)
    assert found.half_width is None
    assert str(found) == "-5.0 points"


def test_the_best_made_by_hand_are_those_that_no_other_beats(baseline):
    networks = [
        baseline("uncut", "V6", [0.99], 1000),
        baseline("first", "V3", [0.8], 500),
        baseline("even", "V1X1V1X1V1", [0.7], 500),
        baseline("first", "V5", [0.8], 800),
        baseline("narrow", f"{VIT.replace('36', '24')}: V6", [0.85], 900),
    ]
    assert [b.title for b in best_by_hand(networks)] == [
        "its first 3 blocks",
        "24 channels, from scratch",
    ]


def test_the_sentences_compare_at_equal_cost(candidate, baseline):
    front = [candidate(12, [0.86, 0.87], 15_400_000)]
    networks = [
        baseline("uncut", "V6", [0.85, 0.86], 23_600_000),
        baseline("first", "V4", [0.84, 0.83], 15_900_000),
        baseline("shallow", "V1", [0.5, 0.5], 4_100_000),
    ]
    assert baseline_lines(networks, front) == [
        "at 4.10 M MACs: the front has no member, its first block, from scratch reached "
        "0.500 ± 0.000",
        "at 15.9 M MACs: +3.0 ± 12.7 points over its first 4 blocks (0.835 ± 0.005), by id 12 "
        "with 15.4 M MACs",
        "at 23.6 M MACs: +1.0 ± 0.0 points over the backbone uncut (0.855 ± 0.005), by id 12 "
        "with 15.4 M MACs",
    ]


def test_the_bests_inside_a_budget_are_compared_though_their_costs_differ(candidate, baseline):
    front = [
        candidate(3, [0.80, 0.82], 14_000_000),
        candidate(4, [0.83, 0.83], 15_000_000),
        candidate(5, [0.99, 0.99], 17_000_000),
    ]
    networks = [
        baseline("uncut", "V6", [0.95, 0.95], 16_000_000),
        baseline("first", "V3", [0.81, 0.80], 12_400_000),
        baseline("shallow", "V3", [0.82, 0.80], 12_400_000),
        baseline("first", "V5", [0.90, 0.90], 16_600_000),
    ]
    # Differences 0.01 and 0.03: standard error 0.01, t of one degree 12.7062.
    assert baseline_lines(networks, front, 16_500_000)[-1] == (
        "inside the budget of 16.5 M MACs: +2.0 ± 12.7 points between the front's best, id 4 "
        "with 15.0 M, and the best made by hand, its first 3 blocks, from scratch with 12.4 M "
        "(0.810 ± 0.010)"
    )
    by_hand, found = in_budget(networks, front, 16_600_000)
    assert (by_hand.title, found.member.number) == ("its first 5 blocks", 4)
    assert found.top1 == pytest.approx(-0.07)
    assert in_budget_document(networks, front, 16_600_000) == {
        "max_macs": 16_600_000,
        "network": str(networks[3].spec),
        "front_id": 4,
        "front_difference": pytest.approx(-0.07),
        "front_difference_half_width": pytest.approx(0.0),
    }
    assert in_budget_document(networks, front, None) is None
    assert in_budget(networks, front, 12_399_999) is None
    assert in_budget(networks, front, 13_999_999) is None
    assert "budget" not in " ".join(baseline_lines(networks, front, 13_999_999))


def test_the_same_placement_trained_in_another_way_is_named(candidate, baseline):
    member = candidate(3, [0.86, 0.87], 15_900_000)
    same = replace(baseline("first", "V4", [0.84, 0.83], 15_900_000), candidate=member)
    [line] = baseline_lines([same], [member])
    assert line.endswith("by id 3 with 15.9 M MACs, the same placement, trained in another way")


def test_a_network_by_hand_that_is_better_is_warned_of(candidate, baseline):
    front = [candidate(12, [0.70, 0.71, 0.72], 990)]
    networks = [
        baseline("first", "V4", [0.80, 0.82, 0.81], 1000),
        # Better by no more than the interval: differences -0.2, 0 and 0.1.
        baseline("narrow", f"{VIT.replace('36', '24')}: V6", [0.90, 0.71, 0.62], 999),
        # No better than one of fewer MACs.
        baseline("even", "V1X1V3", [0.80, 0.79, 0.81], 1100),
        # One seed has no interval.
        baseline("shallow", "V5", [0.99], 1200),
    ]
    # Differences -0.10, -0.11 and -0.09: standard error 0.01 / sqrt(3), t of 2 degrees 4.30265.
    [warning] = baseline_warnings(networks, front)
    assert "its first 4 blocks reached 0.810 ± 0.006 at 1.00 k MACs" in warning
    assert "id 12 differs by -10.0 ± 2.5 points" in warning
    assert baseline_warnings(networks[1:2], front) == []
    # A cheaper one that no member undercuts counts inside a budget alone.
    cheaper = [baseline("first", "V3", [0.80, 0.82, 0.81], 900)]
    assert baseline_warnings(cheaper, front) == []
    [warning] = baseline_warnings(cheaper, front, 1000)
    assert "better than the front's best inside the budget: its first 3 blocks" in warning
    assert len(baseline_warnings(networks[:1], front, 1000)) == 1


def test_the_document_names_kind_network_and_costs(
    baseline, make_study: Callable[..., StudyRecord], make_row: Row
):
    study = Study(id=1, record=make_study(), created_at=datetime(2026, 12, 1), finished_at=None)
    summary = StudySummary(study, [make_row(0, "V1", 0.7, 400)])
    assert front_document(summary)["baselines"] == []
    with_one = replace(summary, baselines=(baseline("first", "V3", [0.8], 500),))
    [one] = front_document(with_one)["baselines"]
    assert (one["kind"], one["network"]) == ("first", f"{VIT}: V3")
    assert (one["top1"], one["macs"], one["seeds"]) == (0.8, 500, 1)
    assert (one["front_id"], one["front_difference"]) == (0, pytest.approx(-0.1))
    assert one["front_difference_half_width"] is None
