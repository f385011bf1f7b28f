"""The executor on Ray Tune, and queries of a Ray cluster; the only module that imports ray.

Tune's loop runs in its own thread and decides nothing: its searcher hands out the study loop's
tasks, its scheduler passes on the study loop's decisions, and its snapshots are never read. A
study's whole state is in the database.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import pickle
import shutil
import socket
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from sharedattn.errors import InputError
from sharedattn.progress import WorkProgress
from sharedattn.results.records import EpochMetrics
from sharedattn.search.evaluators import Evaluator, Measurement, Task
from sharedattn.search.executors.base import (
    Executor,
    Lost,
    Message,
    Preempted,
    Progressed,
    Reported,
    TrialResources,
    advance,
)
from sharedattn.search.executors.gpu_memory import limit_gpu_memory
from sharedattn.search.executors.host_memory import keep_freed_memory
from sharedattn.search.executors.ray.bridge import ClosedError, Handover
from sharedattn.search.executors.ray.errors import death, first_line

try:
    import ray
    from ray import tune
    from ray.tune.schedulers import FIFOScheduler, TrialScheduler
    from ray.tune.search import Searcher
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from sharedattn.search.executors.ray.tensorboard import TensorBoardLog
except ImportError as error:
    raise InputError(
        f"`--executor ray` requires Ray Tune: {error}; install it by pip install 'sharedattn[ray]'"
    ) from error

CONNECT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 3.0
_MAX_PENDING = 100  # pending progress messages per trial
# Opens an HTTP/2 connection: the preface and empty settings. Below, the type of the answer.
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_HTTP2_SETTINGS = bytes([4])
_MAX_SOCKET_PATH = 107  # bytes, on Linux
# Ray's pattern: the cluster's start time and the process that started it.
_LONGEST_SOCKET = "/ray/session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store"
ENVIRONMENT = {
    # Give paths the same meaning in a trial as in the driver.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # The database and TensorBoard's files already hold measurements and errors.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # Tune's snapshots of all trials would never be read.
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
    # The new output prints a box of settings even if silenced.
    "RAY_AIR_NEW_OUTPUT": "0",
}


class RayTuneExecutor(Executor):
    """Runs tasks as trials of Ray Tune on the cluster that `connect` has joined.

    A worker is reused from trial to trial. Tune does not replace one that dies: the study loop
    submits the task again, which resumes from its own checkpoint. A report must be answered before
    the next `wait`; until then Tune stands still.

    Args:
        evaluator: pickled once per worker.
        num_slots: number of trials at once; those that do not fit the cluster wait.
        resources: resources of each trial.
        folder: gets Tune's and TensorBoard's files.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        *,
        num_slots: int,
        resources: TrialResources,
        folder: Path,
    ) -> None:
        if num_slots < 1:
            raise ValueError(f"`num_slots` is {num_slots}; it is at least 1")
        self.num_slots = num_slots
        self.resources = resources
        self.folder = folder.absolute()
        # cloudpickle, which also covers definitions in a script or a notebook.
        self._evaluator: bytes = ray.cloudpickle.dumps(evaluator)  # type: ignore[no-untyped-call]
        self._handover = Handover()
        self._watch = _Watch(self._handover)
        self._log = TensorBoardLog(self.folder)
        self._tasks: dict[int, Task] = {}
        self._thread: threading.Thread | None = None
        self._board = _BoardReader()

    @property
    def num_free(self) -> int:
        return self.num_slots - self._handover.num_in_flight

    def submit(self, ticket: int, task: Task) -> None:
        self._tasks[ticket] = task
        self._handover.submit(ticket, task)
        if self._thread is None:
            self._board.open()
            # Start it with the first task: Tune sleeps for seconds if it finds none.
            self._thread = threading.Thread(target=self._run_tune, name="ray-tune", daemon=True)
            self._thread.start()

    def wait(self, timeout_s: float | None = None) -> list[tuple[int, Message]]:
        events = self._handover.wait(timeout_s)
        for ticket, event in events:
            self._log.write(self._tasks[ticket], event)
            if not isinstance(event, Reported):
                del self._tasks[ticket]
        said = {ticket for ticket, _ in events}
        messages: list[tuple[int, Message]] = [
            (ticket, Progressed(progress))
            for ticket, progress in self._board.read().items()
            if ticket in self._tasks and ticket not in said
        ]
        return sorted([*messages, *events], key=lambda pair: pair[0])

    def go_on(self, ticket: int) -> None:
        self._handover.answer(ticket, goes_on=True)

    def stop(self, ticket: int) -> None:
        del self._tasks[ticket]
        self._handover.answer(ticket, goes_on=False)

    def close(self) -> None:
        self._handover.close()
        self._board.close()
        if self._thread is not None:
            # Tune would ask busy workers to end, and wait for them.
            self._watch.kill_actors()
            self._thread.join(CLOSE_TIMEOUT_S)

    def _run_tune(self) -> None:
        """Run Tune's loop in its thread, and again if a worker's death ended it."""
        while True:
            error = self._end_of_tune()
            # Tune handles two kinds of worker errors; any other of Ray's, such as that of a worker
            # killed for lack of memory, ends its loop and all its workers.
            cause = error.__cause__
            if not isinstance(cause, ray.exceptions.RayError):
                self._handover.end(error)
                return
            try:
                for ticket, event in self._watch.deaths(str(cause)).items():
                    self._handover.deliver(ticket, event)
            except ClosedError as closed:
                self._handover.end(closed)
                return

    def _end_of_tune(self) -> BaseException:
        """Run Tune's loop until it is closed or fails, and return its error."""
        try:
            tune.run(
                tune.with_parameters(
                    _Evaluation,
                    evaluator=self._evaluator,
                    threads=self.resources.cpus,
                    gpus=self.resources.gpus,
                    board=self._board.actor,
                ),
                num_samples=-1,
                search_alg=_TaskSearcher(self._handover),
                scheduler=_AskingScheduler(self._handover),
                callbacks=[self._watch],
                # Also limits the workers that Tune starts at once.
                max_concurrent_trials=self.num_slots,
                resources_per_trial=tune.PlacementGroupFactory([_bundle(self.resources)]),
                reuse_actors=True,
                max_failures=0,
                raise_on_failed_trial=False,
                storage_path=str(self.folder.parent),
                name=self.folder.name,
                trial_dirname_creator=_short_name,
                verbose=0,
            )
        except BaseException as error:
            # Return any kind of error, since the study loop waits for it.
            return error
        return RuntimeError("Ray Tune has ended by itself")


