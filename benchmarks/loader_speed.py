"""Compare our loaders with timm's `create_loader` in images per second.

    python benchmarks/loader_speed.py [--images 2048] [--size 256] [--workers 2] [--rounds 5]

Both have the same workers and transforms. Rounds alternate between them, in one process with one
torch thread; shown is the median of the rounds' ratios with the smallest and largest. The first
batch of a pass, which starts timm's workers, is not timed. For ours the first batch of the second
epoch is timed separately.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_dataset, create_loader

from sharedattn.data import DataConfig
from sharedattn.data.images import ImageData
from sharedattn.recipe import Recipe

CPU = torch.device("cpu")
BATCH = 64
RECIPE = {
    "hflip": 0.5,
    "crop_scale_min": 0.08,
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "random_erasing": 0.25,
}


def write_images(folder: Path, count: int, size: int) -> None:
    """Write JPEG files of noise over gradients, which compress about as well as photographs."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1) / size
    for number in range(count):
        place = folder / "train" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        waves = np.sin(grid @ rng.normal(0, 12, (2, 3)) + rng.normal(0, 3, 3))
        pixels = 128 + 90 * waves + rng.normal(0, 12, (size, size, 3))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(place / f"{number:05d}.jpg", quality=88)


def images_per_s(batches: Iterator[Any]) -> float:
    """Images per second after the first batch."""
    next(batches)
    started, count = time.perf_counter(), 0
    for images, _ in batches:
        count += len(images)
    return count / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("images", 2048), ("size", 256), ("workers", 2), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    # timm starts as many workers as requested; ours are at most the threads of a trial.
    torch.set_num_threads(asked.workers)
    with tempfile.TemporaryDirectory() as name:
        write_images(Path(name), asked.images, asked.size)
        config = DataConfig(name=name, image_size=224, val_fraction=0.3, test_fraction=0.0)
        ours = ImageData(config)
        recipe = Recipe(epochs=10**4, batch_size=BATCH, loader_workers=asked.workers, **RECIPE)
        pixels = ours.pixels
        assert pixels is not None
        shared = {
            "input_size": (3, 224, 224),
            "batch_size": BATCH,
            "num_workers": asked.workers,
            "persistent_workers": True,
            "device": CPU,
            "interpolation": "bicubic",
            "mean": pixels.mean,
            "std": pixels.std,
            "use_prefetcher": True,
        }

        def theirs(split: str) -> Any:
            # Exactly our images.
            dataset = create_dataset("", root=f"{name}/train", split="train", search_split=False)
            part = ours._parts[split]  # type: ignore[index]
            paths = [part.samples.paths[i] for i in part.indices]  # type: ignore[attr-defined]
            labels = part.labels.tolist()
            dataset.reader.samples = [
                (str(Path(name, path)), label) for path, label in zip(paths, labels, strict=True)
            ]
            if split == "train":
                return create_loader(
                    dataset,
                    is_training=True,
                    scale=(RECIPE["crop_scale_min"], 1.0),
                    hflip=RECIPE["hflip"],
                    auto_augment="rand-m9-mstd0.5-inc1",
                    re_prob=RECIPE["random_erasing"],
                    re_mode="pixel",
                    color_jitter=0.0,
                    **shared,
                )
            return create_loader(dataset, is_training=False, crop_pct=pixels.crop_pct, **shared)

        patch_posterize()
        timms = {split: theirs(split) for split in ("train", "validation")}
        ratios: dict[str, list[float]] = {"train": [], "validation": []}
        speeds: dict[str, list[float]] = {"train": [], "validation": []}
        firsts = []
        for number in range(asked.rounds):
            for split in ratios:
                their_speed = images_per_s(iter(timms[split]))
                if split == "train":
                    started = time.perf_counter()
                    batches = ours.train_batches(recipe, seed=0, epoch=number, device=CPU)
                    first = next(batches)
                    firsts.append(time.perf_counter() - started)
                    started, count = time.perf_counter(), 0
                    for images, _ in batches:
                        count += len(images)
                    our_speed = count / (time.perf_counter() - started)
                    del first
                else:
                    our_speed = images_per_s(
                        ours.eval_batches("validation", batch_size=BATCH, device=CPU)
                    )
                speeds[split].append(our_speed)
                ratios[split].append(our_speed / their_speed)
        print(f"{asked.images} JPEG files of {asked.size} pixels, {asked.workers} workers")
        for split, values in ratios.items():
            print(
                f"{split:10}  ours / timm's: {statistics.median(values):.3f} "
                f"({min(values):.3f} to {max(values):.3f}); ours "
                f"{statistics.median(speeds[split]):.0f} images/s"
            )
        batch_s = BATCH / statistics.median(speeds["train"])
        print(
            f"first batch of a later epoch: {statistics.median(firsts[1:]) * 1e3:.0f} ms (most "
            f"{max(firsts[1:]) * 1e3:.0f}); a batch takes {batch_s * 1e3:.0f} ms; of the first "
            f"epoch {firsts[0] * 1e3:.0f} ms"
        )


def patch_posterize() -> None:
    """Make timm's posterize work with Pillow 12 and newer, which refuses 0 bits."""
    from timm.data import auto_augment

    from sharedattn.data.images import _posterize

    for name in ("Posterize", "PosterizeIncreasing", "PosterizeOriginal"):
        auto_augment.NAME_TO_OP[name] = _posterize


if __name__ == "__main__":
    main()
