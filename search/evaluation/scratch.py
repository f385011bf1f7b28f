"""Training from scratch: every placement gets the whole recipe."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sharedattn.search.data_plan import DEFAULT_DATA, DataOptions
from sharedattn.search.evaluation.base import Evaluation, Setup
from sharedattn.search.evaluation.training import open_training
from sharedattn.search.executors.process_group import in_processes
from sharedattn.search.jobs.export import data_document
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space

if TYPE_CHECKING:
    from sharedattn.search.cluster.resources import Slots
    from sharedattn.search.config import SearchConfig


@dataclass(frozen=True)
class FromScratch(Evaluation):
    """Trains each placement from its initialisation.

    Attributes:
        data: `digit-pairs`, a folder of images, or a name that timm opens.
        epochs: in place of the recipe's; None: the recipe's.
        recipe: a recipe's name or a YAML file; None: the data's own.
        data_root: folder that holds a named data set.
        val_fraction: share of train that is cut off where the data has no validation split;
            None: a tenth.
        data_options: what else is asked of data on disk.
        weights_dir: folder or URL of weights and checkpoints; None: beside the database.
        processes_per_trial: processes that train a placement together; None: one a GPU.
    """

    name = "scratch"

    data: str = DEFAULT_DATA
    epochs: int | None = None
    recipe: str | None = None
    data_root: str | None = None
    val_fraction: float | None = None
    data_options: DataOptions = field(default_factory=DataOptions)
    weights_dir: str | None = None
    processes_per_trial: int | None = None

    def __post_init__(self) -> None:
        # Paths are given by scripts, texts by the command line.
        for name in ("data", "recipe", "data_root", "weights_dir"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else os.fspath(value))

    def prepare(
        self,
        config: SearchConfig,
        space: Space,
        slots: Slots,
        *,
        on_scan: Callable[[int, int], None] | None = None,
        remember: bool = True,
    ) -> Setup:
        training = open_training(config, space.backbone, slots, on_scan=on_scan, remember=remember)
        counted = BudgetedSpace(replace(space, backbone=training.backbone), config.budget)
        training.check(counted, slots.device)
        scratch = training.scratch
        return Setup(
            space=counted,
            evaluator=in_processes(scratch, training.num_processes),
            data_document=data_document(training.data, training.source),
            data=training.data,
            recipe=training.recipe,
            weights=scratch.weights,
            checkpoints=scratch.checkpoints,
        )
