"""What zero-cost proxies are worth on a space whose placements have been trained.

Each proxy's Kendall tau with the trained accuracies stands beside those of params and MACs, which
cost nothing either. A proxy is on only where it ranks better than both, each by more than the
bootstrap interval of the difference; everywhere else it is off, and nobody should choose by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from sharedattn.backbones import describe, resolve
from sharedattn.costs.model import CostModel
from sharedattn.data import DataSource, open_data
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement
from sharedattn.proxies import PROXIES, proxy_values
from sharedattn.recipe import Recipe
from sharedattn.results.database.store import Store
from sharedattn.results.front.rank_correlation import (
    Estimate,
    estimate_tau,
    estimate_tau_difference,
)
from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records.records import Document, Study
from sharedattn.search.data_plan import data_for
from sharedattn.search.evaluators.table import TableEvaluator
from sharedattn.search.jobs.export import open_recorded
from sharedattn.search.training_inputs import load_recipe
from sharedattn.training.trainer import check_fit

MIN_PLACEMENTS = 10
"""Fewer have an interval as wide as tau itself."""

BARS = ("params", "macs")


@dataclass(frozen=True, slots=True)
class TrainedPlacements:
    """Placements of one backbone with what their training came to.

    Attributes:
        source: the study's or the table's name.
        specs: the networks.
        top1s: accuracy of each, a fraction.
        data: what they were trained on.
        init: how their trainings begin, as a recipe has it.
    """

    source: str
    specs: tuple[NetworkSpec, ...]
    top1s: tuple[float, ...]
    data: DataSource
    init: str

    def __post_init__(self) -> None:
        if len(self.specs) < MIN_PLACEMENTS:
            raise InputError(
                f"`{MIN_PLACEMENTS} trained placements or more are ranked` must hold, but "
                f"{self.source} has {len(self.specs)}; train more of them"
            )


@dataclass(frozen=True, slots=True)
class ScoredProxy:
    """A proxy, or a bar, on one space.

    Attributes:
        name: the proxy's, or `params` or `macs`.
        tau: Kendall's, with the trained accuracies; None: the proxy has no value for some
            placement.
        over: by the name of a bar, by how much this ranks better.
        num_undefined: placements for which the proxy has no value.
    """

    name: str
    tau: Estimate | None
    over: Mapping[str, Estimate] = field(default_factory=dict)
    num_undefined: int = 0

    @property
    def is_on(self) -> bool:
        """Whether it ranks better than every bar, by more than the interval."""
        return self.tau is not None and all(
            bar in self.over and self.over[bar].low > 0 for bar in BARS
        )

    def to_json(self) -> Document:
        """A plain dictionary of every field, and whether it is on."""
        return {
            "name": self.name,
            "tau": None if self.tau is None else self.tau.to_json(),
            "over": {bar: difference.to_json() for bar, difference in self.over.items()},
            "undefined": self.num_undefined,
            "on": self.is_on,
        }


def trained_of_study(store: Store, study: Study) -> TrainedPlacements:
    """The complete placements of a study, with their mean accuracies.

    Raises:
        InputError: too few of them, or a study that trained nothing.
    """
    summary = StudySummary.read(store, study)
    config = study.record.data.get("config")
    if config is None:
        raise InputError(
            f"`a study has trained its placements` must hold, but {study.record.name!r} read "
            f"them from a table; give the table itself"
        )
    trained = summary.candidates
    if summary.inheritance is not None:
        trained = [gap.trained for gap in summary.inheritance.gaps]
    specs = (
        NetworkSpec.from_json(store.spec(candidate.spec_key).document) for candidate in trained
    )
    return TrainedPlacements(
        study.record.name,
        tuple(specs),
        tuple(candidate.top1 for candidate in trained),
        open_recorded(study.record.data, f"study {study.record.name!r}"),
        Recipe.from_json(study.record.recipe).init,
    )


def trained_of_table(
    path: Path, backbone: BackboneSpec, data: str, data_root: str | None
) -> TrainedPlacements:
    """The placements of a JSON table of accuracies or learning curves, whose last epoch counts.

    Args:
        path: the table.
        backbone: what they are placements on.
        data: what they were trained on.
        data_root: folder that holds a named data set.

    Raises:
        InputError: too few of them, no such table, or placements that the backbone cannot carry.
    """
    curves = TableEvaluator.load(path, describe(backbone)).curves
    source = open_data(data_for(backbone, data, data_root))
    backbone = replace(backbone, num_classes=source.num_classes)
    return TrainedPlacements(
        path.stem,
        tuple(resolve(NetworkSpec(backbone, Placement.parse(text))) for text in curves),
        tuple(curve[-1] for curve in curves.values()),
        source,
        load_recipe(None, data, None).init,
    )


def score_proxies(
    trained: TrainedPlacements, *, num_images: int, seed: int, device: str = "cpu"
) -> tuple[ScoredProxy, ...]:
    """Both bars and every proxy, against the trained accuracies.

    Args:
        trained: the placements.
        num_images: training images of the one batch, without augmentation.
        seed: of the batch, the initialisations and the resamples.
        device: where networks are run.

    Raises:
        InputError: more images than there are, fewer than two, or data that does not fit.
    """
    if not 2 <= num_images <= trained.data.num_images("train"):
        raise InputError(
            f"`2 <= images <= training images` must hold, but got {num_images} where "
            f"{trained.data.name} has {trained.data.num_images('train')}"
        )
    check_fit(trained.specs[0].backbone, trained.data)
    images, labels = next(
        trained.data.train_batches(
            # A recipe that says nothing else has no augmentation.
            Recipe(epochs=1, batch_size=num_images),
            seed=seed,
            epoch=0,
            device=torch.device(device),
        )
    )
    values: dict[str, list[float]] = {name: [] for name in (*BARS, *PROXIES)}
    for spec in trained.specs:
        cost = CostModel(spec.backbone).cost(spec.placement)
        values["params"].append(float(cost.params))
        values["macs"].append(float(cost.macs))
        found = proxy_values(spec, images, labels, seed=seed, init=trained.init)
        for name, value in found.items():
            values[name].append(value)
    return tuple(_score(name, values, trained.top1s, seed) for name in values)


def _score(
    name: str, values: Mapping[str, Sequence[float]], top1s: Sequence[float], seed: int
) -> ScoredProxy:
    num_undefined = int(np.isnan(values[name]).sum())
    if num_undefined:
        return ScoredProxy(name, None, num_undefined=num_undefined)
    # Every figure is looked at on the same resamples.
    tau = estimate_tau(values[name], top1s, np.random.default_rng(seed))
    over = {
        bar: estimate_tau_difference(values[name], values[bar], top1s, np.random.default_rng(seed))
        for bar in BARS
        if name not in BARS
    }
    return ScoredProxy(name, tau, over)


def proxies_document(
    trained: TrainedPlacements, scored: Sequence[ScoredProxy], *, num_images: int, seed: int
) -> Document:
    """The document of `proxies --json`."""
    return {
        "source": trained.source,
        "backbone": str(trained.specs[0].backbone),
        "placements": len(trained.specs),
        "images": num_images,
        "seed": seed,
        "bars": [proxy.to_json() for proxy in scored if proxy.name in BARS],
        "proxies": [proxy.to_json() for proxy in scored if proxy.name not in BARS],
        "recommended": [proxy.name for proxy in scored if proxy.is_on],
    }
