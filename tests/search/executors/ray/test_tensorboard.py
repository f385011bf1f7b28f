"""Event files are valid to whoever reads such files, and hold what was reported."""

import pytest
from fakes import Staged

pytest.importorskip("tensorboardX")

from event_files import read_events, scalars

from sharedattn.placement import NetworkSpec
from sharedattn.results.records import EpochMetrics
from sharedattn.search.evaluators import measure
from sharedattn.search.executors import Finished, Lost, Reported
from sharedattn.search.executors.ray.tensorboard import TensorBoardLog, trial_name

EVALUATOR = Staged()
SPEC = NetworkSpec.parse(
    "vit(depth=4,embed_dim=8,num_heads=2,patch_size=4,in_chans=1,num_classes=2)@16: V1E1/s5"
)


def test_reports_and_the_end_of_a_trial_are_points_of_its_curve(tmp_path):
    task = EVALUATOR.task(SPEC, 0, checkpoint="a-study/search-12")
    log = TensorBoardLog(tmp_path)
    log.write(task, Reported(EpochMetrics(epoch=1, top1=0.25, loss=1.5)))
    folder = tmp_path / "search-12"
    # Seen while the trial runs.
    assert scalars(folder) == [(1, "top1", 0.25), (1, "loss", 1.5)]
    measured = measure(EVALUATOR, task)
    log.write(task, Finished(measured, threads=1))
    assert scalars(folder)[2:] == [(3, "top1", measured.top1), (3, "loss", measured.loss)]
    version, network, *later = read_events(folder)
    assert version.file_version == "brain.Event:2"
    assert network.summary.value[0].tensor.string_val == [str(SPEC).encode()]
    assert [event.file_version for event in later if event.file_version] == ["brain.Event:2"]
    assert len(later) == 2 + 1 + 2


def test_what_the_disk_refuses_is_raised(tmp_path):
    (tmp_path / "search-12").write_bytes(b"a file where the folder should be")
    task = EVALUATOR.task(SPEC, 0, checkpoint="a-study/search-12")
    with pytest.raises(OSError):
        TensorBoardLog(tmp_path).write(task, Reported(EpochMetrics(epoch=1, top1=0.25, loss=1.5)))


def test_trials_have_folders_of_their_own_and_ones_without_values_none(tmp_path):
    log = TensorBoardLog(tmp_path)
    tasks = [EVALUATOR.task(SPEC, seed) for seed in (0, 1, 2)]
    for task, top1 in zip(tasks[:2], (0.1, 0.2), strict=True):
        log.write(task, Reported(EpochMetrics(epoch=1, top1=top1, loss=1.0)))
    log.write(tasks[2], Lost("died"))
    assert {path.name for path in tmp_path.iterdir()} == {trial_name(task) for task in tasks[:2]}
    for task, top1 in zip(tasks[:2], (0.1, 0.2), strict=True):
        assert (1, "top1", top1) in scalars(tmp_path / trial_name(task))
