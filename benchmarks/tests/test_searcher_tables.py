"""Tables of rules and of PlacementBench: their accuracies and best fronts, in two ways."""

import random
from decimal import Decimal

import numpy as np
import pytest
from made_up_bench import made_up_arrays
from tiny import SPACE_WITH_CB

from benchmarks import searcher_tables
from benchmarks.searcher_tables import RULES, BenchTable, RuleTable, TableName, Tables, all_tables
from sharedattn.errors import InputError
from sharedattn.results.front.pareto import non_dominated, to_losses
from sharedattn.search.tables import PlacementBench
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space
from sharedattn.units import Share

STAGES = """
name: two-stages
backbone: pvt_v2_b1
order: any
stages:
  - {depth: 1..2, counts: {E: 0..2, V: 0..2, N: 0..2}, slots: [7, 13], dia: [0, 1, 2]}
  - {depth: 1..2, counts: {V: 0..2, L: 0..2, N: 0..1}, cb: [none, all]}
  - {depth: 2, counts: {V: 2}}
  - {depth: 1..2, counts: {V: 0..2, N: 0..2}, dia: [0, 1], cb: [none, 1]}
"""
SPACES = {
    "embedded": lambda: BudgetedSpace(Space.load("digit-pairs-vit")),
    "inside": lambda: BudgetedSpace(Space.load("digit-pairs-vit"), Budget(Share(Decimal(67)))),
    "stages": lambda: BudgetedSpace(Space.from_yaml(STAGES, "two-stages")),
    "long": lambda: BudgetedSpace(Space.load("deit-tiny"), Budget(Share(Decimal(68)))),
}


@pytest.fixture(scope="module")
def space():
    return BudgetedSpace(Space.load("digit-pairs-vit"))


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("name", SPACES)
def test_the_best_front_is_that_of_all_listed_members(name, kind):
    table = RuleTable(SPACES[name](), kind, 3)
    members = list(table.space.enumerate())
    assert len(members) == {"embedded": 6039, "inside": 1474}.get(name, len(members)) > 200
    points = table.points(members)
    best = {}
    for top1, macs in points:
        best[macs] = max(top1, best.get(macs, 0.0))
    # The same sums in the same order, so that they are equal to the last bit.
    assert table.best.tolist() == [[best[macs], macs] for macs in sorted(best)]
    assert table.full == table.hypervolume(points)
    assert non_dominated(to_losses(points, searcher_tables.OBJECTIVES)).sum() > 3


@pytest.mark.parametrize("kind", RULES)
def test_accuracies_reach_over_the_range_of_a_rule_whatever_the_budget(space, kind):
    whole = RuleTable(space, kind, 3)
    top1 = whole.points(space.enumerate())[:, 0]
    low, high = searcher_tables.RANGES[kind]
    assert (top1.min(), top1.max()) == pytest.approx((low, high))
    inside = RuleTable(SPACES["inside"](), kind, 3)
    for member in inside.space.sample_many(random.Random(0), 50):
        assert inside.top1_of(member) == whole.top1_of(member)
        assert inside.seen(member) == whole.seen(member)
    assert inside.full < whole.full


@pytest.mark.parametrize("name", ["stages", "long"])
def test_what_a_member_is_worth_by_its_layers(name):
    table = RuleTable(SPACES[name](), "interacting", 5)
    rule = table._rule
    depths = table.space.space.automaton.depths
    begins = [sum(depths[:stage]) for stage in range(len(depths))]
    for member in table.space.sample_many(random.Random(1), 40):
        total, kinds, places = 0.0, [], []
        for begin, stage in zip(begins, member.stages, strict=True):
            total += rule.units[len({layer.gate for layer in stage} - {None})]
            for position, layer in enumerate(stage, begin):
                total += rule.kinds[layer.kind][position] + layer.cb * rule.broadcasting[position]
                total += rule.options.get(("slots", layer.option("slots")), 0.0)
                total += rule.options.get(("form", layer.option("form")), 0.0)
                kinds.append(layer.kind)
                places.append(position)
        total += sum(rule.pairs[a + b] for a, b in zip(kinds, kinds[1:], strict=False))
        total += rule.first[places[kinds.index("V")] if "V" in kinds else -1]
        assert rule.worth(table.space.space.automaton, member) == pytest.approx(total)


def test_the_front_of_a_space_that_cannot_be_listed():
    table = Tables().table("interacting:deit-tiny-any", 3)
    assert table.space.in_budget == 948_584_016
    least, most = table.space.macs_range
    assert (table.best[0, 1], table.best[-1, 1]) == (least, most)
    assert table.best[:, 0].max() == pytest.approx(0.96) and 0.0 < table.full < 1.0
    best = dict(table.best[:, ::-1].tolist())
    drawn = table.points(table.space.sample_many(random.Random(0), 300))
    assert all(top1 <= best[macs] for top1, macs in drawn)