class _Board:
    """An actor that holds each trial's latest progress.

    Trials and driver access it without waiting: an overwritten message, or one lost with the
    actor, is only progress. It holds at most one message per trial.
    """

    def __init__(self) -> None:
        self._said: dict[int, WorkProgress] = {}

    def write(self, ticket: int, progress: WorkProgress) -> None:
        """Replace a trial's progress."""
        self._said[ticket] = progress

    def read(self) -> dict[int, WorkProgress]:
        """Progress received since the last call."""
        said, self._said = self._said, {}
        return said


class _BoardReader:
    """The driver's side of a board; asks again only after an answer."""

    def __init__(self) -> None:
        self.actor: Any = None
        self._answer: Any = None

    def open(self) -> None:
        """Start the actor beside the driver, without a core, and do not wait for it."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        board: Any = ray.remote(_Board)
        self.actor = board.options(
            num_cpus=0, max_pending_calls=_MAX_PENDING, scheduling_strategy=here
        ).remote()

    def read(self) -> dict[int, WorkProgress]:
        """Progress received so far; empty if the board is gone."""
        if self.actor is None:
            return {}
        said: dict[int, WorkProgress] = {}
        try:
            if self._answer is not None:
                ready, _ = ray.wait([self._answer], timeout=0)
                if not ready:
                    return {}
                said = ray.get(self._answer)
            self._answer = self.actor.read.remote()
        except ray.exceptions.RayError:
            # The node died or lacks this package: trials continue without display.
            self.actor = None
        return said

    def close(self) -> None:
        """End the actor."""
        if self.actor is not None:
            with suppress(ray.exceptions.RayError):
                ray.kill(self.actor)
            self.actor = None


class _TaskSearcher(Searcher):
    """Hands out submitted tasks; stateless, so Tune has nothing to save."""

    def __init__(self, handover: Handover) -> None:
        super().__init__()
        self._handover = handover

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        taken = self._handover.take()
        if taken is None:
            return None
        ticket, task = taken
        # Pickled, since Tune deep-copies a trial's configuration several times.
        return {"ticket": ticket, "task": pickle.dumps(task)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        # Called for stopped and finished trials alike; the study loop distinguishes them.
        pass

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        pass


class _AskingScheduler(FIFOScheduler):
    """Passes every event to the study loop, and its answer to Tune."""

    def __init__(self, handover: Handover) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._handover = handover

    def on_trial_result(
        self, tune_controller: Any, trial: tune.experiment.Trial, result: dict[str, Any]
    ) -> str:
        goes_on = self._handover.deliver(trial.config["ticket"], result["event"])
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: Any, trial: tune.experiment.Trial) -> None:
        # The first line is the time.
        message = Path(trial.error_file).read_text(encoding="utf-8").partition("\n")[2]
        self._handover.deliver(trial.config["ticket"], death(message))

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        # Tune starts pending trials in order anyway; FIFO's method scans all trials ever run.
        return None


class _Watch(tune.Callback):
    """Ends Tune's loop when the executor closes; tracks workers, and deletes trial folders."""

    def __init__(self, handover: Handover) -> None:
        self._handover = handover
        self._actors: dict[int, Any] = {}  # by ticket
        self._failed: list[Any] = []  # trials whose folders are to be deleted

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._handover.check()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._actors[trial.config["ticket"]] = trial.temporary_state.ray_actor

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Any],
        trial: Any,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        # Drop the event, since Tune keeps each trial's last result to the end.
        del result["event"]

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: Any, **info: Any
    ) -> None:
        self._forget(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        # If the worker died before the trial reached it, Tune is notified twice in one step, for
        # the worker and for its task, and each time writes the error into the folder.
        self._failed.append(trial)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        while self._failed:
            self._forget(self._failed.pop())

    def _forget(self, trial: Any) -> None:
        self._actors.pop(trial.config["ticket"], None)
        # Tune creates a folder per trial, which only ever holds the text of its error.
        shutil.rmtree(trial.local_path, ignore_errors=True)

    def kill_actors(self) -> None:
        """End the workers of running trials at once."""
        for actor in list(self._actors.values()):
            ray.kill(actor)

    def deaths(self, message: str) -> dict[int, Lost | Preempted]:
        """The fates, by ticket, of the trials that ran when an error ended Tune's loop.

        Args:
            message: the error's text. Trials whose workers it names are lost; the others were
                preempted.
        """
        reason = first_line(message)
        actors, self._actors = self._actors, {}
        return {
            ticket: Lost(reason)
            if ticket in actors and actors[ticket]._actor_id.hex() in message
            else Preempted(f"Ray Tune was started again, since {reason}")
            for ticket in self._handover.held()
        }


class _Evaluation(tune.Trainable):
    """A worker: evaluates one trial after the other, one step per rung."""

    def setup(
        self,
        config: dict[str, Any],
        evaluator: bytes = b"",
        threads: int = 1,
        gpus: float = 0.0,
        board: Any = None,
    ) -> None:
        torch.set_num_threads(threads)
        limit_gpu_memory(gpus)
        keep_freed_memory()
        self._threads = threads
        self._board = board
        self._pickled = evaluator
        self._evaluator: Evaluator | None = None
        self._is_fresh = True
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        if self._evaluation is not None:
            # The previous trial was stopped at a rung, and its evaluation is still open.
            self._clean_up()
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._evaluation: Generator[EpochMetrics, None, Measurement] | None = self._evaluate(
            config["ticket"], config["task"]
        )
        # Otherwise Tune sends the configuration with every result, and keeps a folder per trial.
        self.config = {}
        shutil.rmtree(self.logdir, ignore_errors=True)

    def step(self) -> dict[str, Any]:
        assert self._evaluation is not None
        event = advance(self._evaluation, self._threads)
        if not isinstance(event, Reported):
            self._clean_up()
        return {"event": event}

    def _evaluate(self, ticket: int, task: bytes) -> Generator[EpochMetrics, None, Measurement]:
        def tell(progress: WorkProgress) -> None:
            # Sent in the background; if the board is gone, the error is ignored.
            with suppress(ray.exceptions.PendingCallsLimitExceeded):
                self._board.write.remote(ticket, progress)

        # Load it here, so that a failure to load fails the trial.
        if self._evaluator is None:
            self._evaluator = pickle.loads(self._pickled)
        return (yield from self._evaluator.evaluate(pickle.loads(task), tell))

    def _clean_up(self) -> None:
        """Free a trial's memory, since others may share the GPU."""
        assert self._evaluation is not None
        self._evaluation.close()
        self._evaluation = None
        gc.collect()
        if self._is_fresh:
            # Modules and data are loaded by now and stay: collecting them after each trial would
            # take longer than many trials.
            gc.freeze()
            self._is_fresh = False
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def connect(address: str | None) -> None:
    """Join a running Ray cluster, or start one on this machine; later calls do nothing.

    Args:
        address: `auto`, or host:port of the cluster's head, or None to start a cluster.

    Raises:
        InputError: there is no cluster at the address, or none can be started here.
    """
    if ray.is_initialized():
        return
    if address is None:
        _check_socket_paths()
    os.environ.update(ENVIRONMENT)
    # Send no usage data unless the cluster's owner enables it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is not None and address != "auto":
        _check_is_cluster(address)
    try:
        ray.init(
            address="local" if address is None else address,
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise InputError(
            f"`--address` is auto, or host:port of a Ray cluster's head, but Ray cannot join "
            f"{address or 'a cluster of its own'}: {error}; a cluster with a token asks for "
            f"RAY_AUTH_MODE=token and its head's ~/.ray/auth_token"
        ) from error
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # Ray prints news of nodes and workers to standard output despite its settings; the command
    # line prints its document there.
    ray._private.worker._worker_logs_enabled = False


def _check_socket_paths() -> None:
    """Check that a cluster's socket paths fit below the folder of temporary files.

    Raises:
        InputError: the folder's path is too long.
    """
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    folder = "/tmp" if variable is None else os.environ[variable]
    room = _MAX_SOCKET_PATH - len(_LONGEST_SOCKET)
    if len(os.fsencode(folder)) > room:
        raise InputError(
            f"`{variable}` is the folder in which Ray keeps the sockets of a cluster, whose path "
            f"has at most {room} bytes, but got {len(os.fsencode(folder))}: {folder}; set "
            f"RAY_TMPDIR to a shorter one, such as /tmp"
        )


def _check_is_cluster(address: str) -> None:
    """Check the address quickly: Ray would try for minutes, then end the process.

    Raises:
        InputError: nothing there speaks HTTP/2, as a cluster's head does.
    """
    host, _, port = address.rpartition(":")
    try:
        if host.startswith("ray:"):
            raise ValueError("ray:// is for notebooks afar, run the search on the cluster")
        with socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S) as connection:
            connection.settimeout(CONNECT_TIMEOUT_S)
            connection.sendall(_HTTP2_HELLO)
            if connection.recv(4)[3:] != _HTTP2_SETTINGS:
                raise ValueError("something else answers there")
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"`--address` is {address!r}, where no cluster answers: {error}; give auto, or "
            f"host:port of a Ray cluster's head"
        ) from error


