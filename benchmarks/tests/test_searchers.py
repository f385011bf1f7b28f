"""The comparison of searchers: its tables, its rows, and its figures by hand."""

import json

import numpy as np
import pytest
import searchers as benchmark
from searchers import RuleTable, SearchRow

from sharedattn.errors import InputError
from sharedattn.results.front.pareto import hypervolume
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space


@pytest.fixture(scope="module")
def space():
    return BudgetedSpace(Space.load("digit-pairs-vit"), Budget(max_macs=700_000))


@pytest.mark.parametrize("kind", benchmark.TABLES)
def test_a_rule_gives_every_member_an_accuracy(space, kind):
    table, again, other = (RuleTable(space, kind, seed) for seed in (3, 3, 4))
    assert len(table.top1) == space.in_budget
    assert np.array_equal(table.top1, again.top1)
    assert not np.array_equal(table.top1, other.top1)
    least, most = (0.55, 0.95) if kind == "additive" else (0.52, 0.96)
    assert (table.top1.min(), table.top1.max()) == pytest.approx((least, most))
    assert [table.place(member) for member in table.members] == list(range(space.in_budget))


def test_an_additive_rule_adds_up(space):
    table = RuleTable(space, "additive", 3)
    top1 = {str(member): table.top1[i] for i, member in enumerate(table.members)}
    by_broadcasting = [top1[f"{kind}/cb"] - top1[kind] for kind in ("V1", "V1/dia1", "E1/s16")]
    assert by_broadcasting == pytest.approx([by_broadcasting[0]] * 3)


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("name", ["stratified", "nsga2", "tpe", "model"])
def test_a_search_ends_with_the_regret_of_what_it_tried(space, name, slots):
    table = RuleTable(space, "saturating", 3)
    row = benchmark.search(table, "saturating", name, 3, num_trials=13, slots=slots)
    again = benchmark.search(table, "saturating", name, 3, num_trials=13, slots=slots)
    assert row.regrets == again.regrets and row.repeats == again.repeats
    assert len(row.regrets) == 13 and row.key == ("saturating", name, 3, slots, 13)
    assert list(row.regrets) == sorted(row.regrets, reverse=True)
    # The first trial is the largest network, or else a draw.
    all_ = hypervolume(table.points(range(space.in_budget)), benchmark.OBJECTIVES, table.reference)
    assert table.full == all_
    assert 0.0 <= row.regrets[-1] < row.regrets[0] <= 1.0


def test_figures_by_hand():
    def row(searcher, seed, regrets):
        return SearchRow(
            table="additive", searcher=searcher, seed=seed, slots=1,
            regrets=tuple(regrets), repeats=seed, ask_s=0.002,
        )  # fmt: skip

    falling = [0.5] * 9 + [0.05] * 10 + [0.02] * 5
    rows = [row("model", 0, falling), row("tpe", 0, [0.2] * 24)]
    rows += [row("model", 1, [0.06] * 24), row("tpe", 1, [0.2] * 24), row("random", 0, [0.9] * 24)]
    found = {entry["searcher"]: entry for entry in benchmark.comparison(rows)}
    assert found["model"]["regret"] == {24: (pytest.approx(0.04), 0.02, 0.06)}
    assert found["model"]["trials_to"] == {0.95: (10 + 24) / 2, 0.99: 24}
    assert found["tpe"]["repeats"] == 0.5 and found["tpe"]["ask_ms"] == 2.0
    assert found["tpe"]["ratio"] == {}


def test_ratios_are_to_the_best_other_searcher():
    ours, best = np.array([0.02, 0.06, 0.04]), np.array([0.2, 0.3, 0.1])
    ratio, low, high = benchmark.ratio_interval(ours, best)
    assert ratio == pytest.approx(0.2) and low < ratio < high
    regrets = {("model", 24): ours, ("tpe", 24): best, ("random", 24): best + 0.1}
    found = benchmark._ratios("model", ["random", "tpe", "model"], [24], regrets)
    assert found[24]["best"] == "tpe" and found[24]["target"] == 0.75
    assert found[24]["ratio"] == (ratio, low, high)


def test_a_second_run_searches_what_is_missing(tmp_path, monkeypatch, capsys):
    arguments = ["--seeds", "2", "--trials", "5", "--tables", "additive"]
    arguments += ["--searchers", "stratified", "--rows", str(tmp_path / "rows.jsonl")]
    first = benchmark.run(benchmark.options_of(arguments))
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [0, 1]
    asked = []
    real = benchmark.search
    monkeypatch.setattr(benchmark, "search", lambda *a, **k: asked.append(a[2:4]) or real(*a, **k))
    arguments[1] = "3"
    again = benchmark.run(benchmark.options_of(arguments))
    assert asked == [("stratified", 2)]
    assert again[:2] == first
    benchmark.print_comparison(benchmark.comparison(again))
    assert "additive, 1 at once, 3 seeds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tables", "additive,other"], "`--tables` has other; name some of additive"),
        (["--searchers", "magic"], "`--searchers` has magic; name some of nsga2"),
        (["--trials", "0"], "numbers from 1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        benchmark.options_of(arguments)
