"""The written page, read back as text and by an HTML parser; the browser's part is its script."""

import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records import Start, Study, StudyRecord, TrialRow, TrialState
from sharedattn.results.report import embedded_json, render_report, write_report
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space

Row = Callable[..., TrialRow]


class Page(HTMLParser):
    """Elements with their attributes, scripts apart, and the text outside of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._in_script = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = self._in_script and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)
        else:
            self.text += re.sub(r"\s+", " ", data)

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


@pytest.fixture
def summary(make_study: Callable[..., StudyRecord], make_row: Row) -> StudySummary:
    rows = [
        make_row(0, "V4", 0.85, 1_000),
        make_row(1, "E1V1/s16", 0.80, 300, reused=True),
        make_row(2, "N2", state=TrialState.FAILED, error="RuntimeError: loss is nan"),
        make_row(3, "V2/cb", 0.75, 900),
        make_row(0, "E1V1/s16", 0.82, 300, replicate=1),
        make_row(1, "E1V1/s16", 0.84, 300, replicate=2),
    ]
    began = datetime(2026, 11, 21)
    study = Study(id=1, record=make_study(), created_at=began, finished_at=None)
    return StudySummary(study, rows)


def test_the_page_shows_front_trials_and_provenance(summary: StudySummary) -> None:
    page = Page(render_report(summary, convention="one multiply-add is 1"))
    assert "digits" in page.text
    assert "not all are confirmed with 3 seeds yet" in page.text
    assert "0.820 ± 0.012" in page.text
    assert "all vanilla" in page.text and "reused" in page.text and "not confirmed" in page.text
    assert "1 trial was answered by an evaluation that was in the database already" in page.text
    assert "one multiply-add is 1" in page.text
    assert summary.study.record.fingerprint in page.text
    assert "sharedattn search" in page.text
    assert "reference point top-1 0.5, MACs 1.10 k" in page.text


def test_the_data_of_the_charts(summary: StudySummary) -> None:
    data = Page(render_report(summary, convention="")).data
    trials = data["trials"]
    assert trials["number"] == [0, 1, 2, 3, 0, 1]
    assert trials["top1"] == [0.85, 0.80, None, 0.75, 0.82, 0.84]
    assert [data["states"][s] for s in trials["state"]].count("FAILED") == 1
    assert [data["roles"][r] for r in trials["role"]] == ["search"] * 4 + ["confirm"] * 2
    assert [data["specs"]["placement"][s] for s in trials["spec"]][4] == "E1V1/s16"
    assert data["errors"] == {"2": "RuntimeError: loss is nan"}
    assert [p["id"] for p in data["front"]] == [1, 0]
    assert data["baseline"]["id"] == 0
    assert data["hypervolume"]["number"] == [0, 1]
    assert data["num_trials"] == 4


def test_no_name_becomes_markup(
    summary: StudySummary, make_study: Callable[..., StudyRecord]
) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    record = make_study(
        name=evil,
        space={"name": evil},
        data={evil: evil},
        recipe={"name": evil},
        provenance={"command": evil, evil: {"x": evil}},
        searcher=evil,
        fingerprint_document={evil: evil},
    )
    rows = [*summary.rows, summary.rows[2]._replace(number=4, error=evil)]
    hostile = StudySummary(replace(summary.study, record=record), rows)
    page = Page(render_report(hostile, convention=evil))
    plain = Page(render_report(summary, convention=""))
    # The same elements as of a harmless study, but for the rows of the longer provenance.
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in plain.elements}
    assert len(page.scripts) == len(plain.scripts) == 2
    assert all(not name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert evil in page.text
    assert list(page.data["errors"].values())[-1] == evil


def test_embedded_json_cannot_end_its_script() -> None:
    document = {"</script><!--": ["<script>", "&amp;", "a > b"]}
    text = str(embedded_json(document))
    assert not set("<>&") & set(text)
    assert json.loads(text) == document


def test_the_page_asks_nobody_for_anything(summary: StudySummary) -> None:
    html = render_report(summary, convention="")
    page = Page(html)
    assert not [a for _, a in page.elements if {"src", "href"} & set(a)]
    addresses = set(re.findall(r"https?://[^\s\"')]+", html))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", html)
    policies = [a["content"] for _, a in page.elements if a.get("http-equiv")]
    assert policies == [
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    ]


@pytest.mark.parametrize(
    ("confirm_seeds", "keep", "lead"),
    [
        (1, 6, "of one run each: a front of single runs flatters itself"),
        (3, 0, "No trial is complete yet."),
    ],
)
def test_the_lead_says_what_the_front_is_worth(
    confirm_seeds: int, keep: int, lead: str, summary: StudySummary
) -> None:
    record = replace(summary.study.record, confirm_seeds=confirm_seeds)
    cut = StudySummary(replace(summary.study, record=record), summary.rows[:keep])
    assert lead in Page(render_report(cut, convention="")).text


def test_a_confirmed_front_says_so(summary: StudySummary, make_row: Row) -> None:
    rows = [*summary.rows]
    rows += [make_row(n, "V4", 0.85, 1_000, replicate=n - 1) for n in (2, 3)]
    confirmed = StudySummary(summary.study, rows)
    assert "2 placements on the front, each confirmed with 3 seeds" in (
        Page(render_report(confirmed, convention="")).text
    )


def test_a_start_is_a_point_and_a_line_beside_the_front(summary: StudySummary) -> None:
    assert Page(render_report(summary, convention="")).data["start"] is None
    start = Start(weights_sha256="w", macs=1_200, params=7, top1=0.9, num_images=40)
    page = Page(render_report(replace(summary, start=start), convention=""))
    assert page.data["start"] == {**start.summary("top1"), "text": str(start)}
    assert "0.900the start, 1.20 k MACs" in page.text
    assert "The start, as it came: 0.900 on validation, 1.20 k MACs." in page.text
    assert "The front's best is 5.0 points below the start: 0.850, 1.00 k MACs" in page.text


def test_latency_is_a_column_where_it_is_an_objective(
    summary: StudySummary, make_study: Callable[..., StudyRecord], make_row: Row
) -> None:
    record = make_study(
        objectives=("top1", "latency_ms"), reference_point={"top1": 0.5, "latency_ms": 9.0}
    )
    timed = StudySummary(replace(summary.study, record=record), [make_row(0, latency_ms=2.345)])
    page = Page(render_report(timed, convention=""))
    assert "2.35 ms" in page.text or "2.34 ms" in page.text
    assert page.data["specs"]["latency_ms"] == [2.345]


def test_a_front_of_hundreds_is_drawn_in_part(summary: StudySummary, make_row: Row) -> None:
    rows = [make_row(i, f"V{i + 1}", 0.5 + i / 1000, 10 + i) for i in range(211)]
    page = Page(render_report(StudySummary(summary.study, rows), convention=""))
    assert "The 200 cheapest of 211 are drawn" in page.text
    assert sum("strip" in (a.get("class") or "") for _, a in page.elements) == 200
    assert len(page.data["front"]) == 211


def test_a_report_replaces_the_older_one_whole(tmp_path: Path, summary: StudySummary) -> None:
    path = tmp_path / "deep" / "report.html"
    write_report(path, summary, convention="first")
    write_report(path, summary, convention="second")
    assert "second" in path.read_text(encoding="utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_a_report_that_cannot_be_written(tmp_path: Path, summary: StudySummary) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="the report cannot be written to .*File exists"):
        write_report(tmp_path / "file" / "report.html", summary, convention="")


def test_a_study_whose_plug_in_is_gone_is_shown_and_says_so(
    make_study: Callable[..., StudyRecord],
    make_row: Row,
    plugged_in: Callable[[], AbstractContextManager[None]],
) -> None:
    record = make_study(
        fingerprint_document={"plugins": {"poolers": "1.2"}},
        provenance={"plugins": {"poolers": "1.2", "viewers": "3.0"}},
    )
    with plugged_in():
        rows = [make_row(0, "P1V1/w7/sq1", 0.85, 1_000), make_row(1, "V2", 0.8, 900)]
        study = Study(id=1, record=record, created_at=datetime(2026, 11, 21), finished_at=None)
        there = Page(render_report(StudySummary(study, rows), convention=""))
    assert "P pooling" in there.text and "shared squeeze gate" in there.text
    assert "Pn width" in there.text and "Not installed" not in there.text
    gone = Page(render_report(StudySummary(study, rows), convention=""))
    assert (
        "Not installed P, /sq, /w come from a plug-in that is not installed here: placements with "
        "them are drawn by their letters alone, unknown letters in grey. The study used poolers "
        "1.2, viewers 3.0; pip install poolers viewers."
    ) in gone.text
    assert "P1V1/w7/sq1" in gone.text and "pooling" not in gone.text


def test_what_a_layer_is_worth_is_shown_or_why_not(
    summary: StudySummary, make_study: Callable[..., StudyRecord], make_row: Row
) -> None:
    page = Page(render_report(summary, convention=""))
    assert "Not said: study 'digits' has 3 different placements" in page.text
    assert "9 more trials" in page.text and page.data["predicted"] == []
    space = BudgetedSpace(Space.load("digit-pairs-vit"))
    costs = CostModel(space.space.backbone)
    rows = []
    for number in range(29):
        member = space[number * 208]
        top1 = 0.6 + 0.08 * sum(layer.kind in "VE" for layer in member.layers)
        macs = costs.totals(member).macs
        rows.append(make_row(number, str(member), top1 + 0.001 * (number % 3), macs))
    record = make_study(space=space.space.to_document(), confirm_seeds=1)
    told = StudySummary(replace(summary.study, record=record), rows)
    page = Page(render_report(told, convention=""))
    assert "Learned from 29 placements: accuracies after 7 epochs" in page.text
    assert "one more layer of vanilla attention" in page.text
    assert "interactions asked" in page.text
    cells = [a for tag, a in page.elements if tag == "td" and "--shade" in (a.get("style") or "")]
    assert len(cells) == 16
    gains = [a for a in cells if "gain" in (a.get("class") or "")]
    assert gains and all("attention in layer" in (a["title"] or "") for a in gains)
    assert len(page.data["predicted"]) > 3
    for point in page.data["predicted"]:
        assert point["top1"][1] <= point["top1"][0] <= point["top1"][2]
