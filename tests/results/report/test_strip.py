import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from xml.etree import ElementTree

import pytest

from sharedattn.results.report.strip import (
    BAND,
    CELL,
    GAP,
    STAGE_GAP,
    parts_of,
    placement_strip,
    style_of,
)

Plugged = Callable[[], AbstractContextManager[None]]

SVG = "{http://www.w3.org/2000/svg}"


def drawn(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(
        str(placement_strip(text)).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    )


def of_class(svg: ElementTree.Element, pattern: str) -> list[ElementTree.Element]:
    return [e for e in svg.iter() if re.fullmatch(pattern, e.get("class", ""))]


def test_a_cell_a_layer_in_order_with_a_gap_between_stages() -> None:
    svg = drawn("V1N1 | E1V1L1/s16")
    cells = of_class(svg, "kind-.")
    assert [c.get("class") for c in cells] == [
        "kind-V", "kind-N", "kind-E", "kind-V", "kind-L",
    ]  # fmt: skip
    step = CELL + GAP
    second = step + CELL + STAGE_GAP
    assert [int(c.get("x", "")) for c in cells] == [
        0,
        step,
        second,
        second + step,
        second + 2 * step,
    ]
    letters = [e.text for e in of_class(svg, "on-[VLEN]")]
    assert letters == ["V", "N", "E", "V", "L"]
    assert svg.findtext(f"{SVG}title") == "V1N1 | E1V1L1/s16"


def test_slots_stand_under_the_letter_of_external_layers_only() -> None:
    assert [e.text for e in of_class(drawn("E/s16,V,E/s64"), "on-E small")] == ["16", "64"]


def test_a_dot_marks_context_broadcasting() -> None:
    dots = of_class(drawn("V4/cb1"), "cb")
    assert len(dots) == 1
    assert 3 * (CELL + GAP) < float(dots[0].get("cx", "")) < 4 * (CELL + GAP)


def test_a_band_joins_neighbours_of_one_dia_unit() -> None:
    svg = drawn("V/d0,V/d0,V/d1,V,V/d0")
    bands = [(int(b.get("x", "")), int(b.get("width", ""))) for b in of_class(svg, "gate-dia")]
    step = CELL + GAP
    # The second begins in the gap after the first: they are one band.
    assert bands == [(0, CELL), (CELL, CELL + GAP), (2 * step, CELL), (4 * step, CELL)]
    assert [e.text for e in of_class(svg, "on-gate-dia small")] == ["1", "1", "2", "1"]


@pytest.mark.parametrize(("text", "height"), [("V2", CELL), ("V2/dia1", CELL + GAP + BAND)])
def test_room_for_the_band_only_where_there_is_one(text: str, height: int) -> None:
    assert drawn(text).get("height") == str(height)


def test_a_layer_that_is_left_out_is_a_gap_with_a_look_of_its_own() -> None:
    svg = drawn("V1X1V1/dia1/cb1")
    cells = of_class(svg, "kind-..*")
    assert [c.get("class") for c in cells] == ["kind-V", "kind-X absent", "kind-V"]
    step = CELL + GAP
    assert [int(c.get("x", "")) for c in cells] == [0, step, 2 * step]
    bands = [(int(b.get("x", "")), int(b.get("width", ""))) for b in of_class(svg, "gate-dia")]
    assert bands == [(0, CELL), (2 * step, CELL)]
    assert [branch.letter for branch in parts_of(["V1X1V1"]).branches] == ["V", "L", "E", "N", "X"]
    assert [branch.letter for branch in parts_of(["V3X1"]).branches] == ["V", "L", "E", "N"]


def test_a_kind_and_a_gate_of_a_plug_in_look_as_they_say(plugged_in: Plugged) -> None:
    text = "V/q0,P/w7/q0,P/w5/d0"
    with plugged_in():
        svg, parts = drawn(text), parts_of([text])
        style = style_of(parts)
    assert [c.get("class") for c in of_class(svg, "kind-.")] == ["kind-V", "kind-P", "kind-P"]
    assert [e.text for e in of_class(svg, "on-P small")] == ["7", "5"]
    step = CELL + GAP
    bands = {
        name: [(int(b.get("x", "")), int(b.get("width", ""))) for b in of_class(svg, name)]
        for name in ("gate-shrink", "gate-dia")
    }
    # Cells of two gates are no one band, though both are the first of their gate.
    assert bands == {"gate-shrink": [(0, CELL), (CELL, step)], "gate-dia": [(2 * step, CELL)]}
    assert [branch.letter for branch in parts.branches] == ["V", "L", "E", "N", "P"]
    assert [gate.title for gate in parts.gates] == ["DIA unit", "squeeze gate"]
    assert parts.missing == ()
    light, dark = style.split("@media")
    assert "--P: #cc79a7; --on-P: #111111;" in light
    assert "--gate-shrink: #882255; --on-gate-shrink: #ffffff;" in light
    assert "--P: #aa5588; --on-P: #eeeeee;" in dark
    assert "--gate-shrink: #dd88bb; --on-gate-shrink: #000000;" in dark


def test_the_page_has_colours_of_ours_and_of_what_it_draws(plugged_in: Plugged) -> None:
    with plugged_in():
        parts = parts_of(["V2"])
    assert [branch.letter for branch in parts.branches] == ["V", "L", "E", "N"]
    assert [gate.name for gate in parts.gates] == ["dia"]
    # What looks the same on a dark page is not said twice.
    assert "--L" not in style_of(parts).split("@media")[1].split("}")[0]


@pytest.mark.parametrize(
    ("text", "letters", "missing"),
    [
        ("P2V1/w7/dia1/cb | V2", "PPVVV", ("P", "/w")),
        ("V/q0,P/w7,L/keys/q0 | E/s16", "VPLE", ("P", "/q", "/w")),
        ("V2/sq1", "VV", ("/sq",)),
    ],
)
def test_a_placement_of_a_missing_plug_in_is_drawn_by_its_letters(
    plugged_in: Plugged, text: str, letters: str, missing: tuple[str, ...]
) -> None:
    svg = drawn(text)
    assert "".join(e.text or "" for e in of_class(svg, "on-.*")) == letters
    assert len(of_class(svg, "unknown")) == len(of_class(svg, "on-unknown")) == letters.count("P")
    assert svg.get("height") == str(CELL)
    assert parts_of([text, "V1"]).missing == missing
    with plugged_in():
        assert parts_of([text]).missing == ()
        assert drawn(text).get("width") == svg.get("width")
