"""How well a small UNet learns to draw handwritten digits, from random weights.

    python benchmarks/denoising.py PICTURE.png [--epochs N] [--threads 1]

Trains a UNet of diffusers' parts on the embedded `digits` by the default recipe, prints what is
measured on validation images from time to time with the CPU seconds until then, draws as many as a
half of the training images has (DDIM, 50 steps), and prints their Fréchet distance from real ones
with that between halves of these. Twelve real digits stand in the picture's first row, 36 drawn
ones below.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from sharedattn.backbones import resolve
from sharedattn.data import open_data
from sharedattn.placement import NetworkSpec
from sharedattn.results.report.pictures import write_pictures
from sharedattn.search.data_plan import data_for
from sharedattn.search.evaluation.recipes import recipe_for
from sharedattn.training.trainer import Trainer, evaluate

NETWORK = (
    "unet2d(in_chans=1,layers_per_block=1,widths=16-32-32)@16: N1 | V1 | N1 | V1 | N2 | V2 | N2"
)
SHOWN_EPOCHS = 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path)
    parser.add_argument("--network", default=NETWORK)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    spec = resolve(NetworkSpec.parse(asked.network))
    data = open_data(data_for(spec.backbone, "digits", None))
    recipe = recipe_for(None, data, asked.epochs)
    wall, cpu = time.perf_counter(), time.process_time()
    trainer = Trainer(spec, data, replace(recipe, loader_workers=0), seed=asked.seed)
    num_params = sum(parameter.numel() for parameter in trainer.network.parameters())
    print(f"{spec}, {num_params:,} parameters, {data.num_images('train')} digits", flush=True)
    while not trainer.finished:
        shows = (trainer.epoch + 1) % SHOWN_EPOCHS == 0
        if (found := trainer.run_epoch(validate=shows).validation) is not None:
            print(
                f"  epoch {trainer.epoch:3d}  {found.name} {found.quality:.4f}  "
                f"mean squared error {found.loss:.4f}  {time.process_time() - cpu:4.0f} CPU s  "
                f"{time.perf_counter() - wall:4.0f} s",
                flush=True,
            )
    network = trainer.result().network
    test = evaluate(network, data, "test", batch_size=recipe.batch_size)
    print(f"  test       {test.name} {test.quality:.4f}  mean squared error {test.loss:.4f}")
    cpu = time.process_time()
    note = write_pictures(asked.picture, network, data)
    print(f"  {note}; {time.process_time() - cpu:.0f} CPU s to draw them")


if __name__ == "__main__":
    main()
