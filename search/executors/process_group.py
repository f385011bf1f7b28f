"""Trials of several processes, which train one network together with one GPU each.

The worker that runs a trial starts its processes, passes their reports on, and computes nothing
itself. All of them end with the worker, or when one of them ends early.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait

import torch

from sharedattn.distributed import Rank, Rendezvous, join
from sharedattn.errors import InputError
from sharedattn.placement import ResolvedSpec
from sharedattn.progress import OnProgress, WorkProgress
from sharedattn.results.records import EpochMetrics, Fidelity
from sharedattn.search.evaluators import Evaluator, Measurement, Task
from sharedattn.search.evaluators.base import RankedEvaluator
from sharedattn.search.executors import (
    EvaluationEndedError,
    Event,
    Finished,
    Lost,
    Message,
    Preempted,
    Progressed,
    Reported,
    TrialResources,
    advance,
)
from sharedattn.search.executors.host_memory import keep_freed_memory
from sharedattn.search.executors.worker_process import Child, offer

# A dying process breaks the connections of the others, whose errors may arrive first.
_SILENT_DEATH_S = 1.0


@dataclass(frozen=True)
class ProcessGroupEvaluator(Evaluator):
    """Trains each placement by several processes of this machine.

    The processes share the worker's torch threads equally, and use the visible GPU of their rank.
    Results equal those of one process up to the order of sums.

    Attributes:
        evaluator: evaluator that each process runs with its own rank.
        num_processes: number of processes of a trial; at least 2.
    """

    evaluator: RankedEvaluator
    num_processes: int

    @property
    def recipe_key(self) -> str:
        return self.evaluator.recipe_key

    @property
    def data_fingerprint(self) -> str:
        return self.evaluator.data_fingerprint

    @property
    def fidelity(self) -> Fidelity:
        return self.evaluator.fidelity

    @property
    def rungs(self) -> tuple[int, ...]:
        return self.evaluator.rungs

    def final_task(self, spec: ResolvedSpec, seed: int, checkpoint: str | None = None) -> Task:
        return self.evaluator.final_task(spec, seed, checkpoint)

    def evaluate(
        self, task: Task, on_progress: OnProgress | None = None
    ) -> Generator[EpochMetrics, None, Measurement]:
        group = _Group(on_progress)
        try:
            group.start(self.evaluator, self.num_processes, task)
            while isinstance(event := group.wait(), Reported):
                yield event.metrics
                group.go_on()
            return event.measurement
        finally:
            group.end()


def in_processes(evaluator: RankedEvaluator, num_processes: int) -> Evaluator:
    """An evaluator whose trials have `num_processes` processes."""
    return evaluator if num_processes == 1 else ProcessGroupEvaluator(evaluator, num_processes)


def processes_per_trial(asked: int | None, resources: TrialResources, device: str) -> int:
    """Number of processes of a trial.

    Args:
        asked: the requested number; defaults to one per GPU, or one without GPUs.
        resources: resources of a trial.
        device: device on which it trains.

    Raises:
        InputError: less than one, or on GPUs other than one per GPU.
    """
    if asked is not None and asked < 1:
        raise InputError(f"`--processes-per-trial` is {asked}; it is at least 1")
    if device != "cuda":
        return asked or 1
    num_gpus = max(1, int(resources.gpus))
    if asked not in (None, num_gpus):
        raise InputError(
            f"`--processes-per-trial` is {asked}, but a trial has {resources.gpus:g} GPUs and "
            f"each process needs its own; leave out --processes-per-trial"
        )
    return num_gpus


class _Group:
    """The processes of one evaluation."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self._on_progress = on_progress
        self._rendezvous = Rendezvous()
        self._children: list[Child] = []

    def start(self, evaluator: RankedEvaluator, num_processes: int, task: Task) -> None:
        """Start the processes."""
        threads = max(1, torch.get_num_threads() // num_processes)
        for index in range(num_processes):
            own = replace(evaluator, rank=Rank(index, num_processes))  # type: ignore[type-var]
            is_watched = index == 0 and self._on_progress is not None
            child = Child.start(_evaluate, own, task, self._rendezvous.port, threads, is_watched)
            self._children.append(child)

    def end(self) -> None:
        """End the processes at once."""
        for child in self._children:
            child.end()

    def wait(self) -> Reported | Finished:
        """The first process's message once all have reached the same point.

        Raises:
            EvaluationEndedError: a process raised or died.
        """
        events: dict[int, Event] = {}
        index_of = {child.pipe: index for index, child in enumerate(self._children)}
        while len(events) < len(self._children):
            # Processes that have answered are watched too: they may die meanwhile.
            for ready in wait(list(index_of)):
                index = index_of[ready]  # type: ignore[index]
                event: Message
                try:
                    event = self._children[index].pipe.recv()
                except (EOFError, ConnectionResetError):
                    event = self._death(index)
                if isinstance(event, Progressed):
                    assert self._on_progress is not None
                    self._on_progress(event.progress)
                    continue
                if not isinstance(event, Reported | Finished):
                    raise EvaluationEndedError(self._first_death() or event)
                events[index] = event
        first = events[0]
        assert isinstance(first, Reported | Finished)
        return first

    def go_on(self) -> None:
        """Let all processes run to the next rung."""
        for child in self._children:
            child.send(True)

    def _first_death(self) -> Lost | Preempted | None:
        """How a process died, or None if none has."""
        sentinels = {child.process.sentinel: i for i, child in enumerate(self._children)}
        dead = wait(list(sentinels), _SILENT_DEATH_S)
        return self._death(sentinels[dead[0]]) if dead else None  # type: ignore[index]

    def _death(self, index: int) -> Lost | Preempted:
        return self._children[index].death(f"process {index} of the trial")


def _evaluate(
    pipe: Connection,
    evaluator: RankedEvaluator,
    task: Task,
    port: int,
    threads: int,
    is_watched: bool,
) -> None:
    """Main function of a process: events out, decisions in, until it is ended."""
    torch.set_num_threads(threads)
    keep_freed_memory()

    def tell(progress: WorkProgress) -> None:
        offer(pipe, Progressed(progress))

    evaluation = _evaluate_as_rank(evaluator, task, port, tell if is_watched else None)
    try:
        # It stays after its last event, since exiting would break the others' connections.
        while True:
            pipe.send(advance(evaluation, threads))
            pipe.recv()
    except EOFError:
        return


def _evaluate_as_rank(
    evaluator: RankedEvaluator, task: Task, port: int, on_progress: OnProgress | None
) -> Generator[EpochMetrics, None, Measurement]:
    join(evaluator.rank, port, evaluator.device)
    return (yield from evaluator.evaluate(task, on_progress))
