"""Rows about networks: conventions tried one by one, and placements counted all at once."""

from __future__ import annotations

from fractions import Fraction

import pytest

from sharedattn.papers.counting import (
    PARTIAL,
    WHOLE,
    Convention,
    late_less,
    macs_rows,
    params_rows,
    savings,
)
from sharedattn.papers.figures import Figure

DEIT = "deit_tiny_patch16_224"
N, D, H = 197, 192, 3
MACS = 1_258_411_200
NORMS, PRODUCTS = 25 * 5 * N * D, 12 * 2 * N**2 * D


def figure(metric: str, printed: str) -> Figure:
    return Figure(paper="P", source="a table", model="M", metric=metric, printed=printed)


def test_late_less() -> None:
    assert late_less(DEIT, [5]) == f"{DEIT}: V7L5"
    assert late_less("pvt_v2_b2", [0, 1, 5, 2]) == "pvt_v2_b2: V3 | V3L1 | V1L5 | V1L2"
    assert late_less("pvt_v2_b1", ()) == "pvt_v2_b1: V2 | V2 | V2 | V2"
    assert late_less(DEIT, (), "N") == f"{DEIT}: N12"


def test_conventions_by_hand() -> None:
    network = f"{DEIT}: V12"
    assert [convention.count(network).macs for convention in (WHOLE, *PARTIAL)] == [
        MACS,
        MACS - NORMS,
        MACS - PRODUCTS,
        MACS - NORMS - PRODUCTS,
    ]
    assert [str(convention) for convention in (WHOLE, *PARTIAL)] == [
        "whole",
        "no norms",
        "no attention products",
        "no norms, no attention products",
    ]
    assert str(Convention("paper", norms=False)) == "as printed, no norms"


def test_what_a_less_layer_saves_by_hand() -> None:
    free, printed, factored = (
        savings(DEIT, Convention(maps)) for maps in ("free", "paper", "factored")
    )
    one = 2 * N * D**2 + N**2 * D
    by_layers = {saving.num_less: saving for saving in free}
    assert {k: s.change for k, s in by_layers.items()} == {
        k: Fraction(-k * one, MACS) for k in range(1, 12)
    }
    assert by_layers[8].network == f"{DEIT}: V4L8"
    assert {s.num_less: s.change for s in printed} == {
        k: Fraction(k * (2 * H * N**3 - one), MACS) for k in range(1, 12)
    }
    assert {s.num_less: s.change for s in factored} == {
        k: Fraction(k * 2 * N * D * (N - D), MACS) for k in range(1, 12)
    }
    assert [s.num_less for s in free] == list(range(11, 0, -1))
    assert [s.num_less for s in printed] == list(range(1, 12))


@pytest.mark.parametrize("maps", ["free", "paper", "factored"])
@pytest.mark.parametrize(
    "backbone", ["pvt_v2_b0", "swin_tiny_patch4_window7_224(handover=previous)"]
)
def test_savings_are_those_of_whole_networks(backbone: str, maps: str) -> None:
    convention = Convention(maps, norms=False)  # type: ignore[arg-type]
    found = savings(backbone, convention)
    assert len(found) == {"pvt_v2_b0": 2**4 - 1}.get(backbone, 2 * 2 * 6 * 2 - 1)
    base = late_less(backbone, ())
    assert [s.change for s in found[::7]] == [
        convention.change(s.network, base) for s in found[::7]
    ]
    assert [s.cost for s in found[::7]] == [convention.count(s.network) for s in found[::7]]
    assert [s.change for s in found] == sorted(s.change for s in found)


def test_a_figure_that_a_convention_explains_has_a_row_more() -> None:
    whole, partial = macs_rows(figure("MACs", "1.08 G"), f"{DEIT}: V12")
    assert (whole.status, whole.ours, whole.note) == (
        "explained",
        MACS,
        "1.0796 G with no attention products",
    )
    assert (partial.status, partial.ours) == ("equal", MACS - PRODUCTS)
    assert partial.convention == "no attention products"


def test_an_equal_figure_has_one_row() -> None:
    [row] = macs_rows(figure("MACs", "1.26 G"), f"{DEIT}: V12")
    assert (row.status, row.convention, row.note) == ("equal", "whole", "")
    [row] = params_rows(figure("params", "5.7 M"), f"{DEIT}: V12")
    assert (row.status, row.convention, row.note) == ("equal", "all parameters", "")


def test_a_figure_that_was_cut_off() -> None:
    [row] = macs_rows(figure("MACs", "17.5 G"), "deit_base_patch16_224: V12")
    assert row.status == "explained"
    assert row.note == "17.583 G cut off after the printed digits, not rounded"


def test_conventions_do_not_make_an_unknown_network_known() -> None:
    found = macs_rows(figure("MACs", "1.08 G"), f"{DEIT}: V12", reason="why", known=False)
    assert [row.convention for row in found] == ["whole", "no attention products"]
    assert {(row.status, row.note) for row in found} == {("unknown shape", "why")}


def test_parameters_that_no_training_changes() -> None:
    # 197 fixed positions of 448 channels, and the rest.
    network, trainable = "t2t_ea_19: E19/mea", 54_470_798
    [row] = params_rows(figure("params", "54 M"), network)
    assert (row.status, row.ours, row.convention) == ("equal", trainable, "trainable parameters")
    first, second = params_rows(figure("params", "55 M"), network)
    assert (first.status, first.ours) == ("explained", trainable)
    assert first.note == "54.56 M with those that no training changes"
    assert (second.status, second.convention) == ("equal", "all parameters")
    assert second.ours == trainable + 197 * 448
