"""Kendall tau of zero-cost proxies with accuracies of trained placements.

Reads one table, or the tables `short-warm-up-<seed>.json` of a folder: each a JSON object from
placement text to an accuracy or to a list with one per epoch, of which the last counts. Accuracies
of a folder are means over its tables, for the placements that all of them have.

Each proxy's tau is compared with those of params and MACs, which cost nothing either. A proxy is
on only if it ranks better than both, by more than the bootstrap interval of each difference.

    python benchmarks/proxy_ranks.py FOLDER|TABLE.json [--space digit-pairs-vit] [--images 64]
        [--seed 0] [--json]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore", message=".*torch.jit.*")

import numpy as np  # noqa: E402 (the warning is timm's, at import)
import torch  # noqa: E402
from rank_correlation import Estimate, estimate_tau, estimate_tau_difference  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from zero_cost_proxies import PROXIES, proxy_values  # noqa: E402

from sharedattn.backbones import describe, resolve  # noqa: E402
from sharedattn.costs.model import CostModel  # noqa: E402
from sharedattn.data import DataSource, open_data  # noqa: E402
from sharedattn.errors import InputError  # noqa: E402
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement  # noqa: E402
from sharedattn.recipe import Recipe  # noqa: E402
from sharedattn.search.config import DEFAULT_SPACE  # noqa: E402
from sharedattn.search.data_plan import data_for, default_data  # noqa: E402
from sharedattn.search.evaluation.recipes import recipe_for  # noqa: E402
from sharedattn.search.evaluators.table import TableEvaluator  # noqa: E402
from sharedattn.search.provenance import provenance  # noqa: E402
from sharedattn.spaces.space import Space  # noqa: E402
from sharedattn.training.trainer import check_fit  # noqa: E402

PATTERN = "short-warm-up-*.json"
MIN_PLACEMENTS = 10
"""With fewer, tau's interval is as wide as tau itself."""
BARS = ("params", "macs")


@dataclass(frozen=True, slots=True)
class TrainedPlacements:
    """Placements of one backbone with their trained accuracies.

    Attributes:
        source: name of the table or the folder.
        specs: the networks.
        top1s: accuracy of each, a fraction.
        data: the training data.
        init: initialisation of the trainings, as in a recipe.
    """

    source: str
    specs: tuple[NetworkSpec, ...]
    top1s: tuple[float, ...]
    data: DataSource
    init: str

    def __post_init__(self) -> None:
        if len(self.specs) < MIN_PLACEMENTS:
            raise InputError(
                f"{self.source} has {len(self.specs)} placements; ranks take {MIN_PLACEMENTS} or "
                f"more, so train more of them"
            )


