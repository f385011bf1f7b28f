"""Worker processes on this machine, one per slot.

A slot is one spawned process with its own pipe: if it dies, only its task is lost, and the next
task starts a new process. A worker holds no lock, and ends as soon as its driver is gone for any
reason.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

import cloudpickle

from sharedattn.progress import WorkProgress
from sharedattn.search.evaluators.base import Evaluator, Task
from sharedattn.search.executors.base import (
    Event,
    Executor,
    Message,
    Progressed,
    Reported,
    advance,
)
from sharedattn.search.executors.worker_process import Child, offer


@dataclass(slots=True)
class _Slot(Child):
    ticket: int | None = None


class LocalExecutor(Executor):
    """Runs tasks in processes of this machine.

    Args:
        evaluator: pickled once to each worker.
        num_slots: number of processes.
        threads: torch threads of each; defaults to an equal share of the machine's cores.
        gpus: GPUs of each, a fraction to share one, of whose memory it may allocate as much; with
            more slots than they allow, slots take turns. Within a worker they are devices 0, 1,
            ..., as on a cluster.

    Raises:
        ValueError: `num_slots` or `threads` is below 1.
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
                f"`num_slots` is {num_slots} and `threads` {threads}; each is at least 1"
            )
        self.num_slots = num_slots
        self.threads = threads or default_threads(num_slots)
        self._gpus = gpus
        # As in Ray: definitions from a script or a notebook are pickled by value.
        self._evaluator: bytes = cloudpickle.dumps(evaluator)
        self._slots: list[_Slot | None] = [None] * num_slots

    @property
    def num_free(self) -> int:
        return sum(slot is None or slot.ticket is None for slot in self._slots)

    def submit(self, ticket: int, task: Task) -> None:
        index = next(i for i, s in enumerate(self._slots) if s is None or s.ticket is None)
        slot = self._slots[index]
        if slot is None or not slot.process.is_alive():
            if slot is not None:
                slot.end()
            slot = self._slots[index] = self._start(index)
        slot.ticket = ticket
        slot.send(task)

    def wait(self, timeout_s: float | None = None) -> list[tuple[int, Message]]:
        busy = {
            slot.pipe: index
            for index, slot in enumerate(self._slots)
            if slot is not None and slot.ticket is not None
        }
        messages: list[tuple[int, Message]] = []
        for ready in wait(list(busy), timeout_s):
            index = busy[ready]  # type: ignore[index]
            slot = self._slots[index]
            assert slot is not None
            assert slot.ticket is not None
            ticket = slot.ticket
            message: Message
            try:
                message = slot.pipe.recv()
                while isinstance(message, Progressed) and slot.pipe.poll():
                    message = slot.pipe.recv()
            except (EOFError, ConnectionResetError):
                message = slot.death("the worker")
                slot.end()
                self._slots[index] = None
            else:
                if not isinstance(message, Reported | Progressed):
                    slot.ticket = None
            messages.append((ticket, message))
        return sorted(messages, key=lambda pair: pair[0])

    def go_on(self, ticket: int) -> None:
        self._answer(ticket, True)

    def stop(self, ticket: int) -> None:
        self._answer(ticket, False).ticket = None

    def _answer(self, ticket: int, goes_on: bool) -> _Slot:
        """Tell a worker that waits at a rung whether to continue."""
        slot = next(s for s in self._slots if s is not None and s.ticket == ticket)
        slot.send(goes_on)
        return slot

    def close(self) -> None:
        for index, slot in enumerate(self._slots):
            if slot is not None:
                slot.end()
            self._slots[index] = None

    def _start(self, slot: int) -> _Slot:
        visible = visible_gpus(slot, self._gpus) if self._gpus else None
        return _Slot.start(_work, self._evaluator, self.threads, self._gpus, visible)


def default_threads(num_slots: int) -> int:
    """Torch threads of a slot: an equal share of the cores that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) // num_slots)


def visible_gpus(slot: int, gpus: float) -> str:
    """CUDA_VISIBLE_DEVICES of a slot: its share of the GPUs that this process sees.

    Args:
        slot: index of the slot, from 0.
        gpus: GPUs of a slot, a fraction to share one.
    """
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    ours = given.split(",") if given else [str(i) for i in range(torch.cuda.device_count())]
    first = int(slot * gpus)
    return ",".join(ours[i % len(ours)] for i in range(first, first + max(1, int(gpus))))


def _work(
    pipe: Connection, evaluator: bytes, threads: int, gpus: float, visible: str | None
) -> None:
    """Main function of a worker: tasks in, events out, until the driver closes the pipe."""
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    import torch

    from sharedattn.search.executors.gpu_memory import limit_gpu_memory
    from sharedattn.search.executors.host_memory import keep_freed_memory

    torch.set_num_threads(threads)
    limit_gpu_memory(gpus)
    keep_freed_memory()
    measures: Evaluator = pickle.loads(evaluator)

    def tell(progress: WorkProgress) -> None:
        offer(pipe, Progressed(progress))

    while True:
        try:
            evaluation = measures.evaluate(pipe.recv(), tell)
            event: Event = advance(evaluation, threads)
            pipe.send(event)
            while isinstance(event, Reported) and pipe.recv():
                event = advance(evaluation, threads)
                pipe.send(event)
            evaluation.close()
        except EOFError:
            return
