"""What ways of evaluating that train have in common: data, recipe, and where weights are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sharedattn.backbones import resolve
from sharedattn.data import EMBEDDED, DataConfig, DataSource, open_data
from sharedattn.placement import BackboneSpec, NetworkSpec
from sharedattn.recipe import Recipe
from sharedattn.results.artifacts.checkpoints import CheckpointStore
from sharedattn.search.data_plan import data_for, look_at, open_checked
from sharedattn.search.evaluation.base import rungs_of
from sharedattn.search.evaluators.scratch import ScratchEvaluator
from sharedattn.search.executors.process_group import processes_per_trial
from sharedattn.search.paths import scans_folder, storage_url, weights_store
from sharedattn.search.training_inputs import Start, load_recipe
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.training.trainer import check_recipe

if TYPE_CHECKING:
    from sharedattn.search.cluster.resources import Slots
    from sharedattn.search.config import SearchConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The inputs of a placement's training, open and checked.

    Attributes:
        backbone: with as many classes as the data has.
        data: which data.
        source: the data, open.
        recipe: how placements are trained.
        scratch: trains a placement.
        num_processes: processes that train a placement together.
    """

    backbone: BackboneSpec
    data: DataConfig
    source: DataSource
    recipe: Recipe
    scratch: ScratchEvaluator
    num_processes: int

    def check(self, space: BudgetedSpace, device: str) -> None:
        """Refuse a recipe that cannot train the space's cheapest member on this data.

        Raises:
            InputError: what does not fit.
        """
        check_recipe(
            resolve(NetworkSpec(space.space.backbone, space.cheapest)),
            open_data(self.data),
            self.recipe,
            space.space.envelope(),
            device=device,
            num_processes=self.num_processes,
        )


def open_training(
    config: SearchConfig,
    backbone: BackboneSpec,
    slots: Slots,
    *,
    start: Start = "scratch",
    on_scan: Callable[[int, int], None] | None = None,
    remember: bool = True,
) -> Training:
    """Open what placements are trained on.

    Args:
        config: what is asked for.
        backbone: of the space, as declared.
        slots: what trials run on.
        start: what a placement's training starts from.
        on_scan: as of `sharedattn.search.run.prepare`, as is `remember`.
        remember: whether looks at the data's files are written down.

    Raises:
        InputError: no such data or recipe, or no place for weights.
    """
    recipe = load_recipe(config.recipe, config.data, config.epochs, start=start)
    recipe = recipe.with_changes(rungs=rungs_of(config, recipe.rungs, recipe.epochs))
    data = data_for(
        backbone,
        config.data,
        config.data_root,
        config.val_fraction,
        config.data_options,
        weights=config.weights,
        recipe=recipe,
    )
    data = look_at(
        data,
        config.data_options,
        scans_folder(config.storage, config.out),
        remember=remember,
        on_progress=on_scan,
    )
    source = open_checked(data, config.val_fraction)
    return Training(
        backbone=replace(backbone, num_classes=source.num_classes),
        data=data,
        source=source,
        recipe=recipe,
        scratch=_scratch(config, data, source, recipe, slots.device),
        num_processes=processes_per_trial(
            config.processes_per_trial, slots.resources, slots.device
        ),
    )


def _scratch(
    config: SearchConfig, data: DataConfig, source: DataSource, recipe: Recipe, device: str
) -> ScratchEvaluator:
    """Trains a placement, and keeps its weights where they can be written."""
    storage = storage_url(config.storage, config.out)
    weights = weights_store(config.weights_dir, storage, config.out)
    weights.blobs.check_writable()
    return ScratchEvaluator(
        data=data,
        recipe=recipe,
        weights=weights,
        checkpoints=CheckpointStore(weights.blobs),
        device=device,
        # Embedded data does not change.
        data_digest=None if data.name == EMBEDDED else source.digest,
    )
