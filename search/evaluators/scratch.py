"""Training from scratch with the whole recipe, unless stopped at a rung."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cached_property

from sharedattn.data import DataConfig, DataSource, open_data
from sharedattn.distributed import ALONE, Rank
from sharedattn.errors import InputError
from sharedattn.networks.network import Network
from sharedattn.placement import ResolvedSpec
from sharedattn.progress import OnProgress
from sharedattn.recipe import Recipe
from sharedattn.results.artifacts.checkpoints import CheckpointStore
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.results.records import EpochMetrics, Fidelity
from sharedattn.search.evaluators.base import Measurement, RankedEvaluator, Task
from sharedattn.search.evaluators.checkpointed import CheckpointedTraining
from sharedattn.training.trainer import Trainer


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalTask(Task):
    """The training of a member of the front, for more epochs than a trial's."""


@dataclass(frozen=True)
class ScratchEvaluator(RankedEvaluator):
    """Trains a placement from its initialisation, and stores the weights.

    Attributes:
        data: the data, opened once per worker.
        recipe: training recipe.
        weights: store of the trained weights, or None to keep none.
        checkpoints: store of unfinished trainings, or None to keep none.
        device: device to train on.
        rank: rank of this process among those that train one placement together.
        data_digest: the data's `DataSource.digest` when the search was prepared, or None to accept
            any data.
        final_epochs: epochs of the front's members, or None for those of the recipe.
        shows_curve: whether to validate after every epoch, for the learning curve alone.
        checkpoint_every_s: minimum seconds between checkpoints of a training, except at rungs: a
            large network takes long to write.
    """

    data: DataConfig
    recipe: Recipe
    weights: WeightsStore | None = None
    checkpoints: CheckpointStore | None = None
    device: str = "cpu"
    rank: Rank = ALONE
    data_digest: str | None = None
    final_epochs: int | None = None
    shows_curve: bool = False
    checkpoint_every_s: float = 15.0

    @property
    def recipe_key(self) -> str:
        return self.recipe.key

    @property
    def rungs(self) -> tuple[int, ...]:
        return self.recipe.rungs

    @cached_property
    def data_fingerprint(self) -> str:
        return open_data(self.data).fingerprint

    @cached_property
    def fidelity(self) -> Fidelity:
        return Fidelity(epochs=self.recipe.epochs, image_size=open_data(self.data).image_size)

    def opened(self) -> DataSource:
        """The data in this process.

        Raises:
            InputError: the data is missing, or has changed since the search was prepared.
        """
        source = open_data(self.data)
        if self.data_digest not in (None, source.digest):
            raise InputError(
                f"`--data`: files of {self.data.name} were added, removed or changed since the "
                f"search began; put them back, or search anew"
            )
        return source

    def evaluate(
        self, task: Task, on_progress: OnProgress | None = None
    ) -> Generator[EpochMetrics, None, Measurement]:
        own = self._final if isinstance(task, FinalTask) else self
        return (yield from own.train(task, on_progress=on_progress))

    def final_task(self, spec: ResolvedSpec, seed: int, checkpoint: str | None = None) -> Task:
        task = self._final.task(spec, seed, checkpoint)
        if self.final_epochs is None:
            return task
        return task.as_kind(FinalTask)

    @property
    def _final(self) -> ScratchEvaluator:
        """Trains members of the front."""
        if self.final_epochs is None:
            return self
        return replace(self, recipe=self.recipe.extended(self.final_epochs))

    def train(
        self,
        task: Task,
        network: Network | None = None,
        *,
        teacher: Network | None = None,
        on_progress: OnProgress | None = None,
    ) -> Generator[EpochMetrics, None, Measurement]:
        """Train a placement, from its initialisation or from `network`'s weights.

        Args:
            task: the placement.
            network: its network with the weights to start from, or None.
            teacher: as of `Trainer`.
            on_progress: as of `Trainer`.
        """
        trainer = Trainer(
            task.spec,
            self.opened(),
            self.recipe,
            seed=task.seed,
            device=self.device,
            rank=self.rank,
            on_progress=on_progress,
            network=network,
            teacher=teacher,
        )
        checkpointed = CheckpointedTraining(
            checkpoints=self.checkpoints, rank=self.rank, every_s=self.checkpoint_every_s
        )
        epochs = range(1, self.recipe.epochs) if self.shows_curve else self.rungs
        yield from checkpointed.run(trainer, task, tuple(epochs))
        training = trainer.result()
        sha256 = None
        if self.weights is not None and self.rank.is_first:
            sha256 = self.weights.save(task.identity.key, training.network.state_dict())
        return Measurement(
            split="validation",
            top1=training.metrics.quality,
            loss=training.metrics.loss,
            num_images=training.metrics.num_images,
            wall_time_s=training.wall_time_s,
            device=self.shown_device,
            learning_curve=tuple(epoch.to_json() for epoch in training.curve),
            weights_sha256=sha256,
        )


class ThroughScratch(RankedEvaluator):
    """An evaluator whose trainings a `ScratchEvaluator` runs; a dataclass.

    Attributes:
        scratch: trains placements.
    """

    scratch: ScratchEvaluator

    @property
    def device(self) -> str:  # type: ignore[override]
        """The device of all computations."""
        return self.scratch.device

    @property
    def data_fingerprint(self) -> str:
        return self.scratch.data_fingerprint

    @property
    def fidelity(self) -> Fidelity:
        return self.scratch.fidelity
