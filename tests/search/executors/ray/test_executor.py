"""Ray Tune on a cluster of two nodes, real raylets on this machine.

What needs no cluster stands at the end.
"""

import http.server
import importlib
import itertools
import os
import random
import re
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from building import Building
from fakes import (
    Fake,
    Inline,
    Obedient,
    Slow,
    Staged,
    complain,
    dawdle,
    echo,
    progress_at,
)
from lab import SPACE, Lab
from processes import LONGEST_S, all_end, is_alive
from supernet_lab import SupernetLab

from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec
from sharedattn.results.records import EpochMetrics, TrialRole
from sharedattn.search.errors import ClusterLostError
from sharedattn.search.executors import (
    DiskFull,
    Finished,
    Lost,
    Preempted,
    Progressed,
    Raised,
    Reported,
    TrialResources,
)
from sharedattn.search.pruners import MoAsha
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space

pytest.importorskip("ray")

import ray
from event_files import read_events, scalars
from ray.exceptions import OutOfMemoryError

from sharedattn.search.executors.ray import executor as ray_tune
from sharedattn.search.executors.ray.executor import RayTuneExecutor

BACKBONE = "vit(depth=4,embed_dim=8,num_heads=2,patch_size=4,in_chans=1,num_classes=2)@16: "


def clustered(test):
    return pytest.mark.slow(pytest.mark.ray(test))


