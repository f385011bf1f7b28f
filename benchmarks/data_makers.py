"""Make data sets for experiments from scikit-learn's handwritten digits (real images).

    python benchmarks/data_makers.py clutter DIR [--images 2000] [--size 32]

`clutter`: a folder with `train/`, `val/` and `test/` of 70, 15 and 15 %, one folder per digit, PNG
files. Each image shows one digit at a random place, size and colour, on pieces of other digits and
noise. No handwritten digit is in two splits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SPLITS = {"train": 0.7, "val": 0.15, "test": 0.15}


def make_clutter(folder: Path, count: int, size: int, seed: int = 0) -> None:
    """Write the folder.

    Args:
        folder: output folder; created, and refused if it is not empty.
        count: total number of images.
        size: image height and width in pixels.
        seed: seed of all random choices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise SystemExit(f"{folder} is not empty; name another folder")
    rng = np.random.default_rng(seed)
    digits = load_digits()
    images = (digits.images * (255.0 / 16.0)).astype(np.uint8)
    order = rng.permutation(len(images))
    start = 0
    for split, share in SPLITS.items():
        own = order[start : start + round(share * len(order))]
        start += len(own)
        for number in range(round(share * count)):
            which = int(own[number % len(own)])
            place = folder / split / str(digits.target[which])
            place.mkdir(parents=True, exist_ok=True)
            picture = _picture(images, own, which, size, rng)
            Image.fromarray(picture).save(place / f"{number:04d}.png")


def _picture(
    images: np.ndarray, own: np.ndarray, which: int, size: int, rng: np.random.Generator
) -> np.ndarray:
    """One digit on clutter, (size, size, 3), uint8."""
    canvas = rng.normal(60, 20, (size, size, 3)) + rng.uniform(-30, 30, 3)
    for _ in range(6):
        # A quarter of another digit, too little to recognise it.
        y, x = rng.integers(0, 5, 2)
        piece = images[int(rng.choice(own))][y : y + 4, x : x + 4] / 255.0
        y, x = rng.integers(0, size - 4, 2)
        canvas[y : y + 4, x : x + 4] += piece[..., None] * rng.uniform(20, 90, 3)
    side = int(rng.integers(size // 2, 3 * size // 4 + 1))
    digit = Image.fromarray(images[which]).resize((side, side), Image.Resampling.BICUBIC)
    alpha = np.asarray(digit, dtype=np.float64)[..., None] / 255.0
    y, x = rng.integers(0, size - side + 1, 2)
    part = canvas[y : y + side, x : x + side]
    canvas[y : y + side, x : x + side] = (1 - alpha) * part + alpha * rng.uniform(150, 255, 3)
    return canvas.clip(0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("clutter",))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=32)
    asked = parser.parse_args()
    make_clutter(asked.folder, asked.images, asked.size)


if __name__ == "__main__":
    main()
