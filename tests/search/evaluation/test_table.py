"""A search on PlacementBench: the part that it searches, and what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest
from commands import document, refusal
from made_up_bench import made_up_arrays, made_up_bench
from tiny import SPACE_WITH_CB

from sharedattn.errors import InputError
from sharedattn.search.config import SearchConfig
from sharedattn.search.run import prepare
from sharedattn.search.tables import SHIPPED, PlacementBench
from sharedattn.spaces.budget import Budget
from sharedattn.spaces.space import Space

SPACE = Space.from_yaml(SPACE_WITH_CB, "tiny")


@pytest.fixture
def bench():
    return made_up_bench(SPACE)


@pytest.fixture
def shipped(bench, tmp_path, monkeypatch):
    path = tmp_path / "shipped.npz"
    bench.save(path)
    monkeypatch.setattr("sharedattn.search.evaluation.table.SHIPPED", path)
    return path


def config_of(tmp_path, **options):
    folders = {"out": tmp_path / "out"}
    return SearchConfig.of("table", space=SPACE, **folders, **options)


def test_the_measured_part_is_searched_by_default_and_alone(shipped, bench, tmp_path):
    prepared = prepare(config_of(tmp_path))
    assert set(map(str, prepared.space.enumerate())) == set(bench.texts("measured"))
    assert prepared.space.in_budget == 6 and prepared.space.size == 12
    assert prepared.evaluator.part == "measured"
    whole = prepare(config_of(tmp_path, table_part="surrogate"))
    assert whole.space.in_budget == 12 and whole.evaluator.part == "surrogate"
    assert whole.record.reference_point == prepared.record.reference_point
    assert whole.record.name != prepared.record.name
    assert whole.record.name.startswith("tiny-made-up-surrogate-")


def test_a_file_of_the_benchmark_may_be_given(bench, tmp_path):
    path = tmp_path / "own.npz"
    bench.save(path)
    prepared = prepare(config_of(tmp_path, table=path))
    assert prepared.evaluator.table.key == bench.key
    assert prepared.evaluator.fidelity.epochs == 3


def test_a_budget_is_of_the_measured_part(shipped, bench, tmp_path):
    macs = prepare(config_of(tmp_path)).space.macs_range_in_budget
    assert prepare(config_of(tmp_path, budget=Budget(max_macs=macs[0]))).space.in_budget >= 1
    with pytest.raises(InputError, match="no member of tiny lies inside the budget"):
        prepare(config_of(tmp_path, budget=Budget(max_macs=macs[0] - 1)))


def test_none_is_shipped_yet_or_it_is_whole(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "sharedattn.search.evaluation.table.SHIPPED", tmp_path / "placement-bench.npz"
    )
    message = "--evaluator table requires --table FILE, since no benchmark is shipped"
    with pytest.raises(InputError, match=message):
        config_of(tmp_path)
    if SHIPPED.is_file():
        table = PlacementBench.load(SHIPPED)
        assert len(table.measured) >= 600 and SHIPPED.stat().st_size <= 10_000_000
        space = Space.from_document(table.space_document)
        assert Space.load(space.name) == space


def test_a_table_of_another_space_is_refused(shipped, tmp_path):
    other = replace(SPACE, name="other")
    with pytest.raises(InputError, match="shipped.npz is a table of the space tiny, but the sear"):
        prepare(SearchConfig.of("table", space=other, out=tmp_path / "out"))


def test_a_table_by_placements_has_some_of_the_space(tmp_path):
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"E2": 0.5, "V1L1": 0.6}))
    assert prepare(config_of(tmp_path, table=path)).space.in_budget == 12
    path.write_text(json.dumps({"E2": 0.5, "E1": 0.6}))
    with pytest.raises(InputError, match="has no placement of tiny, only others such as 'E2/s64'"):
        prepare(config_of(tmp_path, table=path))


def test_more_seeds_than_were_measured_are_refused(shipped, tmp_path):
    with pytest.raises(InputError, match="`--confirm-seeds` is 4, but shipped.npz has 3 seeds"):
        prepare(config_of(tmp_path, confirm_seeds=4))
    assert prepare(config_of(tmp_path, confirm_seeds=4, table_part="surrogate"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table_part": "all"}, "--table-part is measured or surrogate, but got 'all'"),
        ({"table": "t.json", "table_part": "measured"}, "--table-part is of PlacementBench"),
        ({"executor": "ray"}, "--executor ray excludes PlacementBench"),
        ({"baselines": "naive"}, "--evaluator table excludes --baselines naive"),
    ],
)
def test_options_that_contradict_are_refused(shipped, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        config_of(tmp_path, **options)


def test_a_part_is_of_a_table(tmp_path):
    with pytest.raises(InputError, match="--table-part requires --evaluator table, but got"):
        SearchConfig.of("scratch", table_part="measured")


def test_a_search_with_confirmations_is_of_the_table_s_own_trainings(
    capsys, shipped, bench, tmp_path
):
    (tmp_path / "tiny.yaml").write_text(SPACE_WITH_CB)
    found = document(
        capsys, "search", tmp_path / "tiny.yaml", "--evaluator", "table", "--trials", 9,
        "--workers", 3, "--confirm-seeds", 3, "--out", tmp_path / "out",
    )  # fmt: skip
    assert found["trials"] == {"complete": 6, "pruned": 0, "failed": 0, "running": 0}
    truth = bench.truth("measured")
    assert found["front"]
    for member in found["front"]:
        assert member["top1"] == pytest.approx(truth[member["placement"]])


def test_a_search_stops_trials_of_the_surrogate_at_rungs(capsys, shipped, tmp_path):
    (tmp_path / "tiny.yaml").write_text(SPACE_WITH_CB)
    found = document(
        capsys, "search", tmp_path / "tiny.yaml", "--evaluator", "table", "--trials", 12,
        "--table-part", "surrogate", "--early-stopping", "mo-asha", "--rungs", "1,2",
        "--confirm-seeds", 1, "--out", tmp_path / "out",
    )  # fmt: skip
    trials = found["trials"]
    assert trials["complete"] + trials["pruned"] == 12 and trials["pruned"] > 0


def test_a_damaged_table_ends_the_command_with_one_message(capsys, tmp_path):
    arrays = made_up_arrays(SPACE)
    arrays["top1"][0, 0, 0] = 1.5
    about = json.dumps({**arrays.pop("about"), "format": 1})
    np.savez(tmp_path / "bad.npz", about=np.array(about), **arrays)
    (tmp_path / "tiny.yaml").write_text(SPACE_WITH_CB)
    message = refusal(
        capsys, "search", tmp_path / "tiny.yaml", "--evaluator", "table",
        "--table", tmp_path / "bad.npz",
    )  # fmt: skip
    assert "bad.npz: top1 is from 0 to 1, but" in message
