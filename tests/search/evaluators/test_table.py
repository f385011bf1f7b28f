"""A table as an evaluator: accuracies and learning curves, as a training would report them."""

import json

import pytest
from made_up_bench import made_up_bench
from tiny import SPACE_WITH_CB

from sharedattn.backbones import describe
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement
from sharedattn.results.records import EpochMetrics, Fidelity
from sharedattn.search.evaluators import measure
from sharedattn.search.evaluators.table import BenchEvaluator, TableEvaluator
from sharedattn.spaces.space import Space
from sharedattn.training.trainer import Epoch

BACKBONE = BackboneSpec.parse("vit(depth=2,embed_dim=8,num_heads=2,patch_size=4)@16")
SHAPE = describe(BACKBONE)
CURVES = {"V2": (0.5, 0.7, 0.9), "V1L1": (0.6, 0.65, 0.8)}


def written(tmp_path, document):
    path = tmp_path / "table.json"
    path.write_text(json.dumps(document))
    return path


def task_of(evaluator, text):
    return evaluator.task(NetworkSpec(BACKBONE, Placement.parse(text)), seed=0)


def test_a_table_of_numbers_has_one_epoch(tmp_path):
    table = TableEvaluator.load(written(tmp_path, {"V2": 0.9, "V1L1": 1}), SHAPE)
    assert table.curves == {"V2": (0.9,), "V1L1": (1.0,)}
    assert table.fidelity == Fidelity(epochs=1, image_size=16)
    assert measure(table, task_of(table, "V1L1")).top1 == 1.0


def test_a_curve_is_reported_at_its_rungs_and_returned_whole(tmp_path):
    table = TableEvaluator.load(written(tmp_path, CURVES), SHAPE)
    assert table.curves == CURVES
    assert table.fidelity == Fidelity(epochs=3, image_size=16)
    assert list(table.evaluate(task_of(table, "V2"))) == []
    staged = TableEvaluator(CURVES, 16, rungs=(1, 2))
    assert list(staged.evaluate(task_of(staged, "V2"))) == [
        EpochMetrics(epoch=1, top1=0.5, loss=0.0),
        EpochMetrics(epoch=2, top1=0.7, loss=0.0),
    ]
    measured = measure(staged, task_of(staged, "V2"))
    assert (measured.split, measured.top1) == ("table", 0.9)
    curve = [Epoch.from_json(dict(epoch)) for epoch in measured.learning_curve]
    assert [(e.epoch, e.validation.quality) for e in curve] == [(1, 0.5), (2, 0.7), (3, 0.9)]


def test_rungs_are_part_of_how_it_measures_and_not_of_the_data():
    plain, staged = TableEvaluator(CURVES, 16), TableEvaluator(CURVES, 16, rungs=(1,))
    other = TableEvaluator({**CURVES, "V2": (0.5, 0.7, 0.8)}, 16)
    assert plain.recipe_key != staged.recipe_key
    assert plain.data_fingerprint == staged.data_fingerprint != other.data_fingerprint


def test_a_placement_that_is_not_there_fails():
    table = TableEvaluator(CURVES, 16)
    with pytest.raises(KeyError, match="the table has no placement 'V1'"):
        measure(table, task_of(table, "V1"))


@pytest.mark.parametrize("rungs", [(0,), (3,), (2, 1)])
def test_rungs_that_do_not_part_the_curves_are_refused(rungs):
    with pytest.raises(InputError, match="`rungs` is .* 3 epochs"):
        TableEvaluator(CURVES, 16, rungs=rungs)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "a JSON object of placement: top1"),
        ({}, "a JSON object of placement: top1"),
        ({"V2": 1.5}, r"from 0 to 1.* has 1.5 for 'V2'"),
        ({"V2": []}, r"from 0 to 1.* has \[\] for 'V2'"),
        ({"V2": [0.5, "x"]}, r"has \[0.5, 'x'\] for 'V2'"),
        ({"V2": [0.5, 0.6], "V1": 0.5}, "learning curves of 1 and of 2 epochs"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, document, message):
    with pytest.raises(InputError, match=message):
        TableEvaluator.load(written(tmp_path, document), SHAPE)


def test_no_file_is_no_table(tmp_path):
    with pytest.raises(InputError, match="a JSON object.* is not: "):
        TableEvaluator.load(tmp_path / "none.json", SHAPE)


@pytest.fixture(scope="module")
def bench():
    return made_up_bench(Space.from_yaml(SPACE_WITH_CB, "tiny"))


def bench_task(evaluator, text, seed):
    backbone = Space.from_yaml(SPACE_WITH_CB, "tiny").backbone
    return evaluator.task(NetworkSpec(backbone, Placement.parse(text)), seed=seed)


def test_a_replicate_is_the_seed_of_its_number_with_its_seconds(bench):
    evaluator = BenchEvaluator(bench, "measured", 16)
    text = bench.texts("measured")[2]
    for seed in range(4):
        measured = measure(evaluator, bench_task(evaluator, text, seed))
        assert measured.top1 == bench.top1[2, seed % 3, -1]
        assert measured.wall_time_s == bench.seconds[2, seed % 3] == 10 + 2 * 3 + seed % 3
        curve = [Epoch.from_json(dict(epoch)) for epoch in measured.learning_curve]
        assert [e.validation.quality for e in curve] == bench.top1[2, seed % 3].tolist()
    assert evaluator.fidelity == Fidelity(epochs=3, image_size=16)


def test_a_benchmark_reports_at_rungs_and_has_keys_of_its_parts(bench):
    staged = BenchEvaluator(bench, "surrogate", 16, rungs=(1, 2))
    text = bench.placements[1]
    curve = bench.curve("surrogate", text, 5).tolist()
    assert list(staged.evaluate(bench_task(staged, text, 5))) == [
        EpochMetrics(epoch=1, top1=curve[0], loss=0.0),
        EpochMetrics(epoch=2, top1=curve[1], loss=0.0),
    ]
    measured = BenchEvaluator(bench, "measured", 16, rungs=(1, 2))
    assert measured.data_fingerprint != staged.data_fingerprint
    assert measured.recipe_key != BenchEvaluator(bench, "measured", 16).recipe_key
    with pytest.raises(InputError, match="`rungs` is .* 3 epochs"):
        BenchEvaluator(bench, "measured", 16, rungs=(3,))
    with pytest.raises(KeyError, match="give --table-part surrogate"):
        measure(measured, bench_task(measured, text, 0))