@pytest.fixture(scope="module")
def running_cluster(ray_cluster):
    """Two nodes, joined."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (*ray_tune.ENVIRONMENT, "RAY_USAGE_STATS_ENABLED"):
            # What `connect` sets is gone afterwards.
            patch.setenv(name, "0")
        ray_tune.connect(ray_cluster.address)
        try:
            yield ray_cluster
        finally:
            ray_tune.disconnect()


@pytest.fixture
def cluster(running_cluster):
    """The cluster, whole again where a test that failed has left a node dead."""
    yield running_cluster
    for node in list(running_cluster.worker_nodes):
        if raylet_of(node).poll() is not None:
            running_cluster.remove_node(node)
            running_cluster.add_node(num_cpus=1)
    running_cluster.wait_for_nodes()


def raylet_of(node):
    return node.all_processes["raylet"][0].process


ORDERS = ("return", "raise", "fill", "report", "report", "wait", "wait", "wait", "talk")


class Crew:
    """An executor, and where its workers are."""

    def __init__(self, folder, num_slots):
        self.folder = folder
        self.evaluator = Obedient(folder=str(folder), orders=ORDERS)
        self.executor = executor_of(self.evaluator, folder, num_slots)
        self.tickets = itertools.count()

    def submit(self, seed):
        ticket = next(self.tickets)
        self.executor.submit(ticket, task(self.evaluator, seed))
        return ticket

    def events(self, count=1, timeout_s=2 * LONGEST_S):
        """The next so many events by ticket; each of a ticket of its own."""
        events = {}
        deadline = time.monotonic() + timeout_s
        while len(events) < count and time.monotonic() < deadline:
            for ticket, event in self.executor.wait(1):
                assert ticket not in events
                events[ticket] = event
        return events

    def run(self, seed):
        ticket = self.submit(seed)
        return self.events()[ticket]

    def processes(self, seed):
        """Process and parent, the raylet, of each worker that has begun a task of a seed."""
        found = [path.name.split(".") for path in self.folder.glob(f"{seed}.*.*")]
        return {int(process): int(parent) for _, process, parent in found}

    def await_processes(self, *seeds):
        """Wait until tasks of all these seeds have begun."""
        deadline = time.monotonic() + LONGEST_S
        while not all(self.processes(seed) for seed in seeds):
            assert time.monotonic() < deadline
            assert self.executor.wait(0.05) == []
        return [next(iter(self.processes(seed).items())) for seed in seeds]

    def release(self):
        (self.folder / "go").touch()


def executor_of(evaluator, folder, num_slots):
    executor = RayTuneExecutor(
        evaluator, num_slots=num_slots, resources=TrialResources(), folder=folder / "tune"
    )
    executor.evaluator = evaluator
    return executor


def task(evaluator, seed, placement="V4"):
    spec = NetworkSpec.parse(BACKBONE + placement)
    return evaluator.task(spec, seed, checkpoint=f"study/search-{seed}")


@pytest.fixture(scope="module")
def crews(running_cluster):
    """The crew that tests share, as workers take seconds to begin; one at most, for its cores."""
    crews = []
    yield crews
    dismiss(crews)


def dismiss(crews):
    while crews:
        crews.pop().executor.close()


@pytest.fixture
def crew_of(cluster, crews, tmp_path_factory):
    """Gives a crew of so many slots, with nothing to do."""

    def choose(num_slots):
        if [crew.executor.num_slots for crew in crews] != [num_slots]:
            dismiss(crews)
            crews.append(Crew(tmp_path_factory.mktemp("crew"), num_slots))
        for path in crews[0].folder.iterdir():
            if path.is_file():
                path.unlink()
        return crews[0]

    yield choose
    if any(crew.executor.num_free < crew.executor.num_slots for crew in crews):
        dismiss(crews)


@pytest.fixture
def idle_cluster(cluster, crews):
    """The cluster, whose cores nobody holds."""
    dismiss(crews)
    return cluster


@pytest.fixture
def crew(crew_of):
    """Two workers at most."""
    return crew_of(2)


@pytest.fixture
def lone_crew(crew_of):
    """One worker: whatever runs next, it runs."""
    return crew_of(1)


@clustered
def test_a_trial_says_how_far_it_is(lone_crew):
    crew = lone_crew
    ticket = crew.submit(8)
    # The newest at each look, and none twice.
    for step in range(1, 4):
        assert crew.events() == {ticket: Progressed(progress_at(step, 3))}
        assert crew.executor.num_free == 0
        (crew.folder / f"heard{step}").touch()
    assert isinstance(crew.events()[ticket], Finished)
    assert crew.executor.num_free == 1
    # Without its board it runs as before.
    ray.kill(crew.executor._board.actor)
    assert isinstance(crew.run(0), Finished)


@clustered
def test_a_worker_is_kept_through_ends_of_every_kind(lone_crew):
    crew = lone_crew
    assert crew.executor.num_free == 1
    first = crew.run(0)
    assert isinstance(first, Finished)
    assert first.threads == 1
    worker = first.measurement.device
    measured = crew.evaluator.measure(task(crew.evaluator, 0))
    assert (first.measurement.top1, first.measurement.loss) == (measured.top1, measured.loss)

    raised = crew.run(1)
    assert isinstance(raised, Raised)
    assert raised.traceback.endswith("MemoryError: the network does not fit\n")
    assert crew.run(2) == DiskFull("[Errno 28] No space left on device: 'weights'")

    reported = Reported(EpochMetrics(epoch=1, top1=0.25, loss=1.5))
    ticket = crew.submit(3)
    assert crew.events() == {ticket: reported}
    assert crew.executor.num_free == 0
    crew.executor.go_on(ticket)
    went_on = crew.events()[ticket]
    assert went_on.measurement.device == worker

    ticket = crew.submit(4)
    assert crew.events() == {ticket: reported}
    crew.executor.stop(ticket)
    assert crew.executor.num_free == 1
    assert crew.executor.wait(0.5) == []
    # The stopped evaluation is closed, and its worker runs the next task.
    assert crew.run(0).measurement.device == worker
    assert (crew.folder / "4.closed").exists()
    assert {*crew.processes(1), *crew.processes(2), *crew.processes(4)} == {int(worker.split()[1])}

    # TensorBoard finds a folder a trial beside Tune's own files.
    folder = crew.folder / "tune/search-3"
    assert (1, "top1", 0.25) in scalars(folder)
    assert (1, "top1", went_on.measurement.top1) in scalars(folder)
    assert read_events(folder)[1].summary.value[0].tag == "network/text_summary"


@clustered
def test_a_worker_that_dies_between_two_tasks_ends_the_next_one_only(lone_crew):
    crew = lone_crew
    before = crew.run(0)
    worker = int(before.measurement.device.split()[1])
    os.kill(worker, signal.SIGKILL)
    assert all_end([worker])
    struck = crew.run(0)
    assert isinstance(struck, Lost)
    assert "its worker process has died" in struck.reason
    after = crew.run(0)
    assert after.measurement.top1 == before.measurement.top1
    assert int(after.measurement.device.split()[1]) != worker
    # Tune makes a folder for each trial; that of the last one is in use until Tune goes on.
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    last = max(session.glob("artifacts/*"), key=lambda path: path.stat().st_mtime)
    assert len([path for path in last.glob("tune/driver_artifacts/*") if path.is_dir()]) == 1


@clustered
def test_a_dead_worker_costs_its_own_task_once(crew):
    killed, spared = crew.submit(5), crew.submit(6)
    (victim, _), _ = crew.await_processes(5, 6)
    os.kill(victim, signal.SIGKILL)
    ((ticket, event),) = crew.events().items()
    assert ticket == killed
    assert isinstance(event, Lost)
    assert "its worker process has died" in event.reason
    assert event.reason.endswith(f"(node {ray.util.get_node_ip_address()})")
    assert crew.executor.num_free == 1

    asked_to_end = crew.submit(7)
    ((victim, _),) = crew.await_processes(7)
    os.kill(victim, signal.SIGTERM)
    ((ticket, event),) = crew.events().items()
    assert ticket == asked_to_end
    assert isinstance(event, Preempted)
    assert "SIGTERM" in event.reason

    crew.release()
    ((ticket, event),) = crew.events().items()
    assert ticket == spared
    assert isinstance(event, Finished)
    assert crew.executor.wait(0.2) == []


@clustered
def test_a_dead_node_takes_its_task_away_and_another_node_runs_it(cluster, crew, capfd):
    tickets = {crew.submit(seed): seed for seed in (5, 6)}
    crew.await_processes(5, 6)
    (node,) = cluster.worker_nodes
    raylet = raylet_of(node).pid
    ((seed, worker),) = (
        (seed, worker)
        for seed in (5, 6)
        for worker, parent in crew.processes(seed).items()
        if parent == raylet
    )
    os.kill(raylet, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    ((ticket, event),) = crew.events().items()
    assert tickets[ticket] == seed
    assert isinstance(event, Preempted)
    # By which of the two the driver knows first: that the node is dead, or that its line is, for
    # which gRPC has several words ("Socket closed", "recvmsg:Connection reset by peer").
    assert re.search("its node has died|is unavailable: ", event.reason)
    # A word of Ray's on standard output would spoil the document that is printed there.
    assert capfd.readouterr().out == ""

    cluster.remove_node(node)
    again = crew.submit(7)
    assert crew.events(timeout_s=0.5) == {}
    cluster.add_node(num_cpus=1)
    crew.release()
    events = crew.events(2)
    assert set(events) == {again, *tickets} - {ticket}
    assert all(isinstance(event, Finished) for event in events.values())


@clustered
@pytest.mark.usefixtures("sigint_is_heeded")
def test_ctrl_c_leaves_no_worker(crew, crews):
    crew.submit(5)
    crew.submit(6)
    workers = [process for process, _ in crew.await_processes(5, 6)]
    assert all(map(is_alive, workers))
    timer = threading.Timer(0.2, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        crew.executor.wait(60)
    began = time.monotonic()
    dismiss(crews)
    assert all_end(workers)
    assert time.monotonic() - began < 30
    assert crew.executor.num_free == 2
    deadline = time.monotonic() + LONGEST_S
    while ray.available_resources().get("CPU") != 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ray.available_resources()["CPU"] == 2


@pytest.fixture(scope="module")
def space():
    return BudgetedSpace(Space.from_document(SPACE))


def labs(tmp_path, space, *names):
    """Databases of their own: within one, evaluations are shared among studies."""
    for name in names:
        (tmp_path / name).mkdir()
        yield Lab(tmp_path / name, space)


@clustered
def test_one_slot_gives_the_study_of_any_other_executor(idle_cluster, tmp_path, space):
    here, there = labs(tmp_path, space, "here", "there")
    evaluator = Staged(noise=0.3)
    options = {
        "searcher": "tpe",
        "num_trials": 20,
        "confirm_seeds": 2,
        "pruner": MoAsha(rungs=evaluator.rungs),
    }
    summary = here.run(executor=Inline(evaluator), **options)
    on_ray = there.run(executor=executor_of(evaluator, tmp_path, num_slots=1), **options)
    assert there.history() == here.history()
    assert on_ray.count(TrialRole.SEARCH) == summary.count(TrialRole.SEARCH)
    assert summary.count(TrialRole.SEARCH)["pruned"] > 0
    assert [(m.placement, m.top1s) for m in on_ray.front.members] == [
        (m.placement, m.top1s) for m in summary.front.members
    ]


@clustered
def test_two_slots_give_equal_studies_where_the_order_of_ends_must_not_matter(
    idle_cluster, tmp_path, space
):
    here, there = labs(tmp_path, space, "here", "there")
    options = {"searcher": "tpe", "num_trials": 20, "deterministic": True}
    here.run(executor=Inline(Fake(noise=0.3), 2, random.Random(0)), **options)
    slow = executor_of(Slow(noise=0.3), tmp_path, num_slots=2)
    there.run(executor=slow, **options)
    assert there.history() == here.history()


SKIPPING = {
    **SPACE,
    "name": "skipping",
    "stages": [{"depth": [2, 3], "counts": {"V": [1], "S": [1, 2]}, "xse": [0, 1]}],
}


@clustered
def test_nodes_know_the_mechanisms_of_plug_ins(idle_cluster, tmp_path):
    here, there = labs(tmp_path, BudgetedSpace(Space.from_document(SKIPPING)), "here", "there")
    options = {"searcher": "random", "num_trials": 4, "deterministic": True}
    summary = here.run(executor=Inline(Building(), 2, random.Random(0)), **options)
    there.run(executor=executor_of(Building(), tmp_path, num_slots=2), **options)
    assert there.history() == here.history()
    assert summary.count(TrialRole.SEARCH)["complete"] == 4
    assert all("S" in member.placement for member in summary.front.members)


@clustered
def test_a_search_by_shared_weights_gives_what_it_gives_without_a_cluster(idle_cluster, tmp_path):
    labs = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        labs.append(SupernetLab(tmp_path / name, batch_size=64))
    here, there = labs
    expected = here.run(confirm_seeds=1)
    executors = [
        RayTuneExecutor(
            there.evaluator,
            num_slots=num_slots,
            resources=TrialResources(),
            folder=tmp_path / what,
        )
        for what, num_slots in (("supernet", 1), ("scoring", 2), ("tune", 1))
    ]
    summary = there.run(confirm_seeds=1, executors=executors)
    assert summary.count(TrialRole.SEARCH)["complete"] == there.space.in_budget
    for role in TrialRole:
        assert {r.placement: r.top1 for r in summary.rows if r.role is role} == {
            r.placement: r.top1 for r in expected.rows if r.role is role
        }
    assert summary.hypervolume == expected.hypervolume


@clustered
def test_every_node_is_asked(cluster):
    answers = ray_tune.on_every_node(echo, 7, timeout_s=LONGEST_S)
    assert set(answers.values()) == {7}
    assert len(answers) == 2
    failures = ray_tune.on_every_node(complain, "why", timeout_s=LONGEST_S)
    assert [str(error) for error in failures.values()] == ["why", "why"]
    assert all(isinstance(error, InputError) for error in failures.values())
    late = ray_tune.on_every_node(dawdle, timeout_s=0.5)
    assert {type(error) for error in late.values()} == {TimeoutError}
    assert ray_tune.trial_slots(TrialResources(), None) == 2
    assert not ray_tune.has_gpus()


def node(name, **resources):
    return name, {"Resources": resources, "NodeID": name, "Alive": True}


@pytest.fixture
def nodes(monkeypatch):
    """What the cluster is said to consist of."""

    def consist_of(*of):
        monkeypatch.setattr(ray_tune, "_nodes", lambda: dict(of))

    return consist_of


@pytest.mark.parametrize(
    ("resources", "fitting"),
    [
        (TrialResources(), 8 + 3),
        (TrialResources(cpus=2), 4 + 1),
        (TrialResources(gpus=1), 2),
        (TrialResources(gpus=2), 1),
        (TrialResources(gpus=0.5), 4),
        # Two fifths are left on each of two GPUs, and no trial has parts of two.
        (TrialResources(gpus=0.6), 2),
        (TrialResources(gpus=0.1), 8),
        (TrialResources(cpus=1, custom={"big-disk": 0.7}), 2),
        (TrialResources(cpus=4, gpus=0.2), 2),
    ],
)
def test_slots_are_counted_node_by_node(nodes, resources, fitting):
    nodes(node("a", CPU=8.0, GPU=2.0), node("b", CPU=3.0, **{"big-disk": 2.0}))
    assert ray_tune.trial_slots(resources, None) == fitting
    # More wait for their turn.
    assert ray_tune.trial_slots(resources, 50) == 50


@pytest.mark.parametrize(
    ("resources", "asks"),
    [
        (TrialResources(cpus=9), "asks for 9 CPU, and a has 8 CPU; b has 4 CPU"),
        (TrialResources(gpus=2), "asks for 1 CPU, 2 GPU, and a has 8 CPU, 1 GPU; b has 4 CPU, 1"),
        (TrialResources(custom={"tpu": 1}), "1 tpu, and a has 8 CPU, 0 tpu; b has 4 CPU, 0 tpu"),
    ],
)
def test_a_trial_that_fits_no_node_is_refused(nodes, resources, asks):
    nodes(node("a", CPU=8.0, GPU=1.0), node("b", CPU=4.0, GPU=1.0))
    with pytest.raises(InputError, match="no node of the cluster has what a trial asks for") as no:
        ray_tune.trial_slots(resources, 3)
    assert asks in str(no.value)


@pytest.fixture
def silent():
    """An address where somebody listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def website():
    """An address where somebody speaks HTTP, such as a cluster's dashboard."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.RequestHandlerClass.log_message = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def unconnected(monkeypatch):
    """Whatever the module's cluster is at the time; what `connect` sets is gone afterwards."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for name in (*ray_tune.ENVIRONMENT, "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "0")