def disconnect() -> None:
    """Leave the cluster, and end it if `connect` started it."""
    ray.shutdown()


def node_resources() -> dict[str, dict[str, float]]:
    """Resources of each living node by Ray's names; memory in bytes."""
    return {name: node["Resources"] for name, node in _nodes().items()}


def has_gpus() -> bool:
    """Whether any node of the cluster has a GPU."""
    return any(total.get("GPU", 0) for total in node_resources().values())


def trial_slots(resources: TrialResources, num_workers: int | None) -> int:
    """Number of trials at once: as requested, or as many as fit the empty cluster.

    Args:
        resources: resources of each trial, all on one node.
        num_workers: the requested number, of which those that do not fit wait; or None for as
            many as fit.

    Raises:
        InputError: not even one fits.
    """
    bundle = _bundle(resources)
    totals = node_resources()
    fitting = sum(_num_fitting(bundle, total) for total in totals.values())
    if not fitting:
        had = "; ".join(
            f"{node} has {_listed({name: total.get(name, 0) for name in bundle})}"
            for node, total in totals.items()
        )
        raise InputError(
            f"no node of the cluster has what a trial asks for: it asks for {_listed(bundle)}, "
            f"and {had}"
        )
    return num_workers or fitting


def on_every_node(function: Callable[..., Any], *args: Any, timeout_s: float) -> dict[str, Any]:
    """Call a function once on every node of the cluster.

    Args:
        function: defined in a module that the nodes have.
        args: its arguments.
        timeout_s: time limit for all nodes together.

    Returns:
        By node, its result, or the exception that prevented one.
    """
    remote = ray.remote(num_cpus=0, max_retries=0)(function)
    calls = {
        name: remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(*args)
        for name, node in _nodes().items()
    }
    ray.wait(list(calls.values()), num_returns=len(calls), timeout=timeout_s)
    return {name: _outcome(call, timeout_s) for name, call in calls.items()}


