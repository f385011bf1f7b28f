"""Training from scratch: every placement is trained by the whole recipe."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sharedattn.backbones import resolve
from sharedattn.data import EMBEDDED, DataSource
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, NetworkSpec
from sharedattn.recipe import Recipe
from sharedattn.results.artifacts.checkpoints import CheckpointStore
from sharedattn.search.checks import MAX_COUNT, MAX_WORKERS, check_applies, check_whole
from sharedattn.search.data_plan import (
    DataOptions,
    Look,
    data_for,
    default_data,
    for_data,
    open_checked,
)
from sharedattn.search.evaluation.base import Evaluation, Setup, rungs_of
from sharedattn.search.evaluation.recipes import Start, recipe_for
from sharedattn.search.evaluators.base import RankedEvaluator
from sharedattn.search.evaluators.scratch import ScratchEvaluator
from sharedattn.search.executors.process_group import in_processes, processes_per_trial
from sharedattn.search.recorded_data import data_document
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space
from sharedattn.training.trainer import check_recipe

if TYPE_CHECKING:
    from sharedattn.search.cluster.resources import Slots
    from sharedattn.search.config import SearchConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The inputs of a placement's training, open.

    Attributes:
        backbone: with as many classes as the data has.
        source: the data, open.
        scratch: trains a placement.
        num_processes: processes that train a placement together.
    """

    backbone: BackboneSpec
    source: DataSource
    scratch: ScratchEvaluator
    num_processes: int

    def with_recipe(self, recipe: Recipe) -> Training:
        """The same training by another recipe."""
        return replace(self, scratch=replace(self.scratch, recipe=recipe))

    def setup(
        self, space: BudgetedSpace, evaluator: RankedEvaluator, *, has_teacher: bool = False
    ) -> Setup:
        """What the training contributes to a search.

        Args:
            space: the placements inside the budget.
            evaluator: measures placements, in as many processes as train one.
            has_teacher: whether placements start from a trained model.

        Raises:
            InputError: the recipe cannot train the space's cheapest member on this data.
        """
        check_recipe(
            resolve(NetworkSpec(space.space.backbone, space.cheapest)),
            self.source,
            self.scratch.recipe,
            space.space.envelope(),
            device=self.scratch.device,
            num_processes=self.num_processes,
            has_teacher=has_teacher,
        )
        return Setup(
            space=space,
            evaluator=in_processes(evaluator, self.num_processes),
            data_document=data_document(self.source),
            data=self.scratch.data,
            recipe=self.scratch.recipe,
            weights=self.scratch.weights,
            checkpoints=self.scratch.checkpoints,
        )


@dataclass(frozen=True)
class FromScratch(Evaluation):
    """Trains each placement from its initialisation.

    Attributes:
        data: `digit-count`, `digit-pairs`, a folder of images, or a name that timm opens; defaults
            to the embedded data of as many classes as the space's backbone has.
        epochs: number of epochs; defaults to the recipe's.
        final_epochs: epochs of the front's members, which are trained anew for so many after the
            search, in place of further seeds of its trials; defaults to those of the trials.
        recipe: a recipe's name or a YAML file; defaults to the data's own.
        data_root: folder that holds a named data set.
        val_fraction: share of train to split off if the data has no validation split; defaults to
            a tenth.
        data_options: further options of data on disk.
        weights_dir: folder or URL of weights and checkpoints; defaults to a folder beside the
            database.
        processes_per_trial: processes that train a placement together; defaults to one per GPU.
    """

    name = "scratch"

    data: str | None = None
    epochs: int | None = None
    final_epochs: int | None = None
    recipe: str | None = None
    data_root: str | None = None
    val_fraction: float | None = None
    data_options: DataOptions = field(default_factory=DataOptions)
    weights_dir: str | None = None
    processes_per_trial: int | None = None

    def __post_init__(self) -> None:
        # Scripts give paths, the command line gives texts.
        for name in ("data", "recipe", "data_root", "weights_dir"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else os.fspath(value))

    def check(self, config: SearchConfig) -> None:
        check_whole("--processes-per-trial", self.processes_per_trial, 1, MAX_WORKERS)
        check_whole("--final-epochs", self.final_epochs, 1, MAX_COUNT)
        of_data = ("data_root", "val_fraction")
        check_applies(self, of_data, "--data", self.data not in (None, *EMBEDDED))

    def data_name(self, backbone: BackboneSpec) -> str:
        """Name of the data on which placements of a backbone are trained."""
        return default_data(backbone) if self.data is None else self.data

    def prepare(self, config: SearchConfig, space: Space, slots: Slots, look: Look) -> Setup:
        training = self._open(config, space.backbone, slots, look)
        counted = BudgetedSpace(replace(space, backbone=training.backbone), config.budget)
        if self.final_epochs is None:
            return training.setup(counted, training.scratch)
        epochs = training.scratch.recipe.epochs
        if self.final_epochs <= epochs:
            raise InputError(
                f"`--final-epochs` is {self.final_epochs}, but trials have {epochs} epochs "
                f"already; give more, or fewer by --epochs"
            )
        scratch = replace(training.scratch, final_epochs=self.final_epochs)
        return replace(
            training.setup(counted, scratch), fingerprint={"final_epochs": self.final_epochs}
        )

    def _open(
        self,
        config: SearchConfig,
        backbone: BackboneSpec,
        slots: Slots,
        look: Look,
        *,
        start: Start = "scratch",
        pretrained: str | None = None,
    ) -> Training:
        """Open what placements are trained on.

        Args:
            config: what is asked for.
            backbone: of the space, as declared.
            slots: what trials run on.
            look: looks at the data's files.
            start: what a placement's training starts from.
            pretrained: the trained weights that it starts from, or None.

        Raises:
            InputError: no such data or recipe, or no place for weights.
        """
        named = None if self.recipe is None else Recipe.load(self.recipe)
        data = data_for(
            backbone,
            self.data_name(backbone),
            self.data_root,
            self.val_fraction,
            self.data_options,
            weights=pretrained,
            recipe=named,
        )
        data = look(data, self.data_options)
        source = open_checked(data, self.val_fraction)
        recipe = recipe_for(self.recipe, source, self.epochs, start=start)
        recipe = recipe.with_changes(rungs=rungs_of(config, recipe.rungs, recipe.epochs))
        weights = config.storage.weights(self.weights_dir)
        weights.blobs.check_writable()
        return Training(
            backbone=for_data(backbone, source),
            source=source,
            scratch=ScratchEvaluator(
                data=data,
                recipe=recipe,
                weights=weights,
                checkpoints=CheckpointStore(weights.blobs),
                device=slots.device,
                # Embedded data does not change.
                data_digest=None if data.name in EMBEDDED else source.digest,
            ),
            num_processes=processes_per_trial(
                self.processes_per_trial, slots.resources, slots.device
            ),
        )
