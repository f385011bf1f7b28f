"""Training from scratch: every placement gets the whole recipe, unless it is stopped at a rung."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property

from sharedattn.data import DataConfig, DataSource, open_data
from sharedattn.distributed import ALONE, Rank
from sharedattn.errors import InputError
from sharedattn.networks.network import Network
from sharedattn.progress import OnProgress
from sharedattn.recipe import Recipe
from sharedattn.results.artifacts.checkpoints import CheckpointStore
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.results.records import EpochMetrics, Fidelity
from sharedattn.search.evaluators.base import Measurement, RankedEvaluator, Task
from sharedattn.search.evaluators.checkpointed import CheckpointedTraining
from sharedattn.training.trainer import Trainer


@dataclass(frozen=True)
class ScratchEvaluator(RankedEvaluator):
    """Trains a placement from its initialisation, and keeps the weights.

    Attributes:
        data: the data, opened in each worker once.
        recipe: how to train.
        weights: where the trained weights are put; None: nowhere.
        checkpoints: where unfinished trainings are put; None: nowhere.
        device: where to train.
        rank: which of the processes this is that train a placement together.
        data_digest: of the data as the search found it, see `DataSource.digest`; None: data is
            taken as it is.
        checkpoint_every_s: least seconds between two checkpoints of a training, those of rungs
            apart: a large network takes long to write.
    """

    data: DataConfig
    recipe: Recipe
    weights: WeightsStore | None = None
    checkpoints: CheckpointStore | None = None
    device: str = "cpu"
    rank: Rank = ALONE
    data_digest: str | None = None
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
        """The data, in this process.

        Raises:
            InputError: it is not there, or no longer the data that the search found.
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
        return (yield from self.train(task, on_progress=on_progress))

    def train(
        self,
        task: Task,
        network: Network | None = None,
        *,
        on_progress: OnProgress | None = None,
    ) -> Generator[EpochMetrics, None, Measurement]:
        """Train a placement, from its initialisation or from the weights of its `network`."""
        trainer = Trainer(
            task.spec,
            self.opened(),
            self.recipe,
            seed=task.seed,
            device=self.device,
            rank=self.rank,
            on_progress=on_progress,
            network=network,
        )
        checkpointed = CheckpointedTraining(
            checkpoints=self.checkpoints, rank=self.rank, every_s=self.checkpoint_every_s
        )
        yield from checkpointed.run(trainer, task, self.rungs)
        training = trainer.result()
        sha256 = None
        if self.weights is not None and self.rank.is_first:
            sha256 = self.weights.save(task.identity.key, training.network.state_dict())
        return Measurement(
            split="validation",
            top1=training.metrics.top1,
            loss=training.metrics.loss,
            num_images=training.metrics.num_images,
            wall_time_s=training.wall_time_s,
            device=self.shown_device,
            learning_curve=tuple(epoch.to_json() for epoch in training.curve),
            weights_sha256=sha256,
        )
