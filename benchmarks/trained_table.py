"""Learning curves of the same placements with several seeds, as reference data.

    python benchmarks/trained_table.py FOLDER [--seeds 0,1,2,3,4] [--placements 60]

Trains placements of the embedded task to their end, each from scratch with every seed, and writes
one table per seed, `short-warm-up-SEED.json`, from placement text to the accuracy after each epoch
(also readable by `sharedattn search --table`). When run again, it resumes.

The placements are the published backbone and others drawn evenly over MACs. The recipe is the
embedded one with half as many epochs again, batches half as large, and a short warm-up: with 35
steps per epoch, a fifth of them warm-up, no network has learnt anything at its first judgement.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

warnings.filterwarnings("ignore", message=".*torch.jit.*")

import torch  # noqa: E402 (the warning is timm's, at import)

from sharedattn.backbones import describe, resolve  # noqa: E402
from sharedattn.data import DataConfig, DataSource, open_data  # noqa: E402
from sharedattn.placement import NetworkSpec, Placement  # noqa: E402
from sharedattn.recipe import RECIPES  # noqa: E402
from sharedattn.results.artifacts.atomic import atomic_write  # noqa: E402
from sharedattn.spaces.budget import BudgetedSpace  # noqa: E402
from sharedattn.spaces.space import Space  # noqa: E402
from sharedattn.spaces.stratified import StratifiedSampler  # noqa: E402
from sharedattn.training.trainer import train  # noqa: E402

EPOCHS = 6
SCHEDULE = "short-warm-up"
RECIPE = RECIPES["digit-pairs"].with_changes(epochs=EPOCHS, batch_size=64, warmup_epochs=0.2)
NUM_PLACEMENTS = 60
NUM_STRATA = 10
SEEDS = (0, 1, 2, 3, 4)

Table = dict[str, list[float]]


def embedded_space() -> BudgetedSpace:
    return BudgetedSpace(Space.load("digit-pairs-vit"))


def embedded_data(space: BudgetedSpace) -> DataSource:
    backbone = space.space.backbone
    return open_data(
        DataConfig(
            name="digit-pairs",
            image_size=describe(backbone).image_size,
            in_chans=backbone.in_chans,
        )
    )


def table_placements(space: BudgetedSpace, count: int = NUM_PLACEMENTS) -> list[Placement]:
    """The published backbone and others, equally many from each MACs bin, in random order."""
    depths = [stage.max_depth for stage in describe(space.space.backbone).stages]
    first = Placement.all_vanilla(depths)
    rng = random.Random(0)
    drawn = StratifiedSampler(space, NUM_STRATA).sample_many(rng, count)
    others = [placement for placement in drawn if placement != first][: count - 1]
    rng.shuffle(others)
    return [first, *others]


def table_path(folder: Path, seed: int) -> Path:
    return folder / f"{SCHEDULE}-{seed}.json"


def _read(path: Path) -> Table:
    table: Table = json.loads(path.read_text()) if path.is_file() else {}
    return table


def read_tables(folder: Path, seeds: Sequence[int] = SEEDS) -> dict[int, Table]:
    """Curves by seed of the placements that all seeds have, in the same order."""
    tables = {seed: _read(table_path(folder, seed)) for seed in seeds}
    common = set.intersection(*(set(table) for table in tables.values()))
    order = [text for text in map(str, table_placements(embedded_space())) if text in common]
    return {seed: {text: table[text] for text in order} for seed, table in tables.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--placements", type=int, default=NUM_PLACEMENTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    space = embedded_space()
    data = embedded_data(space)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    wanted = [
        (seed, placement)
        for placement in table_placements(space, arguments.placements)
        for seed in map(int, arguments.seeds.split(","))
    ]
    for number, (seed, placement) in enumerate(wanted, start=1):
        path = table_path(arguments.folder, seed)
        table = _read(path)
        if str(placement) not in table:
            training = train(
                resolve(NetworkSpec(space.space.backbone, placement)),
                data,
                RECIPE,
                seed=seed,
                validate_at=range(1, EPOCHS),
            )
            metrics = [epoch.validation for epoch in training.curve]
            table[str(placement)] = [m.quality for m in metrics if m is not None]
            atomic_write(path, json.dumps(table, indent=0).encode())
        print(f"\r{number}/{len(wanted)} trainings", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


if __name__ == "__main__":
    main()
