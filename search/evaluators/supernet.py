"""The supernet as an evaluator: trained once, then asked for any placement's accuracy.

A worker is handed one of three tasks: to train the supernet, to score many placements by its
weights, or to train one placement by itself.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sharedattn.backbones import build_network, describe, resolve
from sharedattn.costs.model import CostModel
from sharedattn.data import open_data
from sharedattn.distributed import ALONE, Rank
from sharedattn.errors import InputError
from sharedattn.networks.batch_norms import statistics_of
from sharedattn.networks.network import Network
from sharedattn.placement import Envelope, NetworkSpec, Placement
from sharedattn.progress import OnProgress, ScoringMeter, TrainingProgress, WorkProgress
from sharedattn.recipe import Recipe
from sharedattn.results.records.records import (
    EvaluationIdentity,
    Fidelity,
    document_key,
    fine_tuning_key,
)
from sharedattn.search.evaluators.base import Measurement, RankedEvaluator, Report, Task
from sharedattn.search.evaluators.checkpointed import CheckpointedTraining
from sharedattn.search.evaluators.scratch import ScratchEvaluator
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space
from sharedattn.spaces.stratified import StratifiedSampler
from sharedattn.supernet.trainer import (
    Group,
    GroupSampler,
    SupernetRecipe,
    SupernetTrainer,
    check_supernet_weights,
    shared_backbone,
    supernet_network,
)
from sharedattn.supernet.tree_evaluation import TreeEvaluation
from sharedattn.training.trainer import Metrics, Training
from sharedattn.weights.branch_fit import fit_branches
from sharedattn.weights.extract import extract
from sharedattn.weights.pretrained import load_pretrained, start_from, weights_digest

FITTED_IMAGES = 256  # of training, to which external memories are fitted
GROUP_DRAWS = 500  # placements among which each group that there is shows itself


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetTask(Task):
    """The training of the supernet; its identity names the weights that come of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTask(Task):
    """Placements to be scored by shared weights.

    Attributes:
        placements: canonical on the backbone.
        weights_sha256: of the supernet's weights, which its identity names.
    """

    placements: tuple[Placement, ...]
    weights_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuneTask(Task):
    """The training of one placement that begins with its share of the supernet's weights.

    Attributes:
        supernet_sha256: of the supernet's weights.
    """

    supernet_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores(Measurement):
    """What shared weights give for many placements; its own figures are the best of them.

    Attributes:
        metrics: of each placement, in the task's order.
    """

    metrics: tuple[Metrics, ...]


