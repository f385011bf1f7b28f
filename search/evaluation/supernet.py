"""Scoring by shared weights: train one supernet, then train the members of its front."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from sharedattn.data import open_data
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec
from sharedattn.recipe import Recipe
from sharedattn.results.records import Document
from sharedattn.search.checks import MAX_COUNT, check_applies, check_whole
from sharedattn.search.data_plan import Look
from sharedattn.search.evaluation.base import Setup
from sharedattn.search.evaluation.recipes import (
    Start,
    for_start,
    recipe_for,
    supernet_recipe_for,
)
from sharedattn.search.evaluation.scratch import FromScratch, Training
from sharedattn.search.evaluators.supernet import SupernetEvaluator
from sharedattn.search.evaluators.supernet_spec import WHOLE_SPACE, SupernetSpec
from sharedattn.search.executors.process_group import in_processes, processes_per_trial
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space
from sharedattn.supernet.trainer import SupernetRecipe, shared_backbone
from sharedattn.tasks import DENOISE, head_kind
from sharedattn.training.trainer import check_recipe
from sharedattn.weights.trained_start import HeadChoice, TrainedStart, neutral

if TYPE_CHECKING:
    from sharedattn.search.cluster.resources import Slots
    from sharedattn.search.config import SearchConfig


@dataclass(frozen=True)
class FromSupernet(FromScratch):
    """Scores placements by one supernet's weights, then trains the front's members.

    Attributes:
        supernet_epochs: epochs of the supernet; defaults to its recipe's.
        supernet_recipe: name or YAML file of the supernet's recipe; defaults to the data's own.
        weights: file or exported folder of a trained model that the supernet starts from, or
            `timm`; defaults to a random initialisation.
        head: what becomes of the trained model's head: `auto` replaces one whose number of classes
            is not the data's.
        front_training: `fine-tune` members from their share of the supernet's weights, or
            `retrain` them from scratch.

    The other attributes are those of `FromScratch`, for the training of the front's members.
    """

    name = "supernet"
    refuses = {"early_stopping": "a supernet's scores are not trained for"}
    least_seeds = 0
    no_latency = "it scores more placements than could be timed"

    supernet_epochs: int | None = None
    supernet_recipe: str | None = None
    weights: str | None = None
    head: HeadChoice = "auto"
    front_training: Literal["fine-tune", "retrain"] = "fine-tune"

    def __post_init__(self) -> None:
        # Zero-argument `super()` fails in a dataclass with slots; this one has none.
        super().__post_init__()
        for name in ("supernet_recipe", "weights"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else os.fspath(value))

    @property
    def starts_from_weights(self) -> bool:
        return self.weights is not None

    def check(self, config: SearchConfig) -> None:
        super().check(config)
        if self.final_epochs is not None:
            raise InputError(
                "--evaluator supernet excludes --final-epochs, since members of its front are "
                "trained for --epochs after they are scored; leave it out"
            )
        check_whole("--supernet-epochs", self.supernet_epochs, 1, MAX_COUNT)
        check_applies(self, ("head",), "--weights", self.weights is not None)
        if self.front_training == "retrain" and self.weights is not None:
            raise InputError(
                "--front-training retrain excludes --weights, since members that start from "
                "trained weights are fine-tuned; leave one of them out"
            )
        if config.budget.uncounted:
            raise InputError(
                f"--evaluator supernet scores whole spaces, which cannot be counted under a bound "
                f"on {config.budget.uncounted[0][0].name}; leave the bound out"
            )

    @property
    def _fine_tunes(self) -> bool:
        return self.front_training == "fine-tune"

    def _start(self) -> Start:
        """The weights that the front's members start from."""
        if self.weights is not None:
            return "weights"
        return "supernet" if self._fine_tunes else "scratch"

    def prepare(self, config: SearchConfig, space: Space, slots: Slots, look: Look) -> Setup:
        if head_kind(space.backbone.head).task == DENOISE:
            raise InputError(
                f"`--evaluator` supernet scores placements by shared weights, which networks that "
                f"{DENOISE} cannot be yet; leave it out to train each placement"
            )
        training = self._open(
            config,
            space.backbone,
            slots,
            look,
            start=self._start(),
            pretrained=self.weights,
        )
        recipe = supernet_recipe_for(
            self.supernet_recipe,
            training.source,
            self.supernet_epochs,
            start="scratch" if self.weights is None else "weights",
        )
        space = replace(space, backbone=self._backbone(training.backbone, recipe))
        supernet = SupernetSpec(space=space, recipe=recipe, seed=config.seed)
        if self.weights is not None:
            start = TrainedStart.of(self.weights, space.backbone, training.source, self.head)
            supernet = replace(
                supernet,
                pretrained=start.source,
                pretrained_sha256=start.sha256,
                head=start.head,
            )
            if self.recipe is None:
                training = training.with_recipe(
                    for_start(training.scratch.recipe, keeps_head=start.head is None)
                )
        shared = SupernetEvaluator(
            training.scratch, supernet, self._fine_tunes, self._baseline_recipe(training, recipe)
        )
        setup = replace(
            training.setup(
                BudgetedSpace(space, config.budget),
                shared,
                has_teacher=supernet.start is not None and supernet.start.has_trained_head,
            ),
            shared=shared,
            training_processes=self._training_processes(shared, config.compute.executor, slots),
            fingerprint=_fingerprint(shared),
        )
        if config.budget.is_empty:
            return setup
        # Earlier versions trained a supernet for each budget.
        own = replace(shared, supernet=replace(supernet, budget=setup.space.budget))
        return replace(
            setup,
            fingerprint={**setup.fingerprint, "supernet_of": WHOLE_SPACE},
            earlier=replace(
                setup,
                shared=own,
                evaluator=in_processes(own, training.num_processes),
                fingerprint=_fingerprint(own),
            ),
        )

    def _baseline_recipe(self, training: Training, supernet: SupernetRecipe) -> Recipe | None:
        """The recipe of baselines from scratch, or None for that of the front's members.

        It has as many epochs as a fine-tuned member saw, in the supernet and alone, and at most
        its own: a longer one would take more time for a baseline than for any answer. Its batches
        are no larger than a member's, and its learning rate as much lower, as DeiT scales it.
        """
        if not self._fine_tunes:
            return None
        own = training.scratch.recipe
        plain = recipe_for(self.recipe, training.source, None)
        batch_size = min(plain.batch_size, own.batch_size)
        return plain.with_changes(
            epochs=min(plain.epochs, supernet.training.epochs + own.epochs),
            batch_size=batch_size,
            lr=plain.lr * batch_size / plain.batch_size,
            rungs=(),
        )

    def _backbone(self, backbone: BackboneSpec, recipe: SupernetRecipe) -> BackboneSpec:
        """The backbone with the gates under which the supernet's weights are shared."""
        if self.weights is not None:
            return neutral(backbone)
        return shared_backbone(backbone, recipe) if self._fine_tunes else backbone

    def _training_processes(self, shared: SupernetEvaluator, executor: str, slots: Slots) -> int:
        """Processes that train the supernet together: as many as it can be shared among.

        Raises:
            InputError: the recipe cannot be trained on this data, by however few processes.
        """
        resources = slots.resources
        if executor == "in-process":
            most = 1
        elif slots.device == "cuda" or executor == "ray":
            most = processes_per_trial(self.processes_per_trial, resources, slots.device)
            if executor == "local" and resources.gpus >= 1:
                most = int(slots.num_slots * resources.gpus)
        else:
            most = slots.num_slots * resources.cpus
        for num_processes in range(most, 0, -1):
            try:
                check_recipe(
                    shared.supernet.largest_network,
                    open_data(shared.scratch.data),
                    shared.supernet.recipe.training,
                    shared.supernet.envelope,
                    device=slots.device,
                    num_processes=num_processes,
                )
            except InputError:
                # Batches that cannot be cut so, or batch norms that processes cannot share here.
                if num_processes == 1:
                    raise
            else:
                return num_processes
        raise AssertionError("one process was tried")


def _fingerprint(shared: SupernetEvaluator) -> Document:
    """A supernet's part of a study's fingerprint."""
    starts_from = {"starts_from": shared.supernet_identity.key} if shared.fine_tunes else {}
    return {"supernet": shared.supernet.recipe.key, **starts_from}
