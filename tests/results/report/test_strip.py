import re
from xml.etree import ElementTree

import pytest

from sharedattn.results.report.strip import BAND, CELL, GAP, STAGE_GAP, placement_strip

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
    bands = [(int(b.get("x", "")), int(b.get("width", ""))) for b in of_class(svg, "dia")]
    step = CELL + GAP
    # The second begins in the gap after the first: they are one band.
    assert bands == [(0, CELL), (CELL, CELL + GAP), (2 * step, CELL), (4 * step, CELL)]
    assert [e.text for e in of_class(svg, "on-dia small")] == ["1", "1", "2", "1"]


@pytest.mark.parametrize(("text", "height"), [("V2", CELL), ("V2/dia1", CELL + GAP + BAND)])
def test_room_for_the_band_only_where_there_is_one(text: str, height: int) -> None:
    assert drawn(text).get("height") == str(height)
