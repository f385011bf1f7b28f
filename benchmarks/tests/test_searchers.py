"""The comparison of searchers: its rows, its runs, and its figures by hand."""

import json
import re

import numpy as np
import pytest
import searchers as benchmark
from made_up_bench import made_up_arrays
from tiny import SPACE_WITH_CB

from benchmarks import ask_time
from benchmarks.searcher_rows import (
    SearchRow,
    append_row,
    comparison,
    mean_interval,
    print_comparison,
    ratio_interval,
    ratios,
    read_rows,
    verdict,
    write_curves,
)
from benchmarks.searcher_tables import OBJECTIVES, RuleTable
from sharedattn.errors import InputError
from sharedattn.results.front.pareto import hypervolume_history
from sharedattn.search.tables import PlacementBench
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space


@pytest.fixture(scope="module")
def space():
    return BudgetedSpace(Space.load("digit-pairs-vit"), Budget(max_macs=700_000))


def row(searcher="model", seed=0, regrets=(0.5,) * 24, *, table="additive", slots=1):
    return SearchRow(
        table=table, searcher=searcher, seed=seed, slots=slots,
        regrets=tuple(regrets), repeats=seed, ask_s=0.002,
    )  # fmt: skip


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("name", ["stratified", "nsga2", "tpe", "model"])
def test_a_search_ends_with_the_regret_of_what_it_tried(space, name, slots):
    table = RuleTable(space, "saturating", 3)
    found, again = (
        benchmark.search(table, "saturating", name, 3, num_trials=13, slots=slots)
        for _ in range(2)
    )
    assert found.regrets == again.regrets and found.repeats == again.repeats
    assert (found.table, found.searcher, found.seed, found.slots) == ("saturating", name, 3, slots)
    trials = benchmark.tried(table, name, 3, num_trials=13, slots=slots)
    assert trials.top1 == [table.seen(member) for member in trials.placements]
    points = table.points(trials.placements)
    reached = hypervolume_history(points, OBJECTIVES, table.reference)
    assert found.regrets == pytest.approx(1.0 - reached / table.full, abs=1e-5)
    assert len(set(trials.placements)) == len(found.regrets) == 13
    assert 0.0 <= found.regrets[-1] < found.regrets[0] <= 1.0


def test_a_search_of_all_members_has_no_regret(tmp_path):
    arrays = made_up_arrays(Space.from_yaml(SPACE_WITH_CB, "tiny"))
    arrays["inherited"] = arrays["predicted"][:, -1]
    PlacementBench(**arrays).save(tmp_path / "bench.npz")
    arguments = ["--seeds=1", "--trials=17", "--tables=measured,surrogate@90%,inherited"]
    arguments += ["--searchers=stratified,model", f"--bench={tmp_path / 'bench.npz'}"]
    found = benchmark.run(benchmark.options_of([*arguments, f"--rows={tmp_path / 'rows'}"]))
    assert [(one.table, one.searcher) for one in found][::2] == [
        ("measured", "stratified"),
        ("surrogate@90%", "stratified"),
        ("inherited", "stratified"),
    ]
    # 6, fewer than 12 and 12 members: then there is no more to gain.
    assert all(len(one.regrets) == 17 and one.regrets[11] == 0.0 for one in found)
    assert found[0].regrets[5] == 0.0 < found[0].regrets[0]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_rows_are_read_as_they_were_written(tmp_path, name):
    rows = [row(regrets=[0.5, 0.5, 0.25, 0.25, 0.25]), row("tpe", 3, [0.1] * 7, table="a@67%")]
    path = tmp_path / "new" / name
    for one in rows:
        append_row(path, one)
    assert read_rows(path) == rows and read_rows(tmp_path / "none.jsonl") == []
    line = json.loads(rows[0].to_line())
    assert line["regrets"] == {"1": 0.5, "3": 0.25} and line["trials"] == 5


def test_figures_by_hand():
    falling = [0.5] * 9 + [0.05] * 10 + [0.02] * 5
    rows = [row("model", 0, falling), row("tpe", 0, [0.2] * 24)]
    rows += [row("model", 1, [0.06] * 24), row("tpe", 1, [0.2] * 24), row("random", 0, [0.9] * 24)]
    found = {entry["searcher"]: entry for entry in comparison(rows)}
    assert found["model"]["regret"] == {24: (pytest.approx(0.04), 0.02, 0.06)}
    assert found["model"]["trials_to"] == {0.95: (10 + 24) / 2, 0.99: 24}
    assert found["tpe"]["repeats"] == 0.5 and found["tpe"]["ask_ms"] == 2.0
    assert found["tpe"]["ratio"] == {}


