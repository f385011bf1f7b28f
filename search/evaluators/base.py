"""What an evaluator takes and gives; it runs inside a worker and knows no database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sharedattn.distributed import Rank
from sharedattn.placement import ResolvedSpec
from sharedattn.progress import OnProgress
from sharedattn.results.records import EpochMetrics, EvaluationIdentity, EvaluationRecord, Fidelity
from sharedattn.search.provenance import library_versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One evaluation to be made.

    Attributes:
        spec: the network.
        seed: the training seed.
        identity: what names this evaluation in the database.
        checkpoint: name under which the evaluation keeps what it goes on from; None: it keeps
            nothing, and starts anew when it is run again.
    """

    spec: ResolvedSpec
    seed: int
    identity: EvaluationIdentity
    checkpoint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What an evaluation measured.

    Attributes:
        split: name of the split that the metrics are measured on.
        top1: accuracy, a fraction.
        loss: mean cross entropy, nats.
        num_images: images in the split.
        wall_time_s: seconds of training and evaluation.
        device: such as "cpu".
        learning_curve: one document an epoch.
        weights_sha256: of the file written for this evaluation; None: none is kept.
    """

    split: str
    top1: float
    loss: float
    num_images: int
    wall_time_s: float
    device: str = "cpu"
    learning_curve: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    weights_sha256: str | None = None


class Evaluator(ABC):
    """Measures placements; pickled once to each worker.

    Equal tasks give equal measurements, times apart.
    """

    @property
    @abstractmethod
    def recipe_key(self) -> str:
        """Names the way of training in the evaluation's identity."""

    @property
    @abstractmethod
    def data_fingerprint(self) -> str:
        """Names the data in the evaluation's identity."""

    @property
    @abstractmethod
    def fidelity(self) -> Fidelity:
        """How faithfully placements are measured."""

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which an evaluation reports and may be stopped; ascending."""
        return ()

    @abstractmethod
    def evaluate(
        self, task: Task, on_progress: OnProgress | None = None
    ) -> Generator[EpochMetrics, None, Measurement]:
        """Measure one placement.

        Args:
            task: what is measured.
            on_progress: told about once a second how far it is, if the evaluator knows; it
                changes nothing. None: nobody watches.

        Yields:
            A report at each rung. Whoever runs the evaluation decides there: `next` lets it go
            on, `close` ends it. One that goes on from a checkpoint of a rung reports that again.

        Returns:
            What was measured.

        Raises:
            Exception: whatever makes the trial a failed one; its traceback is stored.
        """

    def task(self, spec: ResolvedSpec, seed: int, checkpoint: str | None = None) -> Task:
        """The task of measuring `spec` with a seed; `checkpoint` as of `Task`."""
        identity = EvaluationIdentity(
            spec_key=spec.key,
            recipe_key=self.recipe_key,
            data_fingerprint=self.data_fingerprint,
            fidelity=self.fidelity,
            seed=seed,
        )
        return Task(spec=spec, seed=seed, identity=identity, checkpoint=checkpoint)


class RankedEvaluator(Evaluator):
    """An evaluator that several processes may run together, each as its rank; a dataclass.

    Attributes:
        rank: which of the processes this is.
        device: where they compute.
    """

    rank: Rank
    device: str

    @property
    def shown_device(self) -> str:
        """The device, and by how many processes it is used."""
        return (
            self.device if self.rank.world_size == 1 else f"{self.device} x{self.rank.world_size}"
        )


def measure(
    evaluator: Evaluator, task: Task, on_progress: OnProgress | None = None
) -> Measurement:
    """Run an evaluation to its end, whatever it reports on the way."""
    return outcome(evaluator.evaluate(task, on_progress))


def outcome(evaluation: Generator[EpochMetrics, None, Measurement]) -> Measurement:
    """What an evaluation returns at its end, whatever it reports on the way."""
    while True:
        try:
            next(evaluation)
        except StopIteration as end:
            measured: Measurement = end.value
            return measured


def evaluation_record(
    identity: EvaluationIdentity, measured: Measurement, threads: int
) -> EvaluationRecord:
    """What the database keeps of a measurement.

    Args:
        identity: what was measured.
        measured: what it gave.
        threads: torch threads it ran on.

    Raises:
        ValueError: a metric that is not finite or out of range: the trial is a failed one.
    """
    return EvaluationRecord(
        identity=identity,
        split=measured.split,
        top1=measured.top1,
        loss=measured.loss,
        num_images=measured.num_images,
        wall_time_s=measured.wall_time_s,
        device=measured.device,
        threads=threads,
        versions=library_versions(),
        learning_curve=measured.learning_curve,
        weights_sha256=measured.weights_sha256,
    )
