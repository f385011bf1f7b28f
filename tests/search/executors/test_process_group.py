"""Trials of several processes: measured as by one, and ended whole by whatever ends a part."""

import multiprocessing
import os
import signal
from dataclasses import replace
from multiprocessing.context import SpawnProcess

import pytest
import torch
from fakes import Ranked, progress_at
from processes import all_end, is_alive

from sharedattn.backbones import resolve
from sharedattn.data import DataConfig
from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec
from sharedattn.recipe import Recipe
from sharedattn.results.artifacts.blobs import BlobStore
from sharedattn.results.artifacts.checkpoints import CheckpointStore
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.search.cli.main import main
from sharedattn.search.cluster.resources import find_slots, processes_here
from sharedattn.search.config import ComputeConfig
from sharedattn.search.evaluators.scratch import ScratchEvaluator
from sharedattn.search.executors import (
    DiskFull,
    EvaluationEndedError,
    Finished,
    Lost,
    Preempted,
    Raised,
    Reported,
    TrialResources,
    advance,
)
from sharedattn.search.executors.local import LocalExecutor
from sharedattn.search.executors.process_group import (
    ProcessGroupEvaluator,
    in_processes,
    processes_per_trial,
)

SPEC = resolve(
    NetworkSpec.parse(
        "vit(class_token=false,depth=1,embed_dim=8,global_pool=avg,in_chans=1,num_classes=2,"
        "num_heads=2,patch_size=4)@16: V1"
    )
)


def processes():
    """The children that a group has spawned; forked ones load images for other tests' data."""
    children = multiprocessing.active_children()
    return [child for child in children if isinstance(child, SpawnProcess)]


@pytest.mark.slow
def test_a_group_measures_what_one_process_does_and_a_retry_goes_on(tmp_path):
    alone = ScratchEvaluator(
        data=DataConfig(name="digit-pairs", image_size=16, in_chans=1),
        recipe=Recipe(epochs=2, batch_size=320, optimizer="sgd", lr=0.05, rungs=(1,)),
        weights=WeightsStore(BlobStore(str(tmp_path / "weights"))),
        checkpoints=CheckpointStore(BlobStore(str(tmp_path / "checkpoints"))),
    )
    evaluator = in_processes(alone, 2)
    task = evaluator.task(SPEC, 5, checkpoint="study/search-0")
    assert task == alone.task(SPEC, 5, checkpoint="study/search-0")
    assert evaluator.rungs == (1,)
    first = evaluator.evaluate(task)
    report = next(first)
    children = processes()
    assert len(children) == 2
    os.kill(children[1].pid, signal.SIGTERM)
    with pytest.raises(EvaluationEndedError, match="the trial was asked to end, by SIGTERM") as e:
        next(first)
    assert isinstance(e.value.event, Preempted)
    assert processes() == []
    second = evaluator.evaluate(task)
    # The checkpoint is of the rung, which is reported again.
    assert next(second) == report
    finished = advance(second, 1)
    assert isinstance(finished, Finished)
    measured = finished.measurement
    assert processes() == []
    assert measured.device == "cpu x2" and measured.num_images == 4000
    weights = alone.weights.load(task.identity.key, measured.weights_sha256)
    lone = alone.evaluate(replace(task, checkpoint=None))
    assert next(lone).loss == pytest.approx(report.loss, rel=1e-4)
    expected = advance(lone, 1).measurement
    assert measured.loss == pytest.approx(expected.loss, rel=1e-4)
    assert expected.device == "cpu" and expected.weights_sha256 != measured.weights_sha256
    expected_weights = alone.weights.load(task.identity.key, expected.weights_sha256)
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected_weights[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_what_ends_a_process_ends_the_trial_and_what_ends_the_worker_ends_its_processes(
    tmp_path, monkeypatch
):
    evaluator = ProcessGroupEvaluator(Ranked(folder=str(tmp_path)), 2)

    def pids():
        found = {path: int(path.read_text()) for path in sorted(tmp_path.iterdir())}
        for path in found:
            path.unlink()
        return list(found.values())

    told = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    raising = evaluator.evaluate(evaluator.task(SPEC, Ranked.RAISING), told.append)
    event = advance(raising, 1)
    assert isinstance(event, Raised)
    assert event.traceback.endswith("ArithmeticError: in process 1 of 2, on 3 threads\n")
    # The first process says how far the trial is.
    assert told == [progress_at(1, 2)]
    assert all_end(pids())

    with LocalExecutor(evaluator, num_slots=1, threads=2) as executor:
        executor.submit(0, evaluator.task(SPEC, 0))
        while not isinstance(event, Reported):
            [(_, event)] = executor.wait()
        left = pids()
        assert all(map(is_alive, left))
        os.kill(executor._slots[0].process.pid, signal.SIGKILL)
        assert all_end(left)


@pytest.mark.parametrize(
    "event", [Raised("Traceback: no"), Lost("no"), Preempted("no"), DiskFull("no")]
)
def test_events_of_processes_are_the_evaluations_own(event):
    def evaluation():
        yield from ()
        raise EvaluationEndedError(event)

    assert advance(evaluation(), 1) == event


@pytest.mark.parametrize(
    ("asked", "gpus", "device", "processes"),
    [
        (None, 0, "cpu", 1),
        (3, 0, "cpu", 3),
        (None, 0.5, "cuda", 1),
        (None, 2, "cuda", 2),
        (2, 2, "cuda", 2),
    ],
)
def test_a_trial_has_a_process_for_each_gpu(asked, gpus, device, processes):
    assert processes_per_trial(asked, TrialResources(gpus=gpus), device) == processes


@pytest.mark.parametrize(
    ("asked", "gpus", "device", "rule"),
    [
        (0, 0, "cpu", "processes-per-trial` is 0; it is at least 1"),
        (2, 0.5, "cuda", "processes-per-trial` is 2, but a trial has 0.5 GPUs"),
        (1, 2, "cuda", "processes-per-trial` is 1, but a trial has 2 GPUs"),
    ],
)
def test_processes_that_a_trial_cannot_have(asked, gpus, device, rule):
    with pytest.raises(InputError, match=rule):
        processes_per_trial(asked, TrialResources(gpus=gpus), device)


def test_one_process_is_the_evaluator_itself():
    evaluator = ScratchEvaluator(data=DataConfig(name="digit-pairs"), recipe=Recipe(epochs=1))
    assert in_processes(evaluator, 1) is evaluator


def test_a_training_has_no_more_processes_than_the_machine_has_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert processes_here(None, "cpu") == processes_here(None, "cuda") == 1
    assert processes_here(5, "cpu") == 5 and processes_here(2, "cuda") == 2
    with pytest.raises(InputError, match="processes-per-trial` is 3, but this machine has 2 GPUs"):
        processes_here(3, "cuda")


def test_a_trial_on_cores_has_one_for_each_process():
    cores = len(os.sched_getaffinity(0))
    slots = find_slots(ComputeConfig(device="cpu"), cores)
    assert (slots.num_slots, slots.resources.cpus) == (1, cores)


@pytest.mark.parametrize("command", [["search"], ["train", f"{SPEC}", "--to", "trained"]])
def test_processes_that_do_not_divide_the_batch_are_refused(
    command, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--device", "cpu", "--processes-per-trial", "3"]) == 2
    assert "which the 3 processes of a trial do not divide" in " ".join(
        capsys.readouterr().err.split()
    )
    assert list(tmp_path.rglob("*.safetensors")) == [] and not (tmp_path / "trained").exists()
