"""Value of fitting external attention's memories to a trained network, before any training.

Trains the all-vanilla network of the embedded task, loads its weights into a network that can be
external in every layer, and prints, per layer and number of slots, the distance of the external
branch from the vanilla one on validation images, before and after the fit; and the validation
accuracy of the network with only that layer external, without further training.

    python benchmarks/memory_fit.py [--epochs 6] [--seed 0] [--images 512] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch

from sharedattn.backbones import build_network
from sharedattn.data import DataConfig, DataSource, open_data
from sharedattn.networks.network import Network
from sharedattn.placement import Envelope, NetworkSpec, Placement
from sharedattn.recipe import Recipe
from sharedattn.spaces.space import Space
from sharedattn.training.trainer import evaluate, train
from sharedattn.weights.branch_fit import branch_errors, fit_branches
from sharedattn.weights.extract import extract
from sharedattn.weights.pretrained import start_from

SPACE = "digit-pairs-vit"
SLOTS = (8, 16, 32)
DEPTH = 4


def with_external(index: int, slots: int) -> Placement:
    """Vanilla in all layers except one."""
    layers = [f"E/s{slots}" if i == index else "V" for i in range(DEPTH)]
    return Placement.parse(",".join(layers))


def top1(network: Network, data: DataSource, placement: Placement) -> float:
    """Validation accuracy of a placement."""
    return evaluate(extract(network, placement), data, "validation", batch_size=500).quality


def figures(network: Network, data: DataSource, images: torch.Tensor) -> list[dict[str, Any]]:
    """Compute error and accuracy per layer and number of slots."""
    errors = branch_errors(network, images, numbers=SLOTS)
    return [
        {
            "layer": index + 1,
            "slots": slots,
            "error": errors[0, index][slots],
            "top1": top1(network, data, with_external(index, slots)),
        }
        for index in range(DEPTH)
        for slots in SLOTS
    ]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=512, help="calibration images")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    device = torch.device("cpu")
    data = open_data(DataConfig(name="digit-pairs"))
    backbone = Space.load(SPACE).backbone
    vanilla = Placement.all_vanilla((DEPTH,))
    recipe = Recipe.load("digit-pairs").with_changes(epochs=arguments.epochs)
    model = train(NetworkSpec(backbone, vanilla), data, recipe, seed=arguments.seed).network
    external = [with_external(index, max(SLOTS)) for index in range(DEPTH)]
    network = build_network(backbone, Envelope.of(vanilla, *external)).eval()
    start_from(network, model.state_dict())
    of_training = recipe.with_changes(batch_size=arguments.images)
    calibration, _ = next(
        iter(data.train_batches(of_training, seed=arguments.seed, epoch=0, device=device))
    )
    held_out, _ = next(iter(data.eval_batches("validation", batch_size=512, device=device)))
    before = figures(network, data, held_out)
    started = time.perf_counter()
    fit_branches(network, calibration, numbers=SLOTS)
    fit_s = time.perf_counter() - started
    after = figures(network, data, held_out)
    rows = [
        {
            "layer": old["layer"],
            "slots": old["slots"],
            **{f"{key}_before": old[key] for key in ("error", "top1")},
            **{f"{key}_after": new[key] for key in ("error", "top1")},
        }
        for old, new in zip(before, after, strict=True)
    ]
    vanilla_top1 = top1(network, data, vanilla)
    if arguments.json:
        document = {**vars(arguments), "vanilla_top1": vanilla_top1, "fit_s": fit_s, "rows": rows}
        print(json.dumps(document, indent=2))
        return
    print(
        f"V{DEPTH}, {arguments.epochs} epochs, seed {arguments.seed}: top1 {vanilla_top1:.4f}; "
        f"fitted on {arguments.images} images in {fit_s:.2f} s"
    )
    print("layer  slots  error before  after  top1 before   after")
    for row in rows:
        print(
            f"{row['layer']:5} {row['slots']:6} {row['error_before']:13.3f} "
            f"{row['error_after']:6.3f} {row['top1_before']:12.4f} {row['top1_after']:7.4f}"
        )


if __name__ == "__main__":
    main()