@dataclass(frozen=True, slots=True)
class ScoredProxy:
    """A proxy, or a baseline, on one space.

    Attributes:
        name: the proxy's name, or `params` or `macs`.
        tau: Kendall tau with the trained accuracies, or None if the proxy is undefined for a
            placement.
        over: difference in tau from each baseline, by its name.
        num_undefined: number of placements for which the proxy is undefined.
    """

    name: str
    tau: Estimate | None
    over: Mapping[str, Estimate] = field(default_factory=dict)
    num_undefined: int = 0

    @property
    def is_on(self) -> bool:
        """Whether it ranks better than every baseline, by more than the interval."""
        return self.tau is not None and all(
            bar in self.over and self.over[bar].low > 0 for bar in BARS
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of all fields, and whether it is on."""
        return {
            "name": self.name,
            "tau": None if self.tau is None else self.tau.to_json(),
            "over": {bar: difference.to_json() for bar, difference in self.over.items()},
            "undefined": self.num_undefined,
            "on": self.is_on,
        }


def read_table(path: Path, backbone: BackboneSpec, data: str) -> TrainedPlacements:
    """Read a table of accuracies, or of learning curves, whose last epoch counts.

    Args:
        path: the table.
        backbone: the placements' backbone.
        data: the training data.

    Raises:
        InputError: the table is missing or too short, or the backbone does not support a
            placement.
    """
    curves = TableEvaluator.load(path, describe(backbone)).curves
    source = open_data(data_for(backbone, data, None))
    backbone = replace(backbone, num_classes=source.num_classes)
    return TrainedPlacements(
        path.stem,
        tuple(resolve(NetworkSpec(backbone, Placement.parse(text))) for text in curves),
        tuple(curve[-1] for curve in curves.values()),
        source,
        recipe_for(None, source, None).init,
    )


def read_means(path: Path, space: str) -> tuple[TrainedPlacements, int]:
    """Read mean accuracies of placements that all tables have, and the number of tables.

    Raises:
        InputError: the folder has no tables, or they have too few placements in common.
    """
    paths = sorted(path.glob(PATTERN)) if path.is_dir() else [path]
    if not paths:
        raise InputError(f"{path} has no table named {PATTERN}; give a folder that has one")
    backbone = Space.load(space).backbone
    tables = [read_table(path, backbone, default_data(backbone)) for path in paths]
    top1s = [dict(zip(table.specs, table.top1s, strict=True)) for table in tables]
    common = tuple(spec for spec in tables[0].specs if all(spec in table for table in top1s))
    means = tuple(math.fsum(table[spec] for table in top1s) / len(top1s) for spec in common)
    return replace(tables[0], source=str(path), specs=common, top1s=means), len(paths)


def score_proxies(
    trained: TrainedPlacements, *, num_images: int, seed: int
) -> tuple[ScoredProxy, ...]:
    """Score both baselines and all proxies against the trained accuracies.

    Args:
        trained: the placements.
        num_images: number of training images in the only batch, without augmentation.
        seed: seed of the batch, the initialisations and the resamples.

    Raises:
        InputError: there are fewer images, fewer than two are requested, or the data does not fit.
    """
    if not 2 <= num_images <= trained.data.num_images("train"):
        raise InputError(
            f"`--images` is {num_images}; give 2 to {trained.data.num_images('train')}, the "
            f"training images of {trained.data.name}"
        )
    check_fit(trained.specs[0].backbone, trained.data)
    images, labels = next(
        trained.data.train_batches(
            # By default a recipe has no augmentation.
            Recipe(epochs=1, batch_size=num_images),
            seed=seed,
            epoch=0,
            device=torch.device("cpu"),
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
    # Use the same resamples for all figures.
    tau = estimate_tau(values[name], top1s, np.random.default_rng(seed))
    over = {
        bar: estimate_tau_difference(values[name], values[bar], top1s, np.random.default_rng(seed))
        for bar in BARS
        if name not in BARS
    }
    return ScoredProxy(name, tau, over)


def ranks_table(scored: Sequence[ScoredProxy]) -> Table:
    """A table of the taus, and of each proxy's lead over the baselines."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("figure")
    for name in ("tau", "over params", "over MACs"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for proxy in scored:
        undefined = f"off: undefined for {proxy.num_undefined}" if proxy.num_undefined else "off"
        table.add_row(
            proxy.name,
            str(proxy.tau or "-"),
            *(str(proxy.over.get(bar, "")) for bar in BARS),
            "bar" if proxy.name in BARS else "on" if proxy.is_on else undefined,
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", type=Path, metavar="FOLDER|TABLE.json")
    parser.add_argument("--space", default=DEFAULT_SPACE)
    parser.add_argument("--images", type=int, default=64, help="of the batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    asked = parser.parse_args(arguments)
    trained, num_tables = read_means(asked.tables, asked.space)
    scored = score_proxies(trained, num_images=asked.images, seed=asked.seed)
    recommended = [proxy.name for proxy in scored if proxy.is_on]
    if asked.json:
        document = {
            "source": trained.source,
            "backbone": str(trained.specs[0].backbone),
            "placements": len(trained.specs),
            "training_seeds": num_tables,
            "images": asked.images,
            "seed": asked.seed,
            "bars": [proxy.to_json() for proxy in scored if proxy.name in BARS],
            "proxies": [proxy.to_json() for proxy in scored if proxy.name not in BARS],
            "recommended": recommended,
            "provenance": provenance(),
        }
        print(json.dumps(document, indent=2))
        return
    console = Console(markup=False, highlight=False, soft_wrap=True, width=120)
    console.print(f"{len(trained.specs)} placements, means of {num_tables} tables")
    console.print(ranks_table(scored))
    console.print(
        f"better than params and MACs by more than the interval: "
        f"{', '.join(recommended) or 'none'}"
    )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
