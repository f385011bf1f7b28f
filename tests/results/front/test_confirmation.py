"""Hand cases: accuracies are chosen so that the front can be read off."""

import math
from collections.abc import Callable

import pytest

from sharedattn.errors import InputError
from sharedattn.objectives import parse_objectives
from sharedattn.results.front.confirmation import (
    Confirmation,
    candidates,
    next_confirmations,
    objective_values,
    pareto_members,
    retrained_fidelity,
    search_fidelity,
    study_front,
    to_retrain,
)
from sharedattn.results.records import Fidelity, TrialRole, TrialRow, TrialState

OBJECTIVES = parse_objectives(["top1", "macs"])
Row = Callable[..., TrialRow]


@pytest.fixture
def search(make_row: Row) -> list[TrialRow]:
    """V1 and V3 are on the front of single runs, V2 is below V1, V4 equals V3."""
    return [
        make_row(0, "V3", 0.80, macs=3),
        make_row(1, "V1", 0.70, macs=1),
        make_row(2, "V2", 0.69, macs=2),
        make_row(3, "V4", 0.80, macs=3),
        make_row(4, "V5", state=TrialState.FAILED, macs=5),
        make_row(5, "V6", state=TrialState.RUNNING, macs=6),
    ]


def asked(rows: list[TrialRow], num_seeds: int) -> list[tuple[str, int]]:
    due = next_confirmations(rows, OBJECTIVES, num_seeds)
    return [(confirmation.placement, confirmation.replicate) for confirmation in due]


def test_candidates_are_complete_placements_of_equal_fidelity(
    search: list[TrialRow], make_row: Row
) -> None:
    low = Fidelity(epochs=1, image_size=16).key
    rows = [
        *search,
        make_row(6, "V1", 0.70, macs=1, reused=True),  # proposed twice
        make_row(7, "V7", 0.99, macs=1, fidelity_key=low),
        make_row(1, "V1", 0.74, macs=1, replicate=2),
        make_row(0, "V1", 0.72, macs=1, replicate=1),
        make_row(2, "V1", 0.10, macs=1, replicate=3),  # beyond K
    ]
    pool = candidates(rows, num_seeds=3)
    assert [c.number for c in pool] == [0, 1, 2, 3]
    assert pool[1].top1s == (0.70, 0.72, 0.74)
    assert pool[1].top1 == pytest.approx(0.72, abs=1e-15)
    # SD of (-0.02, 0, 0.02) is 0.02.
    assert pool[1].top1_standard_error == pytest.approx(0.02 / math.sqrt(3), abs=1e-15)
    assert pool[0].top1_standard_error is None
    assert not pool[1].is_reused
    assert pool[1].best_run.replicate == 2
    assert search_fidelity(rows) == Fidelity(epochs=7, image_size=16)
    assert candidates([], num_seeds=3) == []


def test_the_best_run_of_equal_ones_is_the_earliest(make_row: Row) -> None:
    rows = [make_row(0, "V1", 0.7), make_row(0, "V1", 0.7, replicate=1)]
    assert candidates(rows, 3)[0].best_run.replicate == 0


def test_latency_is_that_of_the_placement_in_its_study(make_row: Row) -> None:
    rows = [make_row(0, "V1", latency_ms=3.0), make_row(0, "V1", replicate=1, latency_ms=3.0)]
    objectives = parse_objectives(["top1", "latency_ms", "params"])
    assert objective_values(candidates(rows, 3), objectives).tolist() == [[0.5, 3.0, 10.0]]
    with pytest.raises(InputError, match="trial 0 has no latency_ms, which the study compares"):
        objective_values(candidates([make_row(0)], 3), objectives)


def test_the_front_of_single_runs_keeps_ties_and_runs_from_cheap_to_dear(
    search: list[TrialRow],
) -> None:
    front = study_front(search, OBJECTIVES, num_seeds=1)
    assert [m.placement for m in front.members] == ["V1", "V3", "V4"]
    assert not front.is_confirmed
    assert front.fidelity == Fidelity(epochs=7, image_size=16)
    assert pareto_members([], OBJECTIVES) == ()


def test_a_study_without_complete_trials_has_an_empty_front(make_row: Row) -> None:
    rows = [make_row(0, state=TrialState.RUNNING)]
    front = study_front(rows, OBJECTIVES, num_seeds=3)
    assert front.members == ()
    assert front.fidelity is None
    assert next_confirmations(rows, OBJECTIVES, 3) == ()


def test_one_seed_asks_for_nothing(search: list[TrialRow]) -> None:
    assert next_confirmations(search, OBJECTIVES, 1) == ()


def test_the_first_round_asks_for_the_missing_runs_of_every_member(
    search: list[TrialRow],
) -> None:
    assert asked(search, 3) == [(p, r) for p in ("V1", "V3", "V4") for r in (1, 2)]
    assert next_confirmations(search, OBJECTIVES, 2)[1] == Confirmation(0, "key of V3", "V3", 1)


