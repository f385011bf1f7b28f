"""The supernet evaluator: trained once, then used to score any placement.

A worker runs one of four tasks: evaluate the trained model that the supernet starts from, train
the supernet, score many placements with its weights, or train one placement separately.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from sharedattn.data import Split
from sharedattn.distributed import ALONE, Rank
from sharedattn.hashing import document_key
from sharedattn.networks.batch_norms import statistics_of
from sharedattn.networks.network import Network
from sharedattn.placement import NetworkSpec, Placement
from sharedattn.progress import OnProgress, ScoringMeter
from sharedattn.recipe import Recipe
from sharedattn.results.records import (
    EpochMetrics,
    EvaluationIdentity,
    fine_tuning_key,
)
from sharedattn.search.evaluators.base import Measurement, Task
from sharedattn.search.evaluators.checkpointed import CheckpointedTraining
from sharedattn.search.evaluators.scratch import ScratchEvaluator, ThroughScratch
from sharedattn.search.evaluators.supernet_spec import SupernetSpec
from sharedattn.spaces.naive import NaiveNetwork
from sharedattn.spaces.stratified import StratifiedSampler
from sharedattn.supernet.trainer import (
    SupernetTrainer,
    check_supernet_weights,
    shared_backbone,
)
from sharedattn.supernet.tree_evaluation import TreeEvaluation
from sharedattn.training.tasks.interface import Metrics
from sharedattn.training.trainer import evaluate
from sharedattn.weights.extract import extract

# Part of the names of weights and checkpoints, from when supernets could have several networks.
_ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTask(Task):
    """The evaluation of the trained model that the supernet starts from.

    Attributes:
        split: of the data.
    """

    split: Split


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetTask(Task):
    """The supernet's training; its identity names the resulting weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTask(Task):
    """Placements to score with shared weights.

    Attributes:
        placements: canonical on the backbone.
        weights_sha256: hash of the supernet's weights, part of the scores' identity.
    """

    placements: tuple[Placement, ...]
    weights_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuneTask(Task):
    """The training of one placement, starting from its share of the supernet's weights.

    Attributes:
        supernet_sha256: hash of the supernet's weights.
    """

    supernet_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CutTask(Task):
    """The training of a network that starts from its share of the trained model's weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FromScratchTask(Task):
    """The training of a network from its initialisation, by the recipe for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores(Measurement):
    """Scores of many placements; its own metrics are those of the best.

    Attributes:
        metrics: metrics of each placement, in the task's order.
    """

    metrics: tuple[Metrics, ...]


