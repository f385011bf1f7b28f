"""Worker processes: a dead one costs its own task, and none outlives its driver."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import Dying, Fake, Raising, Slow, Staged, Talking, progress_at
from processes import all_end

from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec
from sharedattn.results.records import EpochMetrics
from sharedattn.search.evaluators import measure
from sharedattn.search.executors import (
    Finished,
    Lost,
    Preempted,
    Progressed,
    Raised,
    Reported,
    TrialResources,
)
from sharedattn.search.executors.local import LocalExecutor, default_threads

BACKBONE = "vit(depth=4,embed_dim=8,num_heads=2,patch_size=4,in_chans=1,num_classes=2)@16: "


def task(placement, evaluator, seed=0):
    return evaluator.task(NetworkSpec.parse(BACKBONE + placement), seed)


def drain(executor, count):
    outcomes = {}
    while len(outcomes) < count:
        outcomes |= dict(executor.wait(60))
    return outcomes


@pytest.mark.slow
def test_tasks_finish_in_their_slots():
    evaluator = Slow()
    with LocalExecutor(evaluator, num_slots=2, threads=1) as executor:
        assert executor.num_free == 2
        executor.submit(0, task("V4", evaluator))
        executor.submit(1, task("V2", evaluator))
        assert executor.num_free == 0
        outcomes = drain(executor, 2)
        assert executor.num_free == 2
        assert executor.wait(0) == []
    assert all(isinstance(outcome, Finished) for outcome in outcomes.values())
    assert outcomes[0].measurement == measure(evaluator, task("V4", evaluator))
    assert outcomes[0].threads == 1


@pytest.mark.slow
def test_what_raises_comes_back_as_its_traceback():
    evaluator = Raising()
    with LocalExecutor(evaluator, num_slots=1) as executor:
        executor.submit(7, task("E1", evaluator))
        outcome = drain(executor, 1)[7]
        assert isinstance(outcome, Raised)
        assert outcome.traceback.endswith("MemoryError: the network does not fit\n")
        executor.submit(8, task("V1", evaluator))
        assert isinstance(drain(executor, 1)[8], Finished)


@pytest.mark.slow
def test_a_dead_worker_costs_its_own_task_alone(tmp_path):
    evaluator = Dying(folder=str(tmp_path))
    spared = task("V4", evaluator)
    (tmp_path / spared.identity.key).touch()
    with LocalExecutor(evaluator, num_slots=2, threads=1) as executor:
        executor.submit(0, task("V1", evaluator))
        executor.submit(1, spared)
        outcomes = drain(executor, 2)
        assert outcomes[0] == Lost(
            "the worker was ended by SIGKILL; the machine may have run out of memory"
        )
        assert isinstance(outcomes[1], Finished)
        executor.submit(2, task("V1", evaluator))
        assert isinstance(drain(executor, 1)[2], Finished)


@pytest.mark.slow
def test_a_worker_waits_at_each_rung_to_go_on_or_to_stop():
    evaluator = Staged()
    whole = measure(evaluator, task("V2", evaluator))
    with LocalExecutor(evaluator, num_slots=1, threads=1) as executor:
        executor.submit(0, task("V2", evaluator))
        for epoch in (1, 2):
            ((ticket, event),) = executor.wait(60)
            top1 = whole.top1 - 0.1 * (3 - epoch)
            assert (ticket, event) == (0, Reported(EpochMetrics(epoch=epoch, top1=top1, loss=0.5)))
            assert executor.wait(0.1) == [] and executor.num_free == 0
            executor.go_on(0)
        assert executor.wait(60) == [(0, Finished(whole, 1))]
        executor.submit(1, task("V1", evaluator))
        ((_, event),) = executor.wait(60)
        assert isinstance(event, Reported)
        executor.stop(1)
        assert executor.num_free == 1
        # The same process takes the next task; nothing more comes of the one that was stopped.
        executor.submit(2, task("V1", evaluator))
        ((ticket, event),) = executor.wait(60)
        assert ticket == 2 and event.metrics.epoch == 1


@pytest.mark.slow
def test_a_worker_says_how_far_it_is_and_keeps_its_slot():
    evaluator = Talking(times=3, pause_s=0.5)
    with LocalExecutor(evaluator, num_slots=1, threads=1) as executor:
        executor.submit(5, task("V2", evaluator))
        for step in range(1, 4):
            assert executor.wait(60) == [(5, Progressed(progress_at(step, 3)))]
            assert executor.num_free == 0
        assert executor.wait(60) == [(5, Finished(evaluator.measure(task("V2", evaluator)), 1))]
        assert executor.num_free == 1


@pytest.mark.slow
def test_a_worker_never_waits_for_a_driver_that_is_busy(tmp_path):
    evaluator = Talking(times=20_000)
    with LocalExecutor(evaluator, num_slots=1, threads=1) as executor:
        executor.submit(0, task("V2", evaluator))
        # Long after the pipe is full, its end fits in: what had no room was dropped.
        time.sleep(20)
        messages = []
        while not messages or isinstance(messages[-1], Progressed):
            ((_, message),) = executor.wait(10)
            messages.append(message)
    # Of all that had found room the newest alone came out, or the end in its place.
    assert len(messages) <= 2
    assert isinstance(messages[-1], Finished)


@pytest.mark.slow
def test_a_worker_that_is_asked_to_end_was_pre_empted():
    evaluator = Slow(seconds=600)
    with LocalExecutor(evaluator, num_slots=1, threads=1) as executor:
        executor.submit(0, task("V1", evaluator))
        os.kill(executor._slots[0].process.pid, signal.SIGTERM)
        outcome = drain(executor, 1)[0]
    assert outcome == Preempted("the worker was asked to end, by SIGTERM")


@pytest.mark.parametrize(
    ("resources", "rule"),
    [
        ({"cpus": 0}, "cpus-per-trial` is 0; it is at least 1"),
        ({"gpus": -1}, "`--gpus-per-trial` is -1; give a fraction"),
        ({"gpus": 1.5}, "`--gpus-per-trial` is 1.5; give a fraction"),
        (
            {"custom": {"tpu": 0.0}},
            "`--resources-per-trial` is tpu=0; give NAME=AMOUNT",
        ),
    ],
)
def test_what_a_trial_cannot_occupy(resources, rule):
    with pytest.raises(InputError, match=rule):
        TrialResources(**resources)


@pytest.mark.slow
def test_workers_end_with_their_driver(tmp_path):
    script = f"""
