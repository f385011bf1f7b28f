import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharedattn.errors import InputError
from sharedattn.objectives import OBJECTIVES, parse_objectives
from sharedattn.results.front.pareto import (
    FloatArray,
    hypervolume,
    hypervolume_history,
    knee,
    non_dominated,
    to_losses,
)

TOP1_MACS = parse_objectives(["top1", "macs"])
THREE = parse_objectives(["top1", "macs", "params"])
FOUR = parse_objectives(["top1", "macs", "params", "latency_ms"])
UNIT = {"top1": 0.0, "macs": 1.0, "params": 1.0, "latency_ms": 1.0}


def brute_force_members(losses: FloatArray) -> list[bool]:
    return [
        not any(np.all(other <= point) and np.any(other < point) for other in losses)
        for point in losses
    ]


def grid_volume(losses: FloatArray, cells: int) -> float:
    """Volume of points on a grid of `cells` a side, counted cell by cell."""
    corners = list(itertools.product(range(cells), repeat=losses.shape[1]))
    dominated = sum(any(np.all(point <= corner) for point in losses) for corner in corners)
    return dominated / len(corners)


def points(dimensions: int, cells: int, most: int) -> st.SearchStrategy[FloatArray]:
    row = st.lists(st.integers(0, cells), min_size=dimensions, max_size=dimensions)
    return st.lists(row, min_size=1, max_size=most).map(lambda rows: np.array(rows, dtype=float))


def test_parse_objectives() -> None:
    assert [o.name for o in THREE] == ["top1", "macs", "params"]
    with pytest.raises(
        InputError, match="`objectives` names 'accuracy', which is none; name top1 and then"
    ):
        parse_objectives(["accuracy", "macs"])
    for names in ([], ["top1"], ["macs", "top1"], ["top1", "macs", "macs"]):
        with pytest.raises(InputError, match="name top1 first, then at least one cost, each once"):
            parse_objectives(names)


def test_losses_are_turned_so_that_less_is_better() -> None:
    values = np.array([[0.75, 3, 5, 7]])
    assert to_losses(values, FOUR).tolist() == [[-0.75, 3, 5, 7]]


def test_a_front_by_hand() -> None:
    #  top1, macs: b is dominated by a, d by c; e repeats c; f is most expensive and best.
    values = np.array([[0.7, 3], [0.6, 5], [0.8, 7], [0.8, 8], [0.8, 7], [0.9, 11], [0.7, 3.5]])
    members = non_dominated(to_losses(values, TOP1_MACS))
    assert members.tolist() == [True, False, True, False, True, True, False]


def test_the_front_of_nothing_and_of_one() -> None:
    assert non_dominated(np.empty((0, 2))).tolist() == []
    assert non_dominated(np.empty((0, 3))).tolist() == []
    assert non_dominated(np.array([[2.0, 3.0]])).tolist() == [True]


@pytest.mark.parametrize("dimensions", [2, 3, 4])
def test_the_front_agrees_with_pairwise_comparison(dimensions: int) -> None:
    @given(points(dimensions, cells=5, most=30))
    def check(losses: FloatArray) -> None:
        assert non_dominated(losses).tolist() == brute_force_members(losses)

    check()


def test_the_hypervolume_of_a_staircase() -> None:
    # n steps: points (i/n accuracy, i/n cost) dominate sum of 1/n * (i/n), i < n.
    n = 7
    values = np.array([[i / n, i / n] for i in range(1, n)])
    expected = sum(1 / n * (1 - i / n) for i in range(1, n))
    assert hypervolume(values, TOP1_MACS, UNIT) == pytest.approx(expected, abs=1e-15)
    assert expected == pytest.approx((n - 1) / (2 * n))


def test_the_hypervolume_of_one_point_in_every_dimension() -> None:
    reference = {"top1": 0.5, "macs": 1100.0, "params": 200.0, "latency_ms": 10.0}
    value = [0.9, 330.0, 150.0, 6.0]
    shares = [0.4 / 0.5, 770 / 1100, 50 / 200, 4 / 10]
    for m in (2, 3, 4):
        names = list(reference)[:m]
        found = hypervolume(np.array([value[:m]]), parse_objectives(names), reference)
        assert found == pytest.approx(math.prod(shares[:m]), abs=1e-15)


def test_the_hypervolume_of_three_boxes_by_inclusion_and_exclusion() -> None:
    # Losses a = (1, 2, 3) / 4, b = (2, 1, 3) / 4, c = (3, 3, 1) / 4 with reference 1:
    # a: 3*2*1, b: 2*3*1, c: 1*1*3, a&b: 2*2*1, a&c: 1*1*1, b&c: 1*1*1, all: 1*1*1.
    losses = np.array([[1, 2, 3], [2, 1, 3], [3, 3, 1]]) / 4
    values = np.column_stack([1 - losses[:, 0], losses[:, 1:]])
    expected = (6 + 6 + 3 - 4 - 1 - 1 + 1) / 64
    assert hypervolume(values, THREE, UNIT) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("dimensions", "cells"), [(2, 7), (3, 5), (4, 3)])
