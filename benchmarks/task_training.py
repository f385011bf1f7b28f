"""How long a segmenter and a detector take to learn digits on clutter.

    python benchmarks/task_training.py DIR [--images 1000] [--threads 1] [--epochs N]
        [--weights EXPORT]

Makes the data of `data_makers.py masks` and `boxes` in DIR, 64 x 96 pixels, where it is not there
yet; trains PVTv2-B0 with each head by the default recipe; and prints the validation quality after
every epoch with the CPU seconds until then, and the test quality at the end. With `--weights`, all
but the head starts from a trained classifier, by the recipe for that.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from data_makers import make

from sharedattn.backbones import resolve
from sharedattn.data import DataSource, open_data
from sharedattn.placement import NetworkSpec
from sharedattn.search.data_plan import data_for, for_data
from sharedattn.search.evaluation.recipes import Start, recipe_for
from sharedattn.training.tasks.interface import Metrics
from sharedattn.training.trainer import Trainer, evaluate
from sharedattn.weights.trained_start import TrainedStart

NETWORKS = {
    "masks": "pvt_v2_b0(head=semantic_fpn)@64x96: V2 | V2 | V2 | V2",
    "boxes": "pvt_v2_b0(anchor_scale=2,head=retinanet)@64x96: V2 | V2 | V2 | V2",
}
SIZE = (64, 96)


@dataclass(frozen=True, slots=True)
class Point:
    """A network after some epochs.

    Attributes:
        epoch: number of epochs.
        metrics: on the validation images.
        cpu_s: CPU seconds of training and validation until then.
    """

    epoch: int
    metrics: Metrics
    cpu_s: float


def training(
    network: str,
    folder: Path,
    *,
    seed: int,
    epochs: int | None = None,
    weights: str | None = None,
) -> tuple[Trainer, DataSource]:
    """A training of a network, written with any number of classes, on a folder."""
    parsed = NetworkSpec.parse(network)
    data = open_data(data_for(parsed.backbone, str(folder), None, weights=weights))
    spec = resolve(replace(parsed, backbone=for_data(parsed.backbone, data)))
    begins: Start = "scratch" if weights is None else "weights"
    recipe = replace(recipe_for(None, data, epochs, start=begins), loader_workers=0)
    started = None
    if weights is not None:
        start = TrainedStart.of(weights, spec.backbone, data)
        started = start.network(spec, recipe, data, seed=seed)
    return Trainer(spec, data, recipe, seed=seed, network=started), data


def curve(trainer: Trainer) -> Iterator[Point]:
    """Train to the end; yields a point after every epoch."""
    started = time.process_time()
    while not trainer.finished:
        epoch = trainer.run_epoch(validate=True)
        assert epoch.validation is not None
        yield Point(epoch.epoch, epoch.validation, time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights")
    parser.add_argument("--only", choices=tuple(NETWORKS))
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    for kind in (asked.only,) if asked.only else NETWORKS:
        place = asked.folder / kind
        if not place.exists():
            make(kind, place, asked.images, SIZE)
        trainer, data = training(
            NETWORKS[kind], place, seed=asked.seed, epochs=asked.epochs, weights=asked.weights
        )
        print(f"{NETWORKS[kind]}, {data.num_images('train')} training images", flush=True)
        for point in curve(trainer):
            found = point.metrics
            print(
                f"  epoch {point.epoch:2d}  {found.name} {found.quality:.3f}  "
                f"{point.cpu_s:4.0f} CPU s",
                flush=True,
            )
        test = evaluate(trainer.result().network, data, "test", batch_size=32)
        more = "".join(f", {name} {value:.3f}" for name, value in test.further.items())
        print(f"  test   {test.name} {test.quality:.3f}{more}, {test.num_images} images")


if __name__ == "__main__":
    main()
