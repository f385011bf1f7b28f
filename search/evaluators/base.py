"""The evaluator interface; evaluators run inside workers and use no database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from sharedattn.distributed import Rank
from sharedattn.placement import ResolvedSpec
from sharedattn.progress import OnProgress
from sharedattn.results.records import EpochMetrics, EvaluationIdentity, EvaluationRecord, Fidelity
from sharedattn.search.provenance import library_versions
from sharedattn.spaces.naive import NaiveNetwork

K = TypeVar("K", bound="Task")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One evaluation to run.

    Attributes:
        spec: the network.
        seed: the training seed.
        identity: identifies this evaluation in the database.
        checkpoint: name of the evaluation's checkpoint, or None to keep none and start anew when
            the task is run again.
    """

    spec: ResolvedSpec
    seed: int
    identity: EvaluationIdentity
    checkpoint: str | None = None

    def as_kind(self, kind: type[K], **changes: Any) -> K:
        """The task as one of another class, with some fields changed or added."""
        own = {f.name: getattr(self, f.name) for f in fields(Task)}
        return kind(**own | changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Result of an evaluation.

    Attributes:
        split: name of the split of the metrics.
        top1: the quality of the task, a fraction: accuracy of a classifier, else its own.
        loss: mean cross entropy, nats.
        num_images: number of images in the split.
        wall_time_s: seconds of training and evaluation.
        device: such as "cpu".
        learning_curve: one document per epoch.
        weights_sha256: hash of the evaluation's weights file, or None if none is kept.
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
    """Measures placements; pickled once per worker.

    Equal tasks give equal measurements, except for times.
    """

    @property
    @abstractmethod
    def recipe_key(self) -> str:
        """Identifies the training method in the evaluation's identity."""

    @property
    @abstractmethod
    def data_fingerprint(self) -> str:
        """Identifies the data in the evaluation's identity."""

    @property
    @abstractmethod
    def fidelity(self) -> Fidelity:
        """The fidelity at which placements are measured."""

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which an evaluation reports and may be stopped, ascending."""
        return ()

    @abstractmethod
    def evaluate(
        self, task: Task, on_progress: OnProgress | None = None
    ) -> Generator[EpochMetrics, None, Measurement]:
        """Measure one placement.

        Args:
            task: the evaluation to run.
            on_progress: called about once a second with the progress, if the evaluator knows it,
                without influence on the result; or None.

        Yields:
            A report at each rung. The caller decides: `next` continues, `close` stops. A run that
            resumes from a rung's checkpoint yields that report again.

        Returns:
            The measurement.

        Raises:
            Exception: any error fails the trial; its traceback is stored.
        """

    def task(self, spec: ResolvedSpec, seed: int, checkpoint: str | None = None) -> Task:
        """The task of measuring `spec` with a seed; `checkpoint` as in `Task`."""
        identity = EvaluationIdentity(
            spec_key=spec.key,
            recipe_key=self.recipe_key,
            data_fingerprint=self.data_fingerprint,
            fidelity=self.fidelity,
            seed=seed,
        )
        return Task(spec=spec, seed=seed, identity=identity, checkpoint=checkpoint)

    def final_task(self, spec: ResolvedSpec, seed: int, checkpoint: str | None = None) -> Task:
        """The task of training a member of the front; arguments as in `task`."""
        return self.task(spec, seed, checkpoint)

    @property
    def cuts_weights(self) -> bool:
        """Whether networks made by hand are cut from a trained model's weights."""
        return False

    def baseline_task(
        self, network: NaiveNetwork, seed: int, checkpoint: str | None = None
    ) -> Task:
        """The task of training a network made by hand as the front's members are trained.

        Args:
            network: the network.
            seed: the training seed.
            checkpoint: as in `Task`.
        """
        return self.final_task(network.spec, seed, checkpoint)


class RankedEvaluator(Evaluator):
    """An evaluator that several processes may run together, one rank each; a dataclass.

    Attributes:
        rank: rank of this process.
        device: device to compute on.
    """

    rank: Rank
    device: str

    @property
    def shown_device(self) -> str:
        """The device, with the number of processes that use it."""
        return (
            self.device if self.rank.world_size == 1 else f"{self.device} x{self.rank.world_size}"
        )


def measure(
    evaluator: Evaluator, task: Task, on_progress: OnProgress | None = None
) -> Measurement:
    """Run an evaluation to its end, ignoring its reports."""
    return outcome(evaluator.evaluate(task, on_progress))


def outcome(evaluation: Generator[EpochMetrics, None, Measurement]) -> Measurement:
    """Exhaust an evaluation, and return its measurement."""
    while True:
        try:
            next(evaluation)
        except StopIteration as end:
            measured: Measurement = end.value
            return measured


def evaluation_record(
    identity: EvaluationIdentity, measured: Measurement, threads: int
) -> EvaluationRecord:
    """The database record of a measurement.

    Args:
        identity: the evaluation's identity.
        measured: its result.
        threads: torch threads that it used.

    Raises:
        ValueError: a metric is not finite or out of range; the trial then fails.
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