import sys, time
sys.path[:0] = {[str(Path(__file__).parents[1])]!r}
from fakes import Slow
from sharedattn.search.executors.local import LocalExecutor
from sharedattn.placement import NetworkSpec
if __name__ == "__main__":
    evaluator = Slow(seconds=600)
    executor = LocalExecutor(evaluator, num_slots=2, threads=1)
    for i, text in enumerate(["V1", "V2"]):
        executor.submit(i, evaluator.task(NetworkSpec.parse({BACKBONE!r} + text), 0))
    print(*[slot.process.pid for slot in executor._slots], flush=True)
    time.sleep(600)
"""
    path = tmp_path / "driver.py"
    path.write_text(script)
    driver = subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True)
    with driver:
        pids = [int(pid) for pid in driver.stdout.readline().split()]
        assert len(pids) == 2
        time.sleep(1.0)
        driver.kill()
    assert all_end(pids)


def test_slots_and_threads_are_positive():
    with pytest.raises(ValueError, match="`num_slots` is .* each is at least 1"):
        LocalExecutor(Fake(), num_slots=0)
    with pytest.raises(ValueError, match="`num_slots` is .* each is at least 1"):
        LocalExecutor(Fake(), num_slots=1, threads=0)


def test_cores_are_shared_among_slots():
    cores = len(os.sched_getaffinity(0))
    assert default_threads(1) == cores
    assert default_threads(10 * cores) == 1
