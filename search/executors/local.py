"""Worker processes on this machine, one a slot.

A slot is one spawned process with a pipe of its own: when it dies, only the task it held is lost,
and the next task starts a new process. A worker holds no lock and ends as soon as its driver is
gone, however the driver went.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from search.evaluators.base import Evaluator, Task
from search.executors.base import Event, Executor, Lost, Preempted, Reported, advance

_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(slots=True)
class _Slot:
    process: SpawnProcess
    pipe: Connection
    lifeline: Connection
    ticket: int | None = None


class LocalExecutor(Executor):
    """Runs tasks in processes of this machine.

    Args:
        evaluator: pickled once to each worker.
        num_slots: processes.
        threads: torch threads of each; None: the machine's cores shared among the slots.
        gpus: GPUs of each, a fraction to share one; with more slots than they allow, slots take
            turns. Within a worker they are devices 0, 1, ..., as on a cluster.

    Raises:
        ValueError: no slots, or no threads.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        *,
        num_slots: int,
        threads: int | None = None,
        gpus: float = 0.0,
    ) -> None:
        if num_slots < 1 or (threads is not None and threads < 1):
            raise ValueError(
                f"`num_slots >= 1 and threads >= 1` must hold, but got {num_slots} and {threads}"
            )
        self.num_slots = num_slots
        self.threads = threads or default_threads(num_slots)
        self._gpus = gpus
        self._evaluator = pickle.dumps(evaluator)
        self._slots: list[_Slot | None] = [None] * num_slots

    @property
    def num_free(self) -> int:
        return sum(slot is None or slot.ticket is None for slot in self._slots)

    def submit(self, ticket: int, task: Task) -> None:
        index = next(i for i, s in enumerate(self._slots) if s is None or s.ticket is None)
        slot = self._slots[index]
        if slot is None or not slot.process.is_alive():
            if slot is not None:
                _end(slot)
            slot = self._slots[index] = self._start(index)
        slot.ticket = ticket
        _send(slot, task)

    def wait(self, timeout_s: float | None = None) -> list[tuple[int, Event]]:
        busy = {
            slot.pipe: index
            for index, slot in enumerate(self._slots)
            if slot is not None and slot.ticket is not None
        }
        events: list[tuple[int, Event]] = []
        for ready in wait(list(busy), timeout_s):
            index = busy[ready]  # type: ignore[index]
            slot = self._slots[index]
            assert slot is not None
            assert slot.ticket is not None
            ticket = slot.ticket
            event: Event
            try:
                event = slot.pipe.recv()
            except (EOFError, ConnectionResetError):
                slot.process.join()
                event = _death(slot.process.exitcode)
                _end(slot)
                self._slots[index] = None
            else:
                if not isinstance(event, Reported):
                    slot.ticket = None
            events.append((ticket, event))
        return sorted(events, key=lambda pair: pair[0])

    def go_on(self, ticket: int) -> None:
        self._answer(ticket, True)

    def stop(self, ticket: int) -> None:
        self._answer(ticket, False).ticket = None

    def _answer(self, ticket: int, goes_on: bool) -> _Slot:
        """Tell a worker that waits at a rung what to do."""
        slot = next(s for s in self._slots if s is not None and s.ticket == ticket)
        _send(slot, goes_on)
        return slot

    def close(self) -> None:
        for index, slot in enumerate(self._slots):
            if slot is not None:
                slot.process.kill()
                _end(slot)
            self._slots[index] = None

    def _start(self, slot: int) -> _Slot:
        ours, theirs = _CONTEXT.Pipe()
        lifeline, watched = _CONTEXT.Pipe()
        process = _CONTEXT.Process(
            target=_work,
            # Not a daemon: image data sets load with processes of their own, which a daemon may
            # not have. The lifeline ends a worker whose driver is gone.
            args=(
                theirs,
                watched,
                self._evaluator,
                self.threads,
                visible_gpus(slot, self._gpus) if self._gpus else None,
            ),
        )
        process.start()
        theirs.close()
        watched.close()
        return _Slot(process, ours, lifeline)


def default_threads(num_slots: int) -> int:
    """Torch threads of a slot: the cores this process may use, shared evenly."""
    return max(1, len(os.sched_getaffinity(0)) // num_slots)


def visible_gpus(slot: int, gpus: float) -> str:
    """CUDA_VISIBLE_DEVICES of a slot: its share of the GPUs that this process sees.

    Args:
        slot: index, from 0.
        gpus: GPUs of a slot, a fraction to share one.
    """
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    ours = given.split(",") if given else [str(i) for i in range(torch.cuda.device_count())]
    first = int(slot * gpus)
    return ",".join(ours[i % len(ours)] for i in range(first, first + max(1, int(gpus))))


def _send(slot: _Slot, message: Task | bool) -> None:
    try:
        slot.pipe.send(message)
    except (BrokenPipeError, ConnectionResetError):
        # The worker died just now: `wait` sees its end of the pipe closed and reports it.
        pass


def _end(slot: _Slot) -> None:
    slot.pipe.close()
    slot.lifeline.close()
    slot.process.join()
    slot.process.close()


def _death(exitcode: int | None) -> Lost | Preempted:
    if exitcode == -signal.SIGTERM:
        # A scheduler's or an administrator's notice: a process that fails gets other signals.
        return Preempted("the worker was asked to end, by SIGTERM")
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        memory = "; the machine may have run out of memory" if name == "SIGKILL" else ""
        return Lost(f"the worker was ended by {name}{memory}")
    return Lost(f"the worker ended with exit code {exitcode}")


def _work(
    pipe: Connection, lifeline: Connection, evaluator: bytes, threads: int, gpus: str | None
) -> None:
    """A worker's life: tasks in, events out, until the driver's end of the pipe closes."""
    # Ctrl-C reaches the whole process group; the driver alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_driver, args=(lifeline,), daemon=True).start()
    # timm 1.0.31 warns at import of its own use of torch.jit; a worker would print that each time.
    warnings.filterwarnings("ignore", message=".*torch.jit.*")
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    import torch

    torch.set_num_threads(threads)
    measures: Evaluator = pickle.loads(evaluator)
    while True:
        try:
            evaluation = measures.evaluate(pipe.recv())
            event: Event = advance(evaluation, threads)
            pipe.send(event)
            while isinstance(event, Reported) and pipe.recv():
                event = advance(evaluation, threads)
                pipe.send(event)
            evaluation.close()
        except EOFError:
            return


def _end_with_driver(lifeline: Connection) -> None:
    # Nothing is ever sent: this returns when the driver closes its end or dies, also by SIGKILL.
    try:
        lifeline.recv_bytes()
    except (EOFError, OSError):
        pass
    os._exit(0)