def test_what_is_seen_is_true_but_for_noise_by_seed(space):
    one, other = RuleTable(space, "additive", 3), RuleTable(space, "additive", 4)
    members = space.sample_many(random.Random(0), 500)
    noise = np.array([one.seen(member) - one.top1_of(member) for member in members])
    assert abs(noise.mean()) < 0.003 and 0.013 < noise.std() < 0.017
    assert [one.seen(member) for member in members[:3]] == [
        RuleTable(space, "additive", 3).seen(member) for member in members[:3]
    ]
    assert one.top1_of(members[0]) != other.top1_of(members[0])


@pytest.fixture(scope="module")
def bench():
    return PlacementBench(**made_up_arrays(Space.from_yaml(SPACE_WITH_CB, "tiny")))


def test_a_search_of_what_is_measured_sees_one_seed_and_is_judged_by_the_mean(bench):
    table = BenchTable(bench, "measured", 4)
    members = list(table.space.enumerate())
    assert {str(member) for member in members} == set(bench.texts("measured"))
    for member in members:
        row = bench.texts("measured").index(str(member))
        assert table.seen(member) == bench.top1[row, 4 % 3, -1]
        assert table.top1_of(member) == pytest.approx(bench.top1[row, :, -1].mean())
    assert table.full == table.hypervolume(table.points(members))
    macs = sorted(table.macs_of(member) for member in members)
    inside = BenchTable(bench, "measured", 4, Budget(macs[2]))
    kept = [member for member in members if table.macs_of(member) <= macs[2]]
    assert sorted(map(str, inside.space.enumerate())) == sorted(map(str, kept))
    assert inside.full == table.hypervolume(table.points(kept))


def test_predictions_have_noise_and_inherited_accuracies_none():
    arrays = made_up_arrays(Space.from_yaml(SPACE_WITH_CB, "tiny"))
    arrays["inherited"] = arrays["predicted"][:, -1] / 2 + 0.3
    arrays["inherited"][3] = np.nan
    bench = PlacementBench(**arrays)
    surrogate, inherited = (BenchTable(bench, part, 1) for part in ("surrogate", "inherited"))
    assert (surrogate.space.in_budget, inherited.space.in_budget) == (12, 11)
    for member in inherited.space.enumerate():
        number = bench.placements.index(str(member))
        assert inherited.seen(member) == inherited.top1_of(member) == bench.inherited[number]
        assert surrogate.top1_of(member) == bench.predicted[number, -1]
        assert surrogate.seen(member) == bench.curve("surrogate", str(member), 1)[-1]


def test_a_bench_without_inherited_accuracies_or_none_above_chance_is_named(bench):
    with pytest.raises(InputError, match="no accuracy of the table `inherited` is above chance"):
        BenchTable(bench, "inherited", 0)
    arrays = made_up_arrays(Space.from_yaml(SPACE_WITH_CB, "tiny"))
    arrays["inherited"][:] = np.nan
    with pytest.raises(InputError, match="has no inherited accuracies; leave out"):
        BenchTable(PlacementBench(**arrays), "inherited", 0)


def test_names_say_kind_space_and_budget(bench, tmp_path):
    assert TableName.parse("additive") == TableName("additive", "", None)
    assert TableName.parse("saturating:deit-tiny@66.7%") == TableName(
        "saturating", "deit-tiny", Share(Decimal("66.7"))
    )
    path = tmp_path / "bench.npz"
    assert "measured" not in all_tables(path) and "additive:deit-tiny-any" in all_tables(path)
    bench.save(path)
    assert all_tables(path)[-2:] == ("measured", "surrogate")
    table = Tables(path).table("measured", 2)
    assert (table.full, table._seed) == (BenchTable(bench, "measured", 2).full, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other", "has other; name some of additive"),
        ("measured:deit-tiny", "measured has its own space, so write measured"),
        ("additive@700k", "give a share of MACs, such as @67%"),
        ("additive@0%", "leaves nothing"),
    ],
)
def test_names_that_say_nothing(name, message):
    with pytest.raises(InputError, match=message):
        TableName.parse(name)


def test_tables_without_rules():
    with pytest.raises(InputError, match="no rules for layers of kind"):
        Tables().table("additive:resnet50", 0)
    params = BudgetedSpace(Space.load("digit-pairs-vit"), Budget(max_params=100_000))
    with pytest.raises(ValueError, match="bounds on MACs alone"):
        RuleTable(params, "additive", 0)