def _outcome(call: Any, timeout_s: float) -> Any:
    try:
        return ray.get(call, timeout=0)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(call, force=True)
        return TimeoutError(f"no answer in {timeout_s:g} s")
    except ray.exceptions.RayTaskError as error:
        return error.cause
    except ray.exceptions.RayError as error:
        return error


def _nodes() -> dict[str, dict[str, Any]]:
    """The living nodes, by unique names that show where they are."""
    return {
        f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})": node
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    }


def _bundle(resources: TrialResources) -> dict[str, float]:
    """A trial's resources in Ray's names."""
    gpus = {"GPU": resources.gpus} if resources.gpus else {}
    return {"CPU": float(resources.cpus), **gpus, **resources.custom}


def _num_fitting(bundle: Mapping[str, float], total: Mapping[str, float]) -> int:
    """Number of trials that fit an empty node."""
    fitting = []
    for name, amount in bundle.items():
        has = total.get(name, 0.0)
        if name == "GPU" and amount < 1:
            # A trial's share is of one GPU: leftovers of two GPUs make no third share.
            fitting.append(int(has) * math.floor(1 / amount + 1e-9))
        else:
            fitting.append(math.floor(has / amount + 1e-9))
    return min(fitting)


def _listed(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())


def _short_name(trial: tune.experiment.Trial) -> str:
    return str(trial.trial_id)
