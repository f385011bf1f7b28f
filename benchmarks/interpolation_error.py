"""Loss of accuracy when maps over tokens and positions are resampled to another image size.

Trains small vision transformers on the embedded data at 16 px, resamples them to 24 px and back,
and prints the validation accuracy at each size (at 24 px on resized images), and how far the maps'
differences from the identity have moved from their start.

Patches at 24 px show strokes half as large again as in training, so accuracy at 24 px falls
without any maps as well: the placement without less attention shows by how much. The value of
resampling the maps shows after a short training at 24 px: of the resampled network (`tuned`), and
of one whose maps were first reset to plain reuse (`tuned anew`).

    python benchmarks/interpolation_error.py [--epochs 6] [--tuning-epochs 1] [--seeds 1] [--json]
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import torch
from torch.nn import functional as F

from sharedattn.data.digit_pairs import DigitPairs
from sharedattn.data.source import Batch, DataConfig, Split
from sharedattn.distributed import ALONE, Rank
from sharedattn.mechanisms.less import ScoreMaps
from sharedattn.networks.network import Network
from sharedattn.placement import NetworkSpec
from sharedattn.recipe import Recipe
from sharedattn.spaces.space import Space
from sharedattn.training.trainer import evaluate, train
from sharedattn.weights.interpolate import at_image_size

SPACE = "digit-pairs-vit"
PLACEMENTS = ("V4", "V1L3/full", "V1L3/keys", "V1L3/lowrank4", "V1L3/reuse", "V2L2/full/cb")
OTHER_SIZE = 24


class ResizedPairs(DigitPairs):
    """The embedded data with resized images."""

    image_size = OTHER_SIZE

    def train_batches(
        self,
        recipe: Recipe,
        *,
        seed: int,
        epoch: int,
        device: torch.device,
        rank: Rank = ALONE,
    ) -> Iterator[Batch]:
        """As in the embedded data, at `OTHER_SIZE` pixels."""
        batches = super().train_batches(recipe, seed=seed, epoch=epoch, device=device, rank=rank)
        for images, labels in batches:
            yield resized(images), labels

    def eval_batches(
        self,
        split: Split,
        *,
        batch_size: int,
        device: torch.device,
        at_most: int | None = None,
        rank: Rank = ALONE,
    ) -> Iterator[Batch]:
        """As in the embedded data, at `OTHER_SIZE` pixels."""
        batches = super().eval_batches(
            split, batch_size=batch_size, device=device, at_most=at_most, rank=rank
        )
        for images, labels in batches:
            yield resized(images), labels


def resized(images: torch.Tensor) -> torch.Tensor:
    """Images resized to `OTHER_SIZE` pixels."""
    return F.interpolate(images, (OTHER_SIZE, OTHER_SIZE), mode="bicubic", antialias=True)


def tuned(network: Network, recipe: Recipe, epochs: int) -> Network:
    """A copy trained on resized images with AdamW at a constant rate."""
    network = copy.deepcopy(network).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    data = ResizedPairs(DataConfig(name="digit-pairs"))
    for epoch in range(epochs):
        for images, labels in data.train_batches(
            recipe, seed=0, epoch=recipe.epochs + epoch, device=torch.device("cpu")
        ):
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
    return network


def top1(network: Network, data: DigitPairs) -> float:
    """The validation accuracy."""
    return evaluate(network, data, "validation", batch_size=500).quality


def maps_of(network: Network) -> list[ScoreMaps]:
    """The network's maps over tokens."""
    return [module for module in network.modules() if isinstance(module, ScoreMaps)]


def difference(maps: ScoreMaps, side: str) -> torch.Tensor:
    """Difference of Psi or Theta from the identity; empty if the form has no such map."""
    own = dict(maps.named_parameters())
    if f"{side}_up" in own:
        return own[f"{side}_up"] @ own[f"{side}_down"]
    return own.get(side, torch.empty(0))


@torch.no_grad()
def map_error(network: Network, back: Network) -> float | None:
    """Relative change of the maps' differences in norm, or None without maps."""
    moved = norm = 0.0
    for old, new in zip(maps_of(network), maps_of(back), strict=True):
        for side in ("psi", "theta"):
            before = difference(old, side)
            moved += (difference(new, side) - before).square().sum().item()
            norm += before.square().sum().item()
    return (moved / norm) ** 0.5 if norm else None


def measure(placement: str, seed: int, epochs: int, tuning: int) -> dict[str, float | None]:
    """Compute all figures of one training."""
    config = DataConfig(name="digit-pairs")
    data, larger_data = DigitPairs(config), ResizedPairs(config)
    backbone = Space.load(SPACE).backbone
    spec = NetworkSpec.parse(f"{backbone}: {placement}")
    recipe = Recipe.load("digit-pairs").with_changes(epochs=epochs)
    network = train(spec, data, recipe, seed=seed).network
    larger = at_image_size(network, OTHER_SIZE)
    back = at_image_size(larger, network.shape.image_size)
    anew = copy.deepcopy(larger)
    for maps in maps_of(anew):
        maps.reset_parameters()
    return {
        "top1": top1(network, data),
        "top1_other_size": top1(larger, larger_data),
        "top1_other_size_tuned": top1(tuned(larger, recipe, tuning), larger_data),
        "top1_other_size_tuned_anew": top1(tuned(anew, recipe, tuning), larger_data),
        "top1_back": top1(back, data),
        "map_error_back": map_error(network, back),
    }


def mean(figures: list[float | None]) -> float | None:
    """Mean of the figures that are not None, or None without any."""
    known = [figure for figure in figures if figure is not None]
    return fmean(known) if known else None


def main() -> None:
    """Measure every placement and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--tuning-epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not arguments.json:
        print(
            f"means of {arguments.seeds} seeds, {arguments.epochs} epochs at 16 px and "
            f"{arguments.tuning_epochs} at {OTHER_SIZE} px; in percent"
        )
        heads = ("16 px", f"{OTHER_SIZE} px", "tuned", "tuned anew", "back", "map error")
        print(f"{'placement':15}" + "".join(f"{head:>13}" for head in heads))
    rows: list[dict[str, Any]] = []
    for placement in PLACEMENTS:
        runs = [
            measure(placement, seed, arguments.epochs, arguments.tuning_epochs)
            for seed in range(arguments.seeds)
        ]
        means = {name: mean([run[name] for run in runs]) for name in runs[0]}
        rows.append({"placement": placement, **means})
        if not arguments.json:
            cells = ["-" if value is None else f"{100 * value:.2f}" for value in means.values()]
            print(f"{placement:15}" + "".join(f"{cell:>13}" for cell in cells), flush=True)
    if arguments.json:
        document = {
            "epochs": arguments.epochs,
            "tuning_epochs": arguments.tuning_epochs,
            "seeds": arguments.seeds,
            "rows": rows,
        }
        print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