def test_a_round_that_was_stopped_asks_for_the_rest_of_the_same_round(
    search: list[TrialRow], make_row: Row
) -> None:
    # V1 has its runs and their mean falls below V2. The round goes on as it began, without V2.
    done = [
        make_row(0, "V1", 0.60, macs=1, replicate=1),
        make_row(1, "V1", 0.60, macs=1, replicate=2),
        make_row(2, "V3", 0.80, macs=3, replicate=1),
        make_row(3, "V4", macs=3, replicate=2, state=TrialState.RUNNING),
    ]
    assert asked([*search, *done], 3) == [("V3", 2), ("V4", 1)]


def test_a_member_that_falls_makes_room_for_another(search: list[TrialRow], make_row: Row) -> None:
    # Mean of V1 is 0.65: V2 with 0.69 comes onto the front and is asked for.
    rows = [
        *search,
        make_row(0, "V1", 0.60, macs=1, replicate=1),
        make_row(1, "V3", 0.78, macs=3, replicate=1),
        make_row(2, "V4", 0.76, macs=3, replicate=1),
    ]
    assert asked(rows, 2) == [("V2", 1)]
    not_yet = study_front(rows, OBJECTIVES, 2)
    assert not not_yet.is_confirmed
    assert [m.placement for m in not_yet.members] == ["V1", "V2", "V3"]

    rows.append(make_row(3, "V2", 0.59, macs=2, replicate=1))  # mean 0.64, below V1 again
    assert asked(rows, 2) == []
    final = study_front(rows, OBJECTIVES, 2)
    assert final.is_confirmed
    assert [m.placement for m in final.members] == ["V1", "V3"]
    assert [m.top1 for m in final.members] == pytest.approx([0.65, 0.79], abs=1e-15)


def test_a_running_confirmation_is_waited_for(search: list[TrialRow], make_row: Row) -> None:
    rows = [
        *search,
        make_row(0, "V1", macs=1, replicate=1, state=TrialState.RUNNING),
        make_row(1, "V3", 0.80, macs=3, replicate=1),
        make_row(2, "V4", 0.80, macs=3, replicate=1),
    ]
    assert asked(rows, 2) == []
    assert not study_front(rows, OBJECTIVES, 2).is_confirmed


def test_a_placement_whose_confirmation_failed_is_out(
    search: list[TrialRow], make_row: Row
) -> None:
    rows = [
        *search,
        make_row(0, "V1", macs=1, replicate=1, state=TrialState.FAILED),
        make_row(1, "V3", 0.80, macs=3, replicate=1),
        make_row(2, "V4", 0.80, macs=3, replicate=1),
    ]
    assert asked(rows, 2) == [("V2", 1)]
    rows.append(make_row(3, "V2", 0.69, macs=2, replicate=1))
    assert asked(rows, 2) == []
    front = study_front(rows, OBJECTIVES, 2)
    assert front.is_confirmed
    assert [m.placement for m in front.members] == ["V2", "V3", "V4"]


def test_where_every_confirmation_failed_the_front_is_not_confirmed(make_row: Row) -> None:
    rows = [make_row(0, "V1"), make_row(0, "V1", replicate=1, state=TrialState.FAILED)]
    front = study_front(rows, OBJECTIVES, 2)
    assert not front.is_confirmed
    assert [m.placement for m in front.members] == ["V1"]


def test_confirmation_ends_at_twice_the_first_front(make_row: Row) -> None:
    # Equal costs: the first front is V9 alone, and each mean falls below the next single run.
    rows = [make_row(i, f"V{i + 1}", 0.5 + i / 100) for i in range(9)]
    asked_for = []
    while due := next_confirmations(rows, OBJECTIVES, 2):
        for confirmation in due:
            asked_for.append(confirmation.placement)
            rows.append(make_row(len(asked_for), confirmation.placement, 0.1, replicate=1))
    assert asked_for == ["V9", "V8"]
    front = study_front(rows, OBJECTIVES, 2)
    assert front.is_confirmed
    assert [m.placement for m in front.members] == ["V9"]


def test_the_last_round_is_cut_at_the_limit_from_the_cheap_end(make_row: Row) -> None:
    # One member of macs 1 and accuracy 0.9 hides three others; its mean is 0.1, and all three
    # come up at once, of which one is within the limit of two.
    rows = [
        make_row(0, "V1", 0.9, macs=1),
        make_row(1, "V2", 0.6, macs=2),
        make_row(2, "V3", 0.7, macs=3),
        make_row(3, "V4", 0.8, macs=4),
        make_row(0, "V1", -0.7, macs=1, replicate=1),
    ]
    assert asked(rows, 2) == [("V2", 1)]


