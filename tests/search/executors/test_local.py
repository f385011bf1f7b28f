"""Worker processes: a dead one costs its own task, and none outlives its driver."""

import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import Fake, Obedient, progress_at
from processes import LONGEST_S, all_end

from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec
from sharedattn.results.records import EpochMetrics
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


ORDERS = ("return", "raise", "die", "report", "report twice", "wait", "talk", "flood")


def in_workers(test):
    return pytest.mark.slow(pytest.mark.xdist_group("local workers")(test))


class Crew:
    """An executor of two slots, and where its workers say what they do."""

    def __init__(self, folder):
        self.folder = folder
        self.evaluator = Obedient(folder=str(folder), orders=ORDERS)
        self.executor = LocalExecutor(self.evaluator, num_slots=2, threads=1)
        self.tickets = itertools.count()

    def task(self, order):
        spec = NetworkSpec.parse(f"{BACKBONE}V4")
        return self.evaluator.task(spec, ORDERS.index(order))

    def submit(self, order):
        ticket = next(self.tickets)
        self.executor.submit(ticket, self.task(order))
        return ticket

    def event(self, ticket):
        """The next event, which is of this ticket."""
        ((of, event),) = self.executor.wait(LONGEST_S)
        assert of == ticket
        return event

    def run(self, order):
        return self.event(self.submit(order))

    def worker_of(self, ticket):
        return next(slot.process.pid for slot in self.executor._slots if slot.ticket == ticket)


@pytest.fixture(scope="module")
def running_crew(tmp_path_factory):
    crew = Crew(tmp_path_factory.mktemp("crew"))
    with crew.executor:
        yield crew


@pytest.fixture
def crew(running_crew):
    """The workers, which take seconds to begin, with nothing to do."""
    for path in running_crew.folder.iterdir():
        path.unlink()
    yield running_crew
    if running_crew.executor.num_free < 2:
        running_crew.executor.close()


@in_workers
def test_tasks_finish_in_their_slots(crew):
    assert crew.executor.num_free == 2
    tickets = [crew.submit("wait"), crew.submit("wait")]
    assert crew.executor.num_free == 0
    (crew.folder / "go").touch()
    outcomes = {}
    while len(outcomes) < 2:
        outcomes |= dict(crew.executor.wait(LONGEST_S))
    assert set(outcomes) == set(tickets)
    assert crew.executor.num_free == 2
    assert crew.executor.wait(0) == []
    expected = crew.evaluator.measure(crew.task("wait"))
    for outcome in outcomes.values():
        assert outcome == Finished(replace(expected, device=outcome.measurement.device), 1)
    assert len({outcome.measurement.device for outcome in outcomes.values()}) == 2


@in_workers
def test_what_raises_comes_back_as_its_traceback(crew):
    outcome = crew.run("raise")
    assert isinstance(outcome, Raised)
    assert outcome.traceback.endswith("MemoryError: the network does not fit\n")
    assert isinstance(crew.run("return"), Finished)


@in_workers
def test_a_dead_worker_costs_its_own_task_alone(crew):
    spared = crew.submit("wait")
    assert crew.run("die") == Lost(
        "the worker was ended by SIGKILL; the machine may have run out of memory"
    )
    assert isinstance(crew.run("return"), Finished)
    asked_to_end = crew.submit("wait")
    os.kill(crew.worker_of(asked_to_end), signal.SIGTERM)
    assert crew.event(asked_to_end) == Preempted("the worker was asked to end, by SIGTERM")
    (crew.folder / "go").touch()
    assert isinstance(crew.event(spared), Finished)


@in_workers
def test_a_worker_waits_at_each_rung_to_go_on_or_to_stop(crew):
    ticket = crew.submit("report twice")
    worker = crew.worker_of(ticket)
    for epoch in (1, 2):
        assert crew.event(ticket) == Reported(EpochMetrics(epoch=epoch, top1=0.25, loss=1.5))
        assert crew.executor.wait(0.1) == [] and crew.executor.num_free == 1
        crew.executor.go_on(ticket)
    assert crew.event(ticket).measurement.device == f"process {worker}"
    ticket = crew.submit("report")
    assert crew.event(ticket) == Reported(EpochMetrics(epoch=1, top1=0.25, loss=1.5))
    crew.executor.stop(ticket)
    assert crew.executor.num_free == 2
    # The same process takes the next task; nothing more comes of the one that was stopped.
    assert crew.run("return").measurement.device == f"process {worker}"
    assert (crew.folder / f"{ORDERS.index('report')}.closed").exists()


@in_workers
def test_a_worker_says_how_far_it_is_and_keeps_its_slot(crew):
    ticket = crew.submit("talk")
    for step in range(1, 4):
        assert crew.event(ticket) == Progressed(progress_at(step, 3))
        assert crew.executor.num_free == 1
        (crew.folder / f"heard{step}").touch()
    assert isinstance(crew.event(ticket), Finished)
    assert crew.executor.num_free == 2


@in_workers
def test_a_worker_never_waits_for_a_driver_that_is_busy(crew):
    ticket = crew.submit("flood")
    # It says more than a pipe holds, and nobody reads: what has no room is dropped.
    deadline = time.monotonic() + LONGEST_S
    while not (crew.folder / "flooded").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    messages = [crew.event(ticket)]
    while isinstance(messages[-1], Progressed):
        messages.append(crew.event(ticket))
    # Of all that had found room the newest alone came out, or the end in its place.
    assert len(messages) <= 2
    assert isinstance(messages[-1], Finished)


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
import os, sys, time
sys.path[:0] = {[str(Path(__file__).parents[1])]!r}
from fakes import Obedient
from sharedattn.search.executors.local import LocalExecutor
from sharedattn.placement import NetworkSpec
if __name__ == "__main__":
    evaluator = Obedient(folder={str(tmp_path / "begun")!r}, orders=("wait",))
    executor = LocalExecutor(evaluator, num_slots=2, threads=1)
    for i, text in enumerate(["V1", "V2"]):
        executor.submit(i, evaluator.task(NetworkSpec.parse({BACKBONE!r} + text), 0))
    while len(os.listdir(evaluator.folder)) < 2:
        time.sleep(0.05)
    print(*[slot.process.pid for slot in executor._slots], flush=True)
    time.sleep(600)
"""
    begun = tmp_path / "begun"
    begun.mkdir()
    path = tmp_path / "driver.py"
    path.write_text(script)
    driver = subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True)
    with driver:
        pids = [int(pid) for pid in driver.stdout.readline().split()]
        driver.kill()
    assert {int(path.name.split(".")[1]) for path in begun.iterdir()} == set(pids)
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