@dataclass(frozen=True)
class SupernetEvaluator(ThroughScratch):
    """Trains a supernet over a space, scores placements with it, and trains placements alone.

    Attributes:
        scratch: trains placements separately; its weights store holds the supernet's as well.
        supernet: the supernet.
        fine_tunes: whether placements trained separately start from their share of the supernet's
            weights, not from scratch. This needs a backbone whose DIA cells can be shared.
        baseline_recipe: trains baselines from scratch; defaults to the recipe of `scratch`.
        rank: rank of this process among those that train together.
    """

    scratch: ScratchEvaluator
    supernet: SupernetSpec
    fine_tunes: bool = True
    baseline_recipe: Recipe | None = None
    rank: Rank = ALONE

    def __post_init__(self) -> None:
        backbone = self.supernet.space.backbone
        if self.fine_tunes and shared_backbone(backbone, self.supernet.recipe) != backbone:
            raise ValueError(
                "the supernet's recipe has neutral gates, and the backbone dia_start=paper; what "
                "is fine-tuned has the gates of its supernet, so give the backbone dia_start=one"
            )

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone, since a worker loads the weights itself."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def recipe_key(self) -> str:
        return self.scratch.recipe_key

    @cached_property
    def supernet_identity(self) -> EvaluationIdentity:
        """The identity of the supernet's weights."""
        recipe = self.supernet.recipe
        return EvaluationIdentity(
            spec_key=self.supernet.key,
            recipe_key=recipe.key,
            data_fingerprint=self.data_fingerprint,
            fidelity=replace(self.fidelity, epochs=recipe.training.epochs, weights="inherited"),
            seed=self.supernet.seed,
        )

    def scored_identity(self, spec: NetworkSpec, weights_sha256: str) -> EvaluationIdentity:
        """The identity of a placement's accuracy with the shared weights.

        The weights' hash takes the place of the recipe: the same training with other thread
        counts may give other weights and scores.
        """
        asked = {
            "supernet_sha256": weights_sha256,
            "scored_images": self.supernet.recipe.scored_images,
            "calibration_batches": self.supernet.recipe.calibration_batches,
        }
        return replace(self.supernet_identity, spec_key=spec.key, recipe_key=document_key(asked))

    def start_task(self, split: Split) -> StartTask:
        """The task of evaluating the trained model that the supernet starts from, on a split."""
        return StartTask(
            spec=self.supernet.largest_network,
            seed=self.supernet.seed,
            identity=self.supernet_identity,
            split=split,
        )

    def supernet_task(self, checkpoint: str) -> SupernetTask:
        """The task of training the supernet; `checkpoint` as in `Task`."""
        return SupernetTask(
            spec=self.supernet.largest_network,
            seed=self.supernet.seed,
            identity=self.supernet_identity,
            checkpoint=checkpoint,
        )

    def score_task(self, placements: Sequence[Placement], weights_sha256: str) -> ScoreTask:
        """The task of scoring placements with the supernet's weights."""
        return ScoreTask(
            spec=self.supernet.largest_network,
            seed=self.supernet.seed,
            identity=self.supernet_identity,
            placements=tuple(placements),
            weights_sha256=weights_sha256,
        )

    def fine_tuning_task(self, task: Task, weights_sha256: str) -> FineTuneTask:
        """Turn a placement's training from scratch into one from the supernet's weights."""
        recipe_key = fine_tuning_key(task.identity.recipe_key, weights_sha256)
        return task.as_kind(
            FineTuneTask,
            identity=replace(task.identity, recipe_key=recipe_key),
            supernet_sha256=weights_sha256,
        )

    @property
    def cuts_weights(self) -> bool:
        return self.supernet.pretrained_sha256 is not None

    def baseline_task(
        self, network: NaiveNetwork, seed: int, checkpoint: str | None = None
    ) -> Task:
        start = self.supernet.pretrained_sha256
        if start is None or network.from_scratch:
            task = self._baseline_scratch.task(network.spec, seed, checkpoint)
            return task.as_kind(FromScratchTask)
        task = self.task(network.spec, seed, checkpoint)
        recipe_key = fine_tuning_key(task.identity.recipe_key, start)
        return task.as_kind(CutTask, identity=replace(task.identity, recipe_key=recipe_key))

    @property
    def _baseline_scratch(self) -> ScratchEvaluator:
        recipe = self.baseline_recipe or self.scratch.recipe
        # Nothing trained is started from.
        return replace(self.scratch, recipe=replace(recipe, distillation=0.0))

    def member(self, placement: Placement, weights_sha256: str) -> Network:
        """A placement's own network with its share of the supernet's weights, ready to train."""
        return extract(
            self._trained_network(weights_sha256),
            placement,
            drop_path_rate=self.scratch.recipe.drop_path_rate,
        )

    def evaluate(
        self, task: Task, on_progress: OnProgress | None = None
    ) -> Generator[EpochMetrics, None, Measurement]:
        if isinstance(task, StartTask):
            return self._evaluate_start(task)
        if isinstance(task, SupernetTask):
            return (yield from self._train(task, on_progress))
        if isinstance(task, ScoreTask):
            return self._score(task, on_progress)
        network, scratch, teacher = None, self.scratch, None
        if isinstance(task, FineTuneTask | CutTask) and scratch.recipe.distillation:
            teacher = self.teacher()
        if isinstance(task, FineTuneTask):
            network = self.member(task.spec.placement, task.supernet_sha256)
        elif isinstance(task, CutTask):
            assert self.supernet.start is not None
            cut = self.supernet.start.network(
                task.spec,
                scratch.recipe,
                scratch.opened(),
                seed=self.supernet.seed,
                device=self.device,
            )
            network = cut.to(self.device)
        elif isinstance(task, FromScratchTask):
            scratch = self._baseline_scratch
        own = replace(scratch, rank=self.rank)
        return (yield from own.train(task, network, teacher=teacher, on_progress=on_progress))

    def teacher(self) -> Network:
        """The trained model that the supernet starts from, on this device.

        Raises:
            InputError: its weights are gone, or others than before.
        """
        network = self.supernet.pretrained_network(self.scratch.opened(), self.device)
        return network.to(self.device)

    def checkpoint_of(self, checkpoint: str) -> str:
        """Name of the checkpoint of the supernet's training."""
        return f"{checkpoint}-{_ALL}"

    def _evaluate_start(self, task: StartTask) -> Measurement:
        started = time.perf_counter()
        data = self.scratch.opened()
        metrics = evaluate(
            self.supernet.pretrained_network(data, self.device).to(self.device),
            data,
            task.split,
            # Nothing is kept for a backward pass.
            batch_size=2 * self.supernet.recipe.training.batch_size,
            device=self.device,
            rank=self.rank,
        )
        return Measurement(
            split=task.split,
            top1=metrics.quality,
            loss=metrics.loss,
            num_images=metrics.num_images,
            wall_time_s=time.perf_counter() - started,
            device=self.shown_device,
        )

    def _train(
        self, task: SupernetTask, on_progress: OnProgress | None
    ) -> Generator[EpochMetrics, None, Measurement]:
        weights, supernet, data = self.scratch.weights, self.supernet, self.scratch.opened()
        assert weights is not None
        checkpointed = CheckpointedTraining(
            checkpoints=self.scratch.checkpoints,
            rank=self.rank,
            every_s=self.scratch.checkpoint_every_s,
        )
        trainer = SupernetTrainer(
            supernet.started_network(data, self.device),
            data,
            supernet.recipe,
            largest=supernet.largest,
            smallest=supernet.counted.cheapest,
            sampler=StratifiedSampler(supernet.counted, supernet.recipe.strata),
            seed=task.seed,
            device=self.device,
            rank=self.rank,
            on_progress=on_progress,
        )
        own = task
        if task.checkpoint is not None:
            own = replace(task, checkpoint=self.checkpoint_of(task.checkpoint))
        # For display; nothing is decided on it.
        epochs = supernet.recipe.training.epochs
        step = max(1, epochs // 8)
        yield from checkpointed.run(trainer, own, tuple(range(step, epochs, step)))
        training = trainer.result()
        state = {f"{_ALL}.{n}": tensor for n, tensor in trainer.trained().state_dict().items()}
        return Measurement(
            split="validation",
            top1=training.metrics.quality,
            loss=training.metrics.loss,
            num_images=training.metrics.num_images,
            wall_time_s=training.wall_time_s,
            device=self.shown_device,
            learning_curve=tuple(epoch.to_json() for epoch in training.curve),
            weights_sha256=weights.save(task.identity.key, state) if self.rank.is_first else None,
        )

    def _score(self, task: ScoreTask, on_progress: OnProgress | None) -> Scores:
        started = time.perf_counter()
        total = len(task.placements)
        meter = None if on_progress is None else ScoringMeter(on_progress, placements=total)
        network, recipe = self._trained_network(task.weights_sha256), self.supernet.recipe
        data = self.scratch.opened()
        num_train = data.num_images("train")
        # Twice the batch, since no activations are kept for a backward pass; few images may not
        # fill it, nor as many batches as the recipe calibrates on.
        batch_size = min(2 * recipe.training.batch_size, num_train)
        calibration = min(recipe.calibration_batches, num_train // batch_size)
        tree = TreeEvaluation(
            network,
            task.placements,
            data,
            "validation",
            batch_size=batch_size,
            device=self.device,
            num_images=recipe.scored_images,
            calibration=calibration if statistics_of(network) else None,
            calibration_seed=self.supernet.seed,
        )
        found = tree.run(None if meter is None else meter.tell)
        metrics = tuple(found[placement] for placement in task.placements)
        best = max(metrics, key=lambda one: one.quality)
        return Scores(
            split="validation",
            top1=best.quality,
            loss=best.loss,
            num_images=best.num_images,
            wall_time_s=time.perf_counter() - started,
            device=self.device,
            metrics=metrics,
        )

    def _trained_network(self, sha256: str) -> Network:
        """The network with its weights, loaded once per worker."""
        if sha256 not in self._networks:
            assert self.scratch.weights is not None
            state = self.scratch.weights.load(self.supernet_identity.key, sha256)
            state = {name.removeprefix(f"{_ALL}."): tensor for name, tensor in state.items()}
            network = self.supernet.network()
            check_supernet_weights(network, state)
            network.load_state_dict(state)
            self._networks.clear()
            self._networks[sha256] = network.to(self.device).eval()
        return self._networks[sha256]

    @cached_property
    def _networks(self) -> dict[str, Network]:
        return {}