@pytest.mark.usefixtures("unconnected")
@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1:1", "refused"),
        ("127.0.0.1:99999", "port"),
        ("no-such-host.invalid:6379", "o-such-host|ame"),
        ("6379", "Errno|address|refused"),
        ("head:port", "invalid literal"),
        ("ray://head:10001", "on the cluster"),
    ],
)
def test_a_wrong_address_is_refused_at_once(address, why):
    _refuses(address, why)


@pytest.mark.usefixtures("unconnected")
def test_what_is_no_cluster_is_refused_in_seconds(monkeypatch, silent, website):
    _refuses(website, "something else answers")
    monkeypatch.setattr(ray_tune, "CONNECT_TIMEOUT_S", 0.5)
    _refuses(silent, "timed out")


def _refuses(address, why):
    began = time.monotonic()
    with pytest.raises(InputError, match="`--address` is .*no cluster.*host:port") as no:
        ray_tune.connect(address)
    assert repr(address) in str(no.value)
    assert re.search(why, str(no.value))
    assert time.monotonic() - began < 20


def test_a_worker_killed_for_memory_does_not_end_the_search(monkeypatch, tmp_path):
    """Of such a death Tune's loop dies; the message is Ray's, shortened."""
    memory = "1 worker(s) were killed due to the node running low on memory."
    message = f"{memory}\nSelected to kill: (Actor(c0ffee01): job ID=01, task name=train)"
    runs = []

    def run(trainable, *, search_alg, callbacks, **_):
        runs.append(trainable)
        if len(runs) == 3:
            raise ConnectionError("Failed to connect to GCS")
        (watch,) = callbacks
        for actor in ("c0ffee01", "beef02") if len(runs) == 1 else ("beef03",):
            handle = SimpleNamespace(_actor_id=bytes.fromhex(f"{actor:0>8}"))
            while (config := search_alg.suggest(actor)) is None:
                time.sleep(0.01)
            trial = SimpleNamespace(
                config=config, temporary_state=SimpleNamespace(ray_actor=handle)
            )
            watch.on_trial_start(0, [], trial)
        raise RuntimeError("Caught unexpected exception") from OutOfMemoryError(message)

    monkeypatch.setattr(ray_tune.tune, "run", run)
    monkeypatch.setattr(ray_tune.tune, "with_parameters", lambda trainable, **_: trainable)
    monkeypatch.setattr(ray_tune.ray, "kill", lambda actor: None)
    # Asked for an actor, Ray starts a cluster of its own where there is none.
    monkeypatch.setattr(ray_tune._BoardReader, "open", lambda _: None)
    evaluator = Fake()
    with executor_of(evaluator, tmp_path, num_slots=2) as executor:
        taken_away = Preempted(f"Ray Tune was started again, since {memory}")
        executor.submit(0, task(evaluator, 0))
        executor.submit(1, task(evaluator, 1))
        assert executor.wait(LONGEST_S) == [(0, Lost(memory))]
        assert executor.wait(LONGEST_S) == [(1, taken_away)]
        executor.submit(2, task(evaluator, 2))
        assert executor.wait(LONGEST_S) == [(2, taken_away)]
        executor.submit(3, task(evaluator, 3))
        with pytest.raises(ClusterLostError, match="Ray says: Failed to connect to GCS"):
            executor.wait(LONGEST_S)


def test_without_ray_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "sharedattn.search.executors.ray.executor")
    with pytest.raises(InputError, match=r"requires Ray Tune.*pip install 'sharedattn\[ray\]'"):
        importlib.import_module("sharedattn.search.executors.ray.executor")


def test_slots_are_at_least_one(tmp_path):
    with pytest.raises(ValueError, match="`num_slots` is .* at least 1"):
        executor_of(Fake(), tmp_path, num_slots=0)


@pytest.mark.usefixtures("unconnected")
@pytest.mark.parametrize(
    "error",
    [
        ray.exceptions.AuthenticationError("no authentication token was found"),
        # All that Ray says of a driver that was started without the mode.
        ConnectionError("Failed to connect to Ray cluster at head:6379"),
    ],
)
def test_a_cluster_whose_token_is_not_known(monkeypatch, error):
    def init(**_):
        raise error

    monkeypatch.setattr(ray, "init", init)
    message = (
        f"cannot join a cluster.*{re.escape(str(error))}; .*token asks for RAY_AUTH_MODE=token"
    )
    with pytest.raises(InputError, match=message):
        ray_tune.connect(None)
