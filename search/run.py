"""A search from its configuration to its stored result; what `sharedattn search` calls."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from results.blobs import BlobStore
from results.database import parse_url, sqlite_file
from results.driver import StudyDriver
from results.pareto import Objective, parse_objectives
from results.records import Document, Study, StudyRecord, document_key
from results.store import Store
from results.weights import WeightsStore
from search.evaluators import Evaluator
from search.evaluators.scratch import ScratchEvaluator
from search.evaluators.table import TableEvaluator
from search.executors.local import LocalExecutor, default_threads
from search.exporting import data_document
from search.provenance import provenance
from search.searchers import SEARCHERS
from search.study import Progress, StudyLoop
from sharedattn.backbones import describe, resolve
from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec
from sharedattn.recipe import Recipe
from sharedattn.training import check_recipe
from spaces.budget import Budget, CountedSpace
from spaces.space import Space

DEFAULT_SPACE = "digit-pairs-vit"
DEFAULT_DATA = "digit-pairs"
DEFAULT_TRIALS = 24
DEFAULT_CONFIRM_SEEDS = 3
REFERENCE_FACTOR = 1.1  # of the space's largest cost
MAX_DEFAULT_WORKERS = 8
GENERAL_RECIPE = "deit"
_STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """Everything that a search is asked to do.

    Attributes:
        space: a preset's name or a YAML file.
        data: `digit-pairs`, a folder, or a name that timm opens.
        data_root: folder that holds a named data set.
        recipe: a recipe's name or a YAML file; None: the data's own.
        epochs: epochs of a trial in place of the recipe's.
        budget: what a placement may cost.
        objectives: names, top1 among them.
        searcher: nsga2, tpe or random.
        evaluator: scratch, or table for a simulated search.
        table: the table's file.
        num_trials: search trials, a total.
        confirm_seeds: seeds of each front member, a total; 1: none is confirmed.
        val_fraction: share of train that is cut off where the data has no validation split;
            None: a tenth.
        seed: of proposals and trainings.
        num_workers: trials at once; None: as many as fit the machine.
        deterministic: whether the order of completion must not matter.
        device: cpu, cuda, or auto.
        study: the study's name; None: made of space, data and fingerprint.
        storage: the database's URL; None: an SQLite file in `out`.
        out: folder of the database, weights, reports and exports.
        weights_dir: folder or URL of weights and checkpoints; None: beside the database.
    """

    space: str = DEFAULT_SPACE
    data: str = DEFAULT_DATA
    data_root: str | None = None
    recipe: str | None = None
    epochs: int | None = None
    budget: Budget = field(default_factory=Budget)
    objectives: tuple[str, ...] = ("top1", "macs")
    searcher: str = "nsga2"
    evaluator: Literal["scratch", "table"] = "scratch"
    table: Path | None = None
    num_trials: int = DEFAULT_TRIALS
    confirm_seeds: int = DEFAULT_CONFIRM_SEEDS
    val_fraction: float | None = None
    seed: int = 0
    num_workers: int | None = None
    deterministic: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    study: str | None = None
    storage: str | None = None
    out: Path = Path("sharedattn-out")
    weights_dir: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("num_trials", 1), ("confirm_seeds", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"`{name} >= {least}` must hold, but got {getattr(self, name)}")
        if self.num_workers is not None and self.num_workers < 1:
            raise InputError(f"`workers >= 1` must hold, but got {self.num_workers}")
        if (self.evaluator == "table") != (self.table is not None):
            raise InputError(
                "`--table and --evaluator table go together` must hold, but got "
                f"--evaluator {self.evaluator} and table {self.table}"
            )
        if self.study is not None and not _STUDY_NAME.fullmatch(self.study):
            raise InputError(
                f"`a study's name is letters, digits, dots, dashes` must hold, since it names a "
                f"folder, but got {self.study!r}"
            )
        self._check_options_apply()
        if self.searcher not in SEARCHERS:
            raise InputError(
                f"`a searcher is one of {', '.join(SEARCHERS)}` must hold, "
                f"but got {self.searcher!r}"
            )

    def _check_options_apply(self) -> None:
        """Refuse options that the other options leave without a meaning."""
        of_training = {
            "--data": self.data != DEFAULT_DATA,
            "--data-root": self.data_root is not None,
            "--recipe": self.recipe is not None,
            "--epochs": self.epochs is not None,
            "--val-fraction": self.val_fraction is not None,
            "--weights-dir": self.weights_dir is not None,
        }
        of_named_data = {name: of_training[name] for name in ("--data-root", "--val-fraction")}
        for excluded, given, why in (
            (self.evaluator == "table", of_training, "a table trains nothing"),
            (self.data == DEFAULT_DATA, of_named_data, "digit-pairs has its own splits"),
        ):
            useless = [name for name, is_given in given.items() if is_given]
            if excluded and useless:
                raise InputError(
                    f"`options do not exclude each other` must hold, but {why}: "
                    f"leave out {', '.join(useless)}"
                )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A search that passed every check and has begun nothing.

    Attributes:
        config: what was asked for.
        space: the legal placements, counted.
        objectives: what is optimised.
        evaluator: measures placements.
        data: the data of training and evaluation; None for a table.
        recipe: how placements are trained; None for a table.
        weights: where weights are kept; None for a table.
        num_workers: trials at once.
        record: the study as it will stand in the database.
    """

    config: SearchConfig
    space: CountedSpace
    objectives: tuple[Objective, ...]
    evaluator: Evaluator
    data: DataConfig | None
    recipe: Recipe | None
    weights: WeightsStore | None
    num_workers: int
    record: StudyRecord

    @property
    def storage(self) -> str:
        """URL of the database."""
        return storage_url(self.config.storage, self.config.out)


