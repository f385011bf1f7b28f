"""The table of papers: as complete as the figures transcribed here, and honest by their digits.

The rule of equal figures is written here a second time, on decimal numbers.
"""

from __future__ import annotations

from decimal import ROUND_HALF_DOWN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from pathlib import Path

import pytest
import timm
import torch

from sharedattn.papers import Row, implicit_attention, rows
from sharedattn.papers.counting import WHOLE, Convention, late_less
from sharedattn.papers.page import page

DOC = Path(__file__).parents[3] / "docs" / "papers.md"

# Host, MACs before and after in G, reduction in %: the plug-in table, as it was printed.
PLUG_IN = """\
ViT-T 1.4 1.2 14.2
ViT-S 4.6 4.0 13.1
DeiT-T 1.4 1.2 14.2
DeiT-S 4.7 4.2 10.6
DeepViT-T 1.5 1.1 25.8
DeepViT-S 4.8 4.2 12.6
CeiT-T 1.2 1.1 9.0
CeiT-S 4.5 4.1 8.8
HVT-T 1.4 1.2 15.2
HVT-S 4.6 4.2 13.4
PVT-T 1.9 1.4 25.6
PVT-S 3.8 3.2 15.7
Swin-T 4.5 4.0 11.1
Swin-S 8.7 7.8 10.3
"""

# Model, params in M, MACs in G: the table of models, as it was printed.
MODELS = """\
LaViT-T 10.9 1.6
LaViT-S 22.4 3.3
LaViT-B 39.6 6.1
PVT-T 13.2 1.9
PVT-S 24.5 3.8
PVT-M 44.2 6.7
PVTv2-b1 13.1 2.1
PVTv2-b2 25.4 4.0
DeiT-T 5.7 1.3
DeiT-S 22.1 4.6
DeiT-B 86.6 17.5
Swin-T 28.3 4.5
Swin-S 49.6 8.7
Swin-B 87.8 15.4
"""


@pytest.fixture(scope="module")
def table() -> list[Row]:
    return rows()


def named(table: list[Row], model: str, metric: str, source: str = "plug-in") -> list[Row]:
    found = [
        row
        for row in table
        if (row.figure.model, row.figure.metric) == (model, metric) and source in row.figure.source
    ]
    assert found
    return found


def test_every_figure_of_the_plug_in_table_has_its_rows(table: list[Row]) -> None:
    hosts = [line.split() for line in PLUG_IN.splitlines()]
    for model, before, after, change in hosts:
        for metric, printed in (
            ("MACs", f"{before} G"),
            ("MACs with LA", f"{after} G"),
            ("change of MACs", f"-{change} %"),
        ):
            found = named(table, model, metric)
            assert {row.figure.printed for row in found} == {printed}
        conventions = [row.convention for row in found]
        assert conventions[:3] == ["maps free", "as printed", "factored"]
    of_table = {row.figure.model for row in table if "plug-in" in row.figure.source}
    assert of_table == {host[0] for host in hosts}


def test_every_figure_of_the_table_of_models_has_its_rows(table: list[Row]) -> None:
    for model, params, macs in (line.split() for line in MODELS.splitlines()):
        for metric, printed in (("params", f"{params} M"), ("MACs", f"{macs} G")):
            found = named(table, model, metric, "table of models")
            assert {row.figure.printed for row in found} == {printed}


def rounds_to_what_was_printed(row: Row) -> bool:
    number, _, unit = row.figure.printed.partition(" ")
    printed = Decimal(number.replace(",", ""))
    factor = {"": 1, "M": 10**6, "G": 10**9, "%": Fraction(1, 100)}[unit]
    assert row.ours is not None
    in_unit = row.ours / factor
    ours = Decimal(in_unit.numerator) / Decimal(in_unit.denominator)
    return any(
        ours.quantize(printed, rounding=way) == printed for way in (ROUND_HALF_UP, ROUND_HALF_DOWN)
    )


