"""Training from scratch: reports at rungs, and goes on from checkpoints to the same result."""

from dataclasses import replace

import pytest

from sharedattn.backbones import resolve
from sharedattn.data import DataConfig
from sharedattn.placement import NetworkSpec
from sharedattn.recipe import Recipe
from sharedattn.results.artifacts.blobs import BlobStore
from sharedattn.results.artifacts.checkpoints import CheckpointStore
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.search.evaluators import measure
from sharedattn.search.evaluators.scratch import ScratchEvaluator

SPEC = resolve(
    NetworkSpec.parse(
        "vit(class_token=false,depth=1,embed_dim=8,global_pool=avg,in_chans=1,num_classes=2,"
        "num_heads=2,patch_size=4)@16: V1"
    )
)
RECIPE = Recipe(epochs=4, batch_size=16, drop_path_rate=0.1, rungs=(1, 3))


@pytest.fixture
def evaluator(tmp_path, monkeypatch):
    monkeypatch.setattr("sharedattn.data.digit_pairs.PAIRS_PER_EPOCH", 64)
    return ScratchEvaluator(
        data=DataConfig(name="digit-pairs", image_size=16, in_chans=1),
        recipe=RECIPE,
        weights=WeightsStore(BlobStore(str(tmp_path / "weights"))),
        checkpoints=CheckpointStore(BlobStore(str(tmp_path / "checkpoints"))),
        checkpoint_every_s=1e9,
    )


def without_times(measurement):
    return replace(measurement, wall_time_s=0.0)


def test_it_reports_at_its_rungs_what_it_measured_there(evaluator):
    evaluation = evaluator.evaluate(evaluator.task(SPEC, 5))
    reports = []
    while True:
        try:
            reports.append(next(evaluation))
        except StopIteration as end:
            measured = end.value
            break
    curve = {epoch["epoch"]: epoch["validation"] for epoch in measured.learning_curve}
    assert [report.epoch for report in reports] == [1, 3] == list(evaluator.rungs)
    assert curve[2] is None
    for report in reports:
        assert (report.top1, report.loss) == (
            curve[report.epoch]["top1"],
            curve[report.epoch]["loss"],
        )
    assert measured.top1 == curve[4]["top1"]


def test_a_retry_goes_on_from_the_rung_and_reports_it_again(evaluator):
    task = evaluator.task(SPEC, 5, checkpoint="study/search-0")
    whole = measure(evaluator, replace(task, checkpoint=None))
    first = evaluator.evaluate(task)
    reports = [next(first), next(first)]
    first.close()
    second = evaluator.evaluate(task)
    # Epochs 1 to 3 are in the checkpoint, so that the first report is the last one again.
    assert next(second) == reports[1]
    with pytest.raises(StopIteration) as end:
        next(second)
    assert without_times(end.value.value) == without_times(whole)


def test_between_rungs_checkpoints_are_written_when_they_are_due(evaluator):
    name = "study/search-0"
    evaluator = replace(evaluator, recipe=replace(RECIPE, rungs=()), checkpoint_every_s=0.0)
    task = evaluator.task(SPEC, 5, checkpoint=name)
    measure(evaluator, task)
    state = evaluator.checkpoints.load(name)
    # The last epoch needs none: its weights are kept, and the evaluation is complete.
    assert [epoch["epoch"] for epoch in state["trainer"]["curve"]] == [1, 2, 3]
    assert measure(evaluator, task).learning_curve[:3] == tuple(state["trainer"]["curve"])
    lazy = replace(evaluator, checkpoint_every_s=1e9)
    evaluator.checkpoints.delete(name)
    measure(lazy, task)
    assert evaluator.checkpoints.load(name) is None


def test_a_checkpoint_of_another_evaluation_is_not_gone_on_with(evaluator):
    task = evaluator.task(SPEC, 5, checkpoint="study/search-0")
    next(evaluator.evaluate(task))
    other = evaluator.task(SPEC, 6, checkpoint="study/search-0")
    expected = measure(evaluator, replace(other, checkpoint=None))
    assert without_times(measure(evaluator, other)) == without_times(expected)