def storage_url(storage: str | None, out: Path) -> str:
    """The database that is asked for, or the one in `out`."""
    return storage or f"sqlite:///{out / 'sharedattn.db'}"


def weights_store(weights_dir: str | None, storage: str, out: Path) -> WeightsStore:
    """The weights at the place asked for, or beside the database's file, or in `out`.

    Args:
        weights_dir: a folder, or a URL of one; None: a folder `weights`.
        storage: the database's URL.
        out: where things go that have no other place.

    Raises:
        InputError: a URL that means nothing.
    """
    if weights_dir is None:
        database = sqlite_file(parse_url(storage))
        weights_dir = str((database.parent if database else out) / "weights")
    # Workers and later runs may have another current folder.
    is_url = "://" in weights_dir
    return WeightsStore(BlobStore(weights_dir if is_url else os.path.abspath(weights_dir)))


def resolve_device(device: str) -> str:
    """`cpu` or `cuda`, `auto` being CUDA where there is some.

    Raises:
        InputError: CUDA is asked for and there is none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("`--device cuda needs a CUDA device` must hold, but torch finds none")
    return device


def prepare(config: SearchConfig) -> Prepared:
    """Check everything that can be wrong before anything is begun or written.

    Raises:
        InputError: what is wrong, and what to do.
    """
    objectives = parse_objectives(config.objectives)
    if "latency_ms" in config.objectives:
        raise InputError(
            "`objectives are top1, macs and params` must hold, but got latency_ms, which is "
            "not measured yet; cost is searched by macs or params"
        )
    space = Space.load(config.space)
    if config.evaluator == "table":
        assert config.table is not None
        evaluator: Evaluator = TableEvaluator.load(
            config.table, describe(space.backbone).image_size
        )
        data, recipe, weights = None, None, None
        described: Document = {"name": config.table.stem}
        num_workers = config.num_workers or 1
    else:
        data = data_config(config, space)
        recipe = load_recipe(config.recipe, config.data, config.epochs)
        source = open_data(data)
        backbone = replace(space.backbone, num_classes=source.num_classes)
        space = replace(space, backbone=backbone)
        storage = storage_url(config.storage, config.out)
        weights = weights_store(config.weights_dir, storage, config.out)
        weights.blobs.check_writable()
        device = resolve_device(config.device)
        evaluator = ScratchEvaluator(data=data, recipe=recipe, weights=weights, device=device)
        described = data_document(data, source)
        num_workers = config.num_workers or default_workers(device)
    counted = CountedSpace(space, config.budget)
    if recipe is not None and data is not None:
        cheapest = resolve(NetworkSpec(space.backbone, counted.cheapest))
        check_recipe(cheapest, open_data(data), recipe, space.envelope())
    fingerprint = {
        "space": space.to_document(),
        "data": evaluator.data_fingerprint,
        "recipe": evaluator.recipe_key,
        "evaluator": config.evaluator,
        "objectives": list(config.objectives),
        "max_macs": config.budget.max_macs,
        "max_params": config.budget.max_params,
        "searcher": config.searcher,
        "seed": config.seed,
        "deterministic": config.deterministic,
        "workers": num_workers if config.deterministic else None,
    }
    data_name = re.sub(r"[^A-Za-z0-9._-]+", "-", described["name"])
    name = f"{space.name}-{data_name}-{document_key(fingerprint)[:6]}"
    record = StudyRecord(
        name=config.study or name,
        fingerprint_document=fingerprint,
        space=space.to_document(),
        data=described,
        recipe=recipe.to_json() if recipe is not None else {},
        objectives=config.objectives,
        searcher=config.searcher,
        seed=config.seed,
        reference_point={
            "top1": 1.0 / space.backbone.num_classes,
            "macs": REFERENCE_FACTOR * counted.macs_range[1],
            "params": REFERENCE_FACTOR * counted.params_range[1],
        },
        provenance=provenance(),
        num_trials=config.num_trials,
        confirm_seeds=config.confirm_seeds,
        weights_dir=None if weights is None else weights.blobs.shown(),
    )
    return Prepared(
        config=config,
        space=counted,
        objectives=objectives,
        evaluator=evaluator,
        data=data,
        recipe=recipe,
        weights=weights,
        num_workers=num_workers,
        record=record,
    )


def data_config(config: SearchConfig, space: Space) -> DataConfig:
    """The data at the size and channels of the space's backbone."""
    return DataConfig(
        name=config.data,
        root=config.data_root,
        image_size=describe(space.backbone).image_size,
        in_chans=space.backbone.in_chans,
        val_fraction=0.1 if config.val_fraction is None else config.val_fraction,
    )


