"""Compare our training of DeiT-Ti at 224 with a plain loop of timm's parts in images per second.

    python benchmarks/training_speed.py [--images 192] [--batch 16] [--workers 2] [--rounds 5]

The plain loop has timm's model, loader, optimiser and mixup, and the same transforms, threads,
batch and workers. Each trains one epoch per round, in turn, in one process; shown is the median of
the rounds' ratios with the smallest and largest. The first round of each, which starts its
workers, is left out. Images are JPEG files of 256 pixels.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import timm
import torch
from loader_speed import patch_posterize, write_images
from timm.data import create_dataset, create_loader
from timm.data.mixup import Mixup
from timm.optim import create_optimizer_v2
from torch.nn import functional as F

from sharedattn.backbones import resolve
from sharedattn.data import DataConfig
from sharedattn.data.images import ImageData
from sharedattn.placement import NetworkSpec
from sharedattn.recipe import Recipe
from sharedattn.training.trainer import Trainer

MODEL = "deit_tiny_patch16_224"
NUM_CLASSES = 2


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("images", 192), ("batch", 16), ("workers", 2), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    recipe = Recipe(
        epochs=asked.rounds + 2,
        batch_size=asked.batch,
        lr=2.5e-4,
        schedule="constant",
        label_smoothing=0.1,
        hflip=0.5,
        crop_scale_min=0.08,
        auto_augment="rand-m9-mstd0.5-inc1",
        random_erasing=0.25,
        mixup=0.8,
        cutmix=1.0,
        loader_workers=asked.workers,
    )
    with tempfile.TemporaryDirectory() as name:
        # A tenth becomes the validation split, which is not used here.
        write_images(Path(name), asked.images * 10 // 9, 256)
        data = ImageData(DataConfig(name=name, image_size=224, test_fraction=0.0))
        spec = resolve(NetworkSpec.parse(f"{MODEL}(num_classes={NUM_CLASSES}): V12"))
        trainer = Trainer(spec, data, recipe, seed=0)
        dataset = create_dataset("", root=f"{name}/train", split="train", search_split=False)
        dataset.reader.samples = dataset.reader.samples[: data.num_images("train")]
        patch_posterize()
        loader = create_loader(
            dataset,
            input_size=(3, 224, 224),
            batch_size=asked.batch,
            is_training=True,
            num_workers=asked.workers,
            persistent_workers=True,
            device=torch.device("cpu"),
            scale=(0.08, 1.0),
            hflip=0.5,
            auto_augment=recipe.auto_augment,
            re_prob=recipe.random_erasing,
            re_mode="pixel",
            color_jitter=0.0,
            interpolation="bicubic",
        )
        torch.manual_seed(0)
        model = timm.create_model(MODEL, num_classes=NUM_CLASSES).train()
        optimizer = create_optimizer_v2(model, opt="adamw", lr=recipe.lr, weight_decay=0.05)
        mixup = Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=NUM_CLASSES)

        def plain_epoch() -> int:
            count = 0
            for images, labels in loader:
                images, soft = mixup(images, labels)
                optimizer.zero_grad(set_to_none=True)
                F.cross_entropy(model(images), soft).backward()
                optimizer.step()
                count += len(images)
            return count

        def our_epoch() -> int:
            trainer.run_epoch()
            return data.num_images("train") // asked.batch * asked.batch

        speeds: dict[str, list[float]] = {"plain": [], "ours": []}
        for number in range(asked.rounds + 1):
            for which, epoch in (("plain", plain_epoch), ("ours", our_epoch)):
                started = time.perf_counter()
                count = epoch()
                if number:
                    speeds[which].append(count / (time.perf_counter() - started))
    ratios = [ours / plain for plain, ours in zip(*speeds.values(), strict=True)]
    print(
        f"{MODEL}, batch {asked.batch}, {threads} threads, {asked.workers} workers: ours / plain "
        f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}); plain "
        f"{statistics.median(speeds['plain']):.1f} images/s, ours "
        f"{statistics.median(speeds['ours']):.1f}"
    )


if __name__ == "__main__":
    main()