@dataclass(frozen=True)
class SupernetEvaluator(RankedEvaluator):
    """Trains a supernet over a space, scores placements by it, and trains placements alone.

    Attributes:
        scratch: trains placements by themselves; its weights' store keeps the supernet's as well.
        space: the space.
        budget: what a placement may cost; placements beyond it are not trained.
        recipe: how the supernet is trained and asked.
        seed: of the supernet's training.
        fine_tunes: whether a placement that is trained by itself begins with its share of the
            supernet's weights, or from scratch. The former needs a backbone whose DIA cells have
            the form that they are shared in.
        pretrained: file, folder or `timm`, whose weights the supernet starts from; None: it starts
            from its initialisation.
        pretrained_sha256: of those weights, see `weights_digest`.
        tree_bytes: the most that a walk over the placements' tree may keep; None: no bound.
        rank: which of the processes this is that train together.
    """

    scratch: ScratchEvaluator
    space: Space
    budget: Budget
    recipe: SupernetRecipe
    seed: int
    fine_tunes: bool = True
    pretrained: str | None = None
    pretrained_sha256: str | None = None
    tree_bytes: int | None = None
    rank: Rank = ALONE

    def __post_init__(self) -> None:
        backbone = self.space.backbone
        if self.fine_tunes and shared_backbone(backbone, self.recipe) != backbone:
            raise ValueError(
                "`what is fine-tuned has the gates of its supernet` must hold, but the recipe has "
                "neutral gates, and the backbone dia_start=paper"
            )

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: a worker counts the space, and loads the weights, for itself."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def device(self) -> str:  # type: ignore[override]
        """Where everything is computed."""
        return self.scratch.device

    @property
    def recipe_key(self) -> str:
        return self.scratch.recipe_key

    @property
    def data_fingerprint(self) -> str:
        return self.scratch.data_fingerprint

    @property
    def fidelity(self) -> Fidelity:
        return self.scratch.fidelity

    @cached_property
    def counted(self) -> BudgetedSpace:
        """The placements inside the budget."""
        return BudgetedSpace(self.space, self.budget)

    @cached_property
    def largest(self) -> Placement:
        """All-vanilla at full depth, whether the space has it or not."""
        return Placement.all_vanilla([s.max_depth for s in describe(self.space.backbone).stages])

    @cached_property
    def envelope(self) -> Envelope:
        """Holds the space's placements and the largest."""
        return self.space.envelope().union(Envelope.of(self.largest))

    @cached_property
    def supernet_identity(self) -> EvaluationIdentity:
        """What names the supernet's weights."""
        document = {
            "space": self.space.to_document(),
            **self.budget.to_document(),
            "pretrained": self.pretrained_sha256,
        }
        return EvaluationIdentity(
            spec_key=document_key(document),
            recipe_key=self.recipe.key,
            data_fingerprint=self.data_fingerprint,
            fidelity=Fidelity(
                epochs=self.recipe.training.epochs,
                image_size=open_data(self.scratch.data).image_size,
                weights="inherited",
            ),
            seed=self.seed,
        )

    def scored_identity(self, spec: NetworkSpec, weights_sha256: str) -> EvaluationIdentity:
        """What names a placement's accuracy by the shared weights.

        These stand in the place of a recipe: the same training on other threads may end in other
        weights, which score otherwise.
        """
        asked = {
            "supernet_sha256": weights_sha256,
            "scored_images": self.recipe.scored_images,
            "calibration_batches": self.recipe.calibration_batches,
        }
        return replace(self.supernet_identity, spec_key=spec.key, recipe_key=document_key(asked))

    def supernet_task(self, checkpoint: str) -> SupernetTask:
        """The task of training the supernet, with the name of its checkpoint."""
        return SupernetTask(
            spec=self._spec_of_largest,
            seed=self.seed,
            identity=self.supernet_identity,
            checkpoint=checkpoint,
        )

    def score_task(self, placements: Sequence[Placement], weights_sha256: str) -> ScoreTask:
        """The task of scoring placements by the supernet's weights."""
        return ScoreTask(
            spec=self._spec_of_largest,
            seed=self.seed,
            identity=self.supernet_identity,
            placements=tuple(placements),
            weights_sha256=weights_sha256,
        )

    def fine_tuning_task(self, task: Task, weights_sha256: str) -> FineTuneTask:
        """A placement's training from scratch as one from its share of the supernet's weights."""
        recipe_key = fine_tuning_key(task.identity.recipe_key, weights_sha256)
        return FineTuneTask(
            spec=task.spec,
            seed=task.seed,
            identity=replace(task.identity, recipe_key=recipe_key),
            checkpoint=task.checkpoint,
            supernet_sha256=weights_sha256,
        )

    def member(self, placement: Placement, weights_sha256: str) -> Network:
        """A placement's own network with its share of the supernet's weights, to be trained."""
        networks = self._trained_networks(weights_sha256)
        return extract(
            self._network_of(networks, Group.of(placement, self.recipe)),
            placement,
            drop_path_rate=self.scratch.recipe.drop_path_rate,
        )

    def check_tree_memory(self) -> None:
        """Refuse, before anything is trained, a bound that scoring could not keep.

        Raises:
            InputError: some layer takes and gives more than `tree_bytes`.
        """
        if self.tree_bytes is None:
            return
        with torch.device("meta"):
            network = build_network(
                shared_backbone(self.space.backbone, self.recipe), self.envelope
            )
        # Together they have every choice of every layer.
        self._tree(network, map(self.space.automaton.placement, self.space.automaton.cover()))

    @property
    def _spec_of_largest(self) -> NetworkSpec:
        return resolve(NetworkSpec(self.space.backbone, self.largest))

    def evaluate(
        self, task: Task, on_progress: OnProgress | None = None
    ) -> Generator[Report, None, Measurement]:
        if isinstance(task, SupernetTask):
            return (yield from self._train(task, on_progress))
        if isinstance(task, ScoreTask):
            return self._score(task, on_progress)
        network = None
        if isinstance(task, FineTuneTask):
            network = self.member(task.spec.placement, task.supernet_sha256)
        own = replace(self.scratch, rank=self.rank)
        return (yield from own.train(task, network, on_progress=on_progress))

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The groups that the recipe parts the space's placements into."""
        rng, sampler = random.Random(0), self._sampler
        drawn = {Group.of(sampler.sample(rng), self.recipe) for _ in range(GROUP_DRAWS)}
        return tuple(group for group in Group if group in drawn)

    @property
    def _sampler(self) -> StratifiedSampler:
        return StratifiedSampler(self.counted, self.recipe.strata)

    def checkpoints_of(self, checkpoint: str) -> frozenset[str]:
        """Names of all checkpoints of a supernet's training, one a group."""
        return frozenset(f"{checkpoint}-{group}" for group in Group)

    def _train(
        self, task: SupernetTask, on_progress: OnProgress | None
    ) -> Generator[Report, None, Measurement]:
        weights = self.scratch.weights
        assert weights is not None
        checkpointed = CheckpointedTraining(
            checkpoints=self.scratch.checkpoints,
            rank=self.rank,
            every_s=self.scratch.checkpoint_every_s,
        )
        # For whoever watches; nothing is judged there.
        epochs, step = self.recipe.training.epochs, max(1, self.recipe.training.epochs // 8)
        trainings: list[Training] = []
        state: dict[str, Tensor] = {}
        for group in self.groups:
            before = len(trainings) * epochs
            tell = None if on_progress is None else self._as_part(on_progress, before)
            trainer = self._trainer(group, task.seed, tell)
            own = task
            if task.checkpoint is not None:
                own = replace(task, checkpoint=f"{task.checkpoint}-{group}")
            for report in checkpointed.run(trainer, own, tuple(range(step, epochs, step))):
                yield replace(report, epoch=before + report.epoch)
            trainings.append(trainer.result())
            own_state = trainer.trained().state_dict()
            state |= {f"{group}.{name}": tensor for name, tensor in own_state.items()}
        first = trainings[0]
        return Measurement(
            split="validation",
            top1=first.metrics.top1,
            loss=first.metrics.loss,
            num_images=first.metrics.num_images,
            wall_time_s=sum(training.wall_time_s for training in trainings),
            device=self.shown_device,
            learning_curve=tuple(epoch.to_json() for epoch in first.curve),
            weights_sha256=weights.save(task.identity.key, state) if self.rank.is_first else None,
        )

    def _as_part(self, on_progress: OnProgress, epochs_before: int) -> OnProgress:
        """Tells of a group's training as a part of the whole supernet's."""
        epochs = self.recipe.training.epochs * len(self.groups)

        def tell(progress: WorkProgress) -> None:
            assert isinstance(progress, TrainingProgress)
            on_progress(progress.as_part(epochs_before, epochs))

        return tell

    def _trainer(
        self, group: Group, seed: int, on_progress: OnProgress | None = None
    ) -> SupernetTrainer:
        """The training of a group's network, at its start."""
        sampler = GroupSampler(self._sampler, group, self.recipe)
        return SupernetTrainer(
            self._started_network(group),
            self.scratch.opened(),
            self.recipe,
            largest=group.largest(self.envelope),
            smallest=self._smallest(group, sampler),
            sampler=sampler,
            seed=seed,
            device=self.device,
            rank=self.rank,
            on_progress=on_progress,
        )

    def _smallest(self, group: Group, sampler: GroupSampler) -> Placement:
        """The placement of fewest MACs, of a group that lacks it that of some draws."""
        if Group.of(self.counted.cheapest, self.recipe) is group:
            return self.counted.cheapest
        rng = random.Random(0)
        drawn = {sampler.sample(rng) for _ in range(GROUP_DRAWS)}
        return min(
            drawn, key=lambda placement: (self._costs.totals(placement).macs, str(placement))
        )

    @cached_property
    def _costs(self) -> CostModel:
        return CostModel(self.space.backbone)

    def _score(self, task: ScoreTask, on_progress: OnProgress | None) -> Scores:
        started = time.perf_counter()
        networks = self._trained_networks(task.weights_sha256)
        total = len(task.placements)
        meter = None if on_progress is None else ScoringMeter(on_progress, placements=total)
        found: dict[Placement, Metrics] = {}
        for group in Group:
            placements = [p for p in task.placements if Group.of(p, self.recipe) is group]
            if not placements:
                continue

            def tell(share: float, before: int = len(found), own: int = len(placements)) -> None:
                if meter is not None:
                    meter.tell((before + share * own) / total)

            found |= self._tree(self._network_of(networks, group), placements).run(tell)
        metrics = tuple(found[placement] for placement in task.placements)
        best = max(metrics, key=lambda one: one.top1)
        return Scores(
            split="validation",
            top1=best.top1,
            loss=best.loss,
            num_images=best.num_images,
            wall_time_s=time.perf_counter() - started,
            device=self.device,
            metrics=metrics,
        )

    def _tree(self, network: Network, placements: Iterable[Placement]) -> TreeEvaluation:
        return TreeEvaluation(
            network,
            placements,
            self.scratch.opened(),
            "validation",
            # Nothing is kept for a backward pass.
            batch_size=2 * self.recipe.training.batch_size,
            device=self.device,
            memory_bytes=self.tree_bytes,
            num_images=self.recipe.scored_images,
            calibration=self.recipe.calibration_batches if statistics_of(network) else None,
            calibration_seed=self.seed,
        )

    def _fresh_network(self, group: Group) -> Network:
        return supernet_network(
            self.space.backbone, group.envelope(self.envelope), self.recipe, seed=self.seed
        )

    def _started_network(self, group: Group) -> Network:
        """A group's network as its training begins."""
        network = self._fresh_network(group)
        if self.pretrained is None:
            return network
        state = load_pretrained(self.pretrained, network.backbone)
        if weights_digest(state) != self.pretrained_sha256:
            raise InputError(
                f"`the weights are those that the search began with` must hold, but "
                f"{self.pretrained} holds others now; begin another study with them"
            )
        start_from(network, state)
        data = self.scratch.opened()
        plain = Recipe(epochs=1, batch_size=min(FITTED_IMAGES, data.num_images("train")))
        batches = data.train_batches(plain, seed=self.seed, epoch=0, device=torch.device("cpu"))
        images, _ = next(iter(batches))
        fit_branches(network, images, seed=self.seed)
        return network

    def _trained_networks(self, sha256: str) -> dict[Group, Network]:
        """The networks of all groups with their weights; a worker loads them once."""
        if sha256 not in self._networks:
            assert self.scratch.weights is not None
            state = self.scratch.weights.load(self.supernet_identity.key, sha256)
            networks = {}
            for group in self.groups:
                prefix = f"{group}."
                own = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
                network = self._fresh_network(group)
                check_supernet_weights(network, own)
                network.load_state_dict(own)
                networks[group] = network.to(self.device).eval()
            self._networks.clear()
            self._networks[sha256] = networks
        return self._networks[sha256]

    def _network_of(self, networks: Mapping[Group, Network], group: Group) -> Network:
        if group not in networks:
            raise InputError(
                f"`every group of placements is trained` must hold, but {GROUP_DRAWS} draws met "
                f"none of the {group} group, of which there are some; set split_by to none"
            )
        return networks[group]

    @cached_property
    def _networks(self) -> dict[str, dict[Group, Network]]:
        return {}