def test_a_status_is_what_the_digits_say(table: list[Row]) -> None:
    for row in table:
        if row.status == "equal":
            assert rounds_to_what_was_printed(row)
            assert not row.figure.recalled
        elif row.status == "explained" and not row.figure.shown_like and not row.figure.recalled:
            assert not rounds_to_what_was_printed(row)
        if row.status != "equal":
            assert row.note, row
        if row.ours is not None:
            assert row.convention, row


def test_figures_from_memory_are_marked(table: list[Row]) -> None:
    recalled = [row for row in table if row.figure.recalled]
    assert {(row.figure.model, row.figure.printed) for row in recalled} == {
        ("SA layer", "1.00 M"),
        ("SA layer", "292 G"),
        ("EA layer", "0.55 M"),
        ("EA layer", "9.2 G"),
    }
    assert {row.status for row in recalled} == {"explained"}
    assert all(row.note.startswith("from memory") for row in recalled)


def test_one_printed_reduction_contradicts_its_own_row(table: list[Row]) -> None:
    impossible = {
        row.figure.model: row.note for row in table if "impossible by the printed MACs" in row.note
    }
    assert list(impossible) == ["HVT-S"]
    # 4.25 / 4.55 and 4.15 / 4.65.
    assert "4.6 G to 4.2 G is -6.6 % to -10.8 %" in impossible["HVT-S"]


@pytest.mark.parametrize("model", ["ViT-T", "DeiT-T"])
def test_a_counter_that_misses_fused_attention_gives_the_printed_reduction(
    table: list[Row], model: str
) -> None:
    phantom = named(table, model, "change of MACs")[-1]
    N, D = 197, 192
    assert phantom.ours == Fraction(-12 * 2 * N**2 * D, 1_258_411_200)
    assert phantom.status == "equal"
    assert phantom.network.endswith(": V12")
    assert "nothing is replaced" in phantom.note


def test_reductions_are_those_of_their_networks(table: list[Row]) -> None:
    conventions = {"maps free": "free", "as printed": "paper", "factored": "factored"}
    for row in table:
        if row.figure.metric == "change of MACs" and row.convention in conventions:
            backbone = row.network.partition(": ")[0]
            convention = Convention(conventions[row.convention])  # type: ignore[arg-type]
            assert row.ours == convention.change(row.network, late_less(backbone, ()))


def test_pvt_tiny_s_reduction_is_more_than_all_of_attention(table: list[Row]) -> None:
    row = named(table, "PVT-T", "change of MACs")[0]
    nothing = WHOLE.count("pvt_tiny: N2 | N2 | N2 | N2").macs
    whole = WHOLE.count("pvt_tiny: V2 | V2 | V2 | V2").macs
    assert nothing / whole - 1 > -0.256
    assert f"no attention at all {100 * (nothing / whole - 1):+.1f} %" in row.note


@pytest.mark.parametrize(
    ("model", "params"), [("resnet50", 25_557_032), ("resnet101", 44_549_160)]
)
def test_the_plain_networks_of_dia_are_timm_s(model: str, params: int) -> None:
    with torch.device("meta"):
        plain = sum(p.numel() for p in timm.create_model(model).parameters())
    of_dia = [n for n in implicit_attention.NETWORKS if n.model.lower().replace("-", "") == model]
    assert of_dia
    assert {network.plain_params for network in of_dia} == {params} == {plain}


def test_the_plain_network_of_resnet_20_by_hand() -> None:
    def stage(inside: int, width: int) -> int:
        # Three blocks of two convolutions with a norm each, and a shortcut where widths change.
        convolutions = 9 * inside * width + 5 * 9 * width**2
        shortcut = (inside * width + 2 * width) * (inside != width)
        return convolutions + 6 * 2 * width + shortcut

    stem, head = 9 * 3 * 16 + 2 * 16, 64 * 10 + 10
    plain = stem + stage(16, 16) + stage(16, 32) + stage(32, 64) + head
    [network] = [n for n in implicit_attention.NETWORKS if n.model == "ResNet-20"]
    assert network.plain_params == plain


def test_the_page_in_the_docs_is_the_table(table: list[Row]) -> None:
    assert DOC.read_text(encoding="utf-8") == page(table), (
        "run: sharedattn papers --to docs/papers.md"
    )