def test_the_hypervolume_agrees_with_counted_cells(dimensions: int, cells: int) -> None:
    objectives = FOUR[:dimensions]

    @given(points(dimensions, cells, most=9))
    def check(grid: FloatArray) -> None:
        values = np.column_stack([1 - grid[:, 0] / cells, grid[:, 1:] / cells])
        expected = grid_volume(grid, cells)
        assert hypervolume(values, objectives, UNIT) == pytest.approx(expected, abs=1e-12)

    check()


def test_points_outside_the_box_add_nothing() -> None:
    reference = {"top1": 0.5, "macs": 10.0}
    inside, worse, on_the_edge = [0.75, 5.0], [0.25, 1.0], [0.9, 10.0]
    alone = hypervolume(np.array([inside]), TOP1_MACS, reference)
    assert alone == 0.25
    assert hypervolume(np.array([inside, worse, on_the_edge]), TOP1_MACS, reference) == alone
    assert hypervolume(np.array([worse, on_the_edge]), TOP1_MACS, reference) == 0
    assert hypervolume(np.empty((0, 2)), TOP1_MACS, reference) == 0
    assert hypervolume(np.array([[1.0, 0.0]]), TOP1_MACS, reference) == 1


def test_a_reference_point_that_means_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="lacks macs; give a value"):
        hypervolume(np.array([[0.5, 1]]), TOP1_MACS, {"top1": 0.1})
    for reference in ({"top1": 1.0, "macs": 3.0}, {"top1": 0.5, "macs": 0.0}):
        with pytest.raises(InputError, match="worse than the ideal"):
            hypervolume(np.array([[0.5, 1]]), TOP1_MACS, reference)


@given(points(2, cells=9, most=25))
def test_the_history_is_the_hypervolume_of_each_beginning(grid: FloatArray) -> None:
    values = np.column_stack([1 - grid[:, 0] / 9, grid[:, 1] / 9])
    history = hypervolume_history(values, TOP1_MACS, UNIT)
    expected = [hypervolume(values[: i + 1], TOP1_MACS, UNIT) for i in range(len(values))]
    assert history == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("values", "index"),
    [
        # From (0.5, 1) to (0.9, 11): (0.8, 3) is farthest above the chord.
        ([[0.5, 1], [0.8, 3], [0.85, 7], [0.9, 11]], 1),
        # The chord is straight and the front bulges inward: the most accurate.
        ([[0.5, 1], [0.6, 8], [0.9, 11]], 2),
        ([[0.5, 1], [0.7, 6], [0.9, 11]], 2),
        ([[0.5, 1], [0.9, 11]], 1),
        ([[0.7, 3]], 0),
        # Equal members: no spread to scale by.
        ([[0.7, 3], [0.7, 3]], 0),
    ],
)
def test_the_knee(values: list[list[float]], index: int) -> None:
    assert knee(np.array(values), TOP1_MACS) == index


def test_the_knee_in_two_dimensions_is_farthest_from_the_chord() -> None:
    rng = np.random.default_rng(3)
    cost = np.sort(rng.uniform(1, 9, 31))
    values = np.column_stack([np.sqrt(cost) / 4, cost])
    unit = (values - values.min(axis=0)) / np.ptp(values, axis=0)
    distance = (unit[:, 0] - unit[:, 1]) / math.sqrt(2)
    assert knee(values, TOP1_MACS) == np.argmax(distance)


def test_the_knee_of_three_objectives_has_the_smallest_scaled_sum() -> None:
    # Scaled losses: (0, 1, 1), (1, 0, .5), (.25, .25, 0), (.5, .5, .25).
    values = np.array([[0.9, 9, 9], [0.5, 1, 5], [0.8, 3, 1], [0.7, 5, 3]], dtype=float)
    assert knee(values, THREE) == 2


def test_an_empty_front_has_no_knee() -> None:
    with pytest.raises(InputError, match="an empty front, which has no knee"):
        knee(np.empty((0, 2)), TOP1_MACS)


def test_fifty_thousand_points() -> None:
    rng = np.random.default_rng(0)
    macs = rng.uniform(1, 9, 50_000)
    values = np.column_stack([0.5 + 0.05 * macs * rng.uniform(0, 1, 50_000), macs])
    members = non_dominated(to_losses(values, TOP1_MACS))
    volume = hypervolume(values, TOP1_MACS, {"top1": 0.5, "macs": 10.0})
    assert hypervolume(values[members], TOP1_MACS, {"top1": 0.5, "macs": 10.0}) == volume


def test_objectives_say_which_way_is_better() -> None:
    assert {name: o.direction.value for name, o in OBJECTIVES.items()} == {
        "top1": "maximize",
        "miou": "maximize",
        "map50": "maximize",
        "denoise_r2": "maximize",
        "macs": "minimize",
        "params": "minimize",
        "latency_ms": "minimize",
        "attention_bytes": "minimize",
    }