def load_recipe(name: str | None, data: str, epochs: int | None) -> Recipe:
    """A recipe for some data.

    Args:
        name: a recipe's name or file; None: the data's own.
        data: name of the data.
        epochs: in place of the recipe's; None: as they are.

    Raises:
        InputError: no such recipe, or one with a value out of range.
    """
    own = name if name is not None else DEFAULT_DATA if data == DEFAULT_DATA else GENERAL_RECIPE
    recipe = Recipe.load(own)
    return recipe if epochs is None else recipe.with_changes(epochs=epochs)


def data_for(spec: NetworkSpec, name: str, root: str | None) -> DataConfig:
    """Data by its name, at the size and with the channels that a network takes."""
    return DataConfig(
        name=name,
        root=root,
        image_size=describe(spec.backbone).image_size,
        in_chans=spec.backbone.in_chans,
    )


def default_workers(device: str) -> int:
    """Trials at once: one a GPU, or one a core up to eight."""
    if device == "cuda":
        return torch.cuda.device_count()
    return min(MAX_DEFAULT_WORKERS, len(os.sched_getaffinity(0)))


def run_search(
    prepared: Prepared,
    store: Store,
    *,
    on_begin: Callable[[Study], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Study:
    """Run a prepared search to its end, taking up where an earlier run left it.

    Args:
        prepared: what passed every check.
        store: its database, open.
        on_begin: called with the study once this process may drive it.
        on_progress: called whenever something has happened.

    Returns:
        The finished study.

    Raises:
        InputError: the study's name belongs to another search, or another process drives it.
        StorageError: the database failed; what it had committed is kept.
    """
    study = store.get_or_create_study(prepared.record)
    with store.drive(study) as driver:
        driver.set_totals(
            num_trials=prepared.config.num_trials, confirm_seeds=prepared.config.confirm_seeds
        )
        study = store.study(study.record.name)
        if on_begin is not None:
            on_begin(study)
        _drive(prepared, store, driver, study, on_progress)
    return store.study(study.record.name)


def _drive(
    prepared: Prepared,
    store: Store,
    driver: StudyDriver,
    study: Study,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    if prepared.weights is not None:
        prepared.weights.sweep()
    searcher = SEARCHERS[prepared.config.searcher](
        prepared.space,
        prepared.objectives,
        seed=prepared.config.seed,
        num_trials=prepared.config.num_trials,
        study_attributes=store.searcher_attributes(study),
    )
    executor = LocalExecutor(
        prepared.evaluator,
        num_slots=prepared.num_workers,
        threads=default_threads(prepared.num_workers),
    )
    with executor:
        StudyLoop(
            store=store,
            driver=driver,
            study=study,
            space=prepared.space,
            objectives=prepared.objectives,
            evaluator=prepared.evaluator,
            searcher=searcher,
            executor=executor,
            deterministic=prepared.config.deterministic,
            weights=prepared.weights,
            on_progress=on_progress,
        ).run()
