"""Attention memory, and a cost that nobody but this file has heard of, from search to export."""

import json
from pathlib import Path

import pytest
import tiny
from commands import document, run

from sharedattn.costs.model import CostModel
from sharedattn.objectives import OBJECTIVES, Objective, register
from sharedattn.placement import Placement
from sharedattn.results.database.store import Store
from sharedattn.results.front.summary import StudySummary
from sharedattn.spaces.space import Space
from sharedattn.units import COUNT

SPACE = tiny.SPACE.replace("}", ", E: 0..1}\n    slots: [3]")
TOP1 = {
    "V2": 0.9, "V1L1": 0.8, "V1": 0.7, "V1N1": 0.69, "N1V1": 0.65, "N1": 0.5, "E1/s3": 0.72,
    "E1V1/s3": 0.85, "V1E1/s3": 0.84, "E1N1/s3": 0.71, "N1E1/s3": 0.73,
}  # fmt: skip


@pytest.fixture
def num_layers():
    """A made-up cost: one entry, and nothing else is told of it."""
    objective = Objective(
        name="num_layers",
        label="layers of the network",
        heading="layers",
        unit=COUNT,
        value_of=lambda _, placement: len(placement.layers),
    )
    register(objective)
    yield objective
    del OBJECTIVES["num_layers"]


@pytest.fixture
def search(tmp_path, trials_run_here):
    space, table = tmp_path / "tiny.yaml", tmp_path / "table.json"
    space.write_text(SPACE)
    table.write_text(json.dumps(TOP1))
    return (
        "search", space, "--evaluator", "table", "--table", table, "--out", tmp_path / "out",
        "--trials", 11, "--confirm-seeds", 1,
    )  # fmt: skip


def by_hand(cost):
    """Ids aside, the front of all placements of the table, from the cheapest."""
    front, best = [], -1.0
    for text in sorted(TOP1, key=lambda text: (cost(text), -TOP1[text])):
        if TOP1[text] > best:
            front.append((text, cost(text)))
            best = TOP1[text]
    return front


def memory(text):
    model = CostModel(Space.from_yaml(SPACE, "tiny").backbone)
    return model.attention_bytes(Placement.parse(text))


def test_attention_memory_is_searched(capsys, search):
    asked = ("--objectives", "top1,attention_bytes")
    found = document(capsys, *search, *asked)
    assert found["trials"]["complete"] == 11
    members = [(m["placement"], m["attention_bytes"]) for m in found["front"]]
    assert members == by_hand(memory)
    assert found["reference_point"]["attention_bytes"] == pytest.approx(
        1.1 * max(map(memory, TOP1))
    )
    assert 0 < found["hypervolume"] < 1
    # What is stored is the same again.
    assert document(capsys, *search, *asked)["front"] == found["front"]


def test_attention_memory_is_bounded(capsys, search):
    bound = sorted(map(memory, TOP1))[5]
    inside = {text for text in TOP1 if memory(text) <= bound}
    assert 1 < len(inside) < len(TOP1)
    found = document(capsys, *search, "--max", f"attention_bytes={bound}")
    assert found["trials"] == {"complete": len(inside), "pruned": 0, "failed": 0, "running": 0}
    assert "attention_bytes" not in found["front"][0]
    counted = document(capsys, "space", search[1], "--max", f"attention_bytes={bound}")
    assert (counted["in_budget"], counted["size"]) == (len(inside), len(TOP1))


def test_short_forms_of_bounds_say_the_same(capsys, search):
    short = document(capsys, "space", search[1], "--max-macs", "10k", "--max-params", "4K")
    general = document(capsys, "space", search[1], "--max", "macs=10k", "--max", "params=4k")
    assert short == general
    with_short = document(capsys, *search, "--max-macs", "10k")
    assert document(capsys, *search, "--max", "macs=10k")["study"] == with_short["study"]
    for arguments, message in (
        (("--max-macs", "10k", "--max", "macs=9k"), "--max bounds macs twice"),
        (("--max", "macs=9k", "--max", "macs=9k"), "--max bounds macs twice"),
        (("--max", "watts=9k"), "'watts' is no cost"),
        (("--max", "macs"), "write NAME=VALUE"),
    ):
        code, out, err = run(capsys, *search, *arguments)
        assert (code, out) == (2, "")
        assert message in err


def test_a_made_up_cost_is_in_everything(capsys, search, tmp_path, num_layers):
    def layers(text):
        return len(Placement.parse(text).layers)

    found = document(capsys, *search, "--objectives", "top1,num_layers")
    assert [(m["placement"], m["num_layers"]) for m in found["front"]] == by_hand(layers)
    assert [m["placement"] for m in found["front"]] == ["E1/s3", "V2"]
    assert found["reference_point"]["num_layers"] == pytest.approx(2.2)
    _, out, _ = run(capsys, "front", "--out", tmp_path / "out")
    assert out.splitlines()[1].split() == [
        "id", "placement", "top1", "MACs", "params", "layers", "seeds"
    ]  # fmt: skip
    assert out.splitlines()[2].split()[-2:] == ["1", "1"]
    page = Path(found["report"]).read_text()
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert data["costs"]["num_layers"] == {
        "label": "layers of the network", "heading": "layers", "symbol": "", "scaled": True
    }  # fmt: skip
    assert [point["num_layers"] for point in data["front"]] == [1, 2]
    assert sorted(data["specs"]["num_layers"]) == sorted(map(layers, TOP1))
    assert '<th class="num">layers</th>' in page
    with Store.open(f"sqlite:///{tmp_path / 'out' / 'sharedattn.db'}", read_only=True) as store:
        summary = StudySummary.read(store, store.studies()[0])
    assert summary.pick("num_layers<2").placement == "E1/s3"
    assert summary.pick("num_layers<=2").placement == "V2"
    assert summary.pick("attention_bytes<=1G").placement == "V2"


def test_a_bound_on_a_made_up_cost_is_kept_by_trials(capsys, search, num_layers):
    code, out, err = run(capsys, *search, "--max", "num_layers=1")
    assert code == 0, err
    assert "3 trials: no further placement within num_layers <= 1 found" in out
    code, out, err = run(capsys, "space", search[1], "--max", "num_layers=1")
    assert code == 2
    assert "no space counts with a bound on num_layers" in err


def test_a_bound_that_no_drawn_placement_keeps(capsys, search, num_layers):
    OBJECTIVES["num_parts"] = Objective(
        name="num_parts",
        label="parts",
        heading="parts",
        unit=COUNT,
        value_of=lambda _, placement: 10 + len(placement.layers),
    )
    try:
        code, _, err = run(capsys, *search, "--max", "num_parts=10")
    finally:
        del OBJECTIVES["num_parts"]
    assert code == 2
    assert "no drawn placement is within --max num_parts=10" in err
    assert "the least num_parts is 11; raise the bound" in err