def test_ratios_are_to_the_best_other_searcher_on_the_seeds_of_both():
    ours, best = np.array([0.02, 0.06, 0.04]), np.array([0.2, 0.3, 0.1])
    ratio, low, high = ratio_interval(ours, best)
    assert ratio == pytest.approx(0.2) and low < ratio < high

    def rows(name, values):
        return [row(name, seed, [value] * 24) for seed, value in enumerate(values)]

    of_all = {"model": rows("model", ours), "tpe": rows("tpe", best)}
    found = ratios({**of_all, "random": rows("random", best + 0.1)}, [24])[24]
    assert found == {
        "best": "tpe",
        "seeds": 3,
        "ratio": (ratio, low, high),
        "target": 0.75,
        "verdict": "met",
    }
    # On the only seed that it has, gp is better than tpe is on three.
    found = ratios({**of_all, "gp": rows("gp", [0.04])}, [24])[24]
    assert (found["best"], found["seeds"], found["ratio"]) == ("gp", 1, (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("ratio", "target", "text"),
    [
        ((0.4, 0.3, 0.5), 0.5, "met"),
        ((0.4, 0.3, 0.6), 0.5, "met by the mean, not by the whole interval"),
        ((0.6, 0.4, 0.7), 0.5, "missed by the mean, not by the whole interval"),
        ((0.6, 0.51, 0.7), 0.5, "missed"),
        ((1.1, 0.9, 1.2), 1.0, "met"),
        ((1.3, 1.1, 1.4), 1.0, "missed"),
    ],
)
def test_verdicts(ratio, target, text):
    assert verdict(ratio, target) == text


def test_a_second_run_searches_what_is_missing(tmp_path, monkeypatch, capsys):
    arguments = ["--seeds", "2", "--trials", "5", "--tables", "additive"]
    arguments += ["--searchers", "stratified", "--rows", str(tmp_path / "rows.jsonl")]
    first = benchmark.run(benchmark.options_of(arguments))
    assert [one.seed for one in read_rows(tmp_path / "rows.jsonl")] == [0, 1]
    asked = []
    real = benchmark.search
    monkeypatch.setattr(benchmark, "search", lambda *a, **k: asked.append(a[2:4]) or real(*a, **k))
    arguments[1] = "3"
    assert benchmark.run(benchmark.options_of([*arguments, "--print-only"])) == first
    again = benchmark.run(benchmark.options_of(arguments))
    assert asked == [("stratified", 2)]
    assert again[:2] == first
    print_comparison(comparison(again))
    assert "`additive`, 1 at once" in capsys.readouterr().out


def test_the_table_says_whether_targets_are_met(capsys):
    rows = [row("model", seed, [0.1] * 24) for seed in range(2)]
    rows += [row("tpe", seed, [0.2 + 0.1 * seed] * 24) for seed in range(2)]
    print_comparison(comparison(rows))
    out = capsys.readouterr().out
    assert "| tpe | 2 | 0.2500 (0.2000 to 0.3000) | 24 | 24 | 0 | 2 |" in out
    assert "| `additive` | 1 | 24 | tpe | 2 | 0.40 (0.33 to 0.50) | 0.75 | met |" in out


def test_curves_have_a_panel_a_table_and_a_band_a_searcher(tmp_path):
    curves = np.linspace(0.5, 0.1, 24)
    rows = [
        row(name, seed, curves / (1 + seed), table=table, slots=slots)
        for name in ("stratified", "tpe", "model")
        for seed in range(3)
        for table, slots in (("additive", 1), ("additive", 8), ("measured", 1), ("surrogate", 1))
    ]
    one, other = tmp_path / "one.svg", tmp_path / "other.svg"
    write_curves(one, rows)
    write_curves(other, rows)
    text = one.read_text()
    assert text == other.read_text()
    assert len(re.findall(r'id="FillBetweenPolyCollection_\d+"', text)) == 4 * 3
    for title in ("additive", "additive, 8 at once", "measured", "surrogate", "stratified"):
        assert f"<!-- {title} -->" in text
    mean, low, high = mean_interval(np.array([0.5, 0.25, 1 / 6]))
    assert mean == pytest.approx(11 / 36) and low < mean < high


def test_the_time_of_a_proposal_is_of_a_searcher_with_its_results(capsys):
    table = RuleTable(BudgetedSpace(Space.load("digit-pairs-vit")), "additive", 0)
    asked = ask_time.Asked(table, 31, 3)
    assert len(asked.searcher._told) == 31 and len(asked.searcher._pending) == 3
    assert 0.0 < asked.seconds() < 60.0
    assert len(asked.searcher._told) == 32 and len(asked.searcher._pending) == 3
    ask_time.main(["--results", "31", "--asks", "2", "--spaces", "digit-pairs-vit"])
    assert "| digit-pairs-vit | 6,039 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tables", "additive,other"], "`--tables` has other; name some of additive"),
        (["--searchers", "magic"], "`--searchers` has magic; name some of model"),
        (["--trials", "0"], "numbers from 1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        benchmark.options_of(arguments)