def test_confirmation_does_not_depend_on_the_order_of_completion(make_row: Row) -> None:
    """A search stopped after any number of runs, in any order, asks for the same ones in all."""

    def value(placement: str, replicate: int) -> float:
        return (hash_of[placement] * (replicate + 3) * 37 % 101) / 101

    hash_of = {f"V{i}": i * i + 7 for i in range(1, 24)}
    first = [make_row(i, p, value(p, 0), macs=i % 7 + 1) for i, p in enumerate(hash_of)]
    totals = []
    for step in (1, 2, 5, 1000):
        rows, begun = list(first), set()
        while due := next_confirmations(rows, OBJECTIVES, 3):
            # Only some are run before everything is stopped, the last of the round first.
            for confirmation in due[::-1][:step]:
                placement, replicate = confirmation.placement, confirmation.replicate
                begun.add((placement, replicate))
                macs = first[confirmation.number].macs
                top1 = value(placement, replicate)
                rows.append(make_row(len(rows), placement, top1, macs, replicate=replicate))
        totals.append((begun, study_front(rows, OBJECTIVES, 3).members[0].placement))
    assert totals[0][0] and all(total == totals[0] for total in totals)


INHERITED = Fidelity(epochs=11, image_size=16, weights="inherited")
TRAINED = Fidelity(epochs=7, image_size=16)


@pytest.fixture
def scored(make_row: Row) -> list[TrialRow]:
    """Five placements by shared weights: V1, V3 and V5 are on the front."""
    tops = {"V1": (0.5, 1), "V2": (0.4, 2), "V3": (0.6, 3), "V4": (0.55, 4), "V5": (0.7, 5)}
    return [
        make_row(number, text, top1, macs=macs, fidelity_key=INHERITED.key)
        for number, (text, (top1, macs)) in enumerate(tops.items())
    ]


def retrained(
    make_row: Row, number: int, text: str, macs: int, tops: list[float]
) -> list[TrialRow]:
    return [
        make_row(number + r, text, top1, macs=macs, role=TrialRole.CONFIRM, replicate=r)
        for r, top1 in enumerate(tops)
    ]


def test_members_of_an_inherited_front_are_trained_from_replicate_0_on(
    scored: list[TrialRow],
) -> None:
    assert asked(scored, 2) == [(p, r) for p in ("V1", "V3", "V5") for r in (0, 1)]
    assert asked(scored, 1) == [("V1", 0), ("V3", 0), ("V5", 0)]
    assert asked(scored, 0) == []
    front = study_front(scored, OBJECTIVES, 2)
    assert ([m.placement for m in front.members], front.fidelity) == (
        ["V1", "V3", "V5"],
        INHERITED,
    )
    assert not front.is_confirmed
    assert retrained_fidelity(scored) is None


def test_inherited_and_trained_accuracies_never_share_a_front(
    scored: list[TrialRow], make_row: Row
) -> None:
    rows = [*scored, *retrained(make_row, 0, "V1", 1, [0.2, 0.4])]
    rows += retrained(make_row, 2, "V3", 3, [0.25, 0.25])
    # While one of them is still to be trained, the front is of inherited accuracies.
    assert study_front(rows, OBJECTIVES, 2).fidelity == INHERITED
    assert asked(rows, 2) == [("V5", 0), ("V5", 1)]
    rows += retrained(make_row, 4, "V5", 5, [0.31, 0.33])
    front = study_front(rows, OBJECTIVES, 2)
    # V3 is dominated by V1 now, whatever V2 and V4 had from shared weights.
    assert [(m.placement, m.number) for m in front.members] == [("V1", 0), ("V5", 4)]
    assert [m.top1 for m in front.members] == pytest.approx([0.3, 0.32], abs=1e-15)
    assert (front.is_confirmed, front.fidelity) == (True, TRAINED)
    assert asked(rows, 2) == []
    # A third seed may be asked for later on.
    assert asked(rows, 3) == [("V1", 2), ("V3", 2), ("V5", 2)]


def test_a_long_front_is_thinned_evenly_and_keeps_its_ends(make_row: Row) -> None:
    rows = [
        make_row(i, f"V{i + 1}", i / 64, macs=i + 1, fidelity_key=INHERITED.key) for i in range(34)
    ]
    members = study_front(rows, OBJECTIVES, 3).members
    assert len(members) == 34
    assert [m.number for m in to_retrain(members, OBJECTIVES)] == list(range(0, 34, 3))
    assert to_retrain(members[:12], OBJECTIVES) == members[:12]
    assert to_retrain(members[:2], OBJECTIVES, members[30]) == (*members[:2], members[30])
    assert to_retrain(members[:2], OBJECTIVES, members[1]) == members[:2]


def test_of_members_that_are_alike_the_first_is_trained(make_row: Row) -> None:
    rows = [
        make_row(i, f"V{i + 1}", i // 2 / 64, macs=i // 2 + 1, fidelity_key=INHERITED.key)
        for i in range(24)
    ]
    members = study_front(rows, OBJECTIVES, 3).members
    assert len(members) == 24
    assert [m.number for m in to_retrain(members, OBJECTIVES)] == list(range(0, 24, 2))
