"""Folders of scikit-learn's digits (real images), by digit or by groups of digits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

TEN = {str(digit): str(digit) for digit in range(10)}
FOUR = {"curve": "235", "four": "4", "loop": "0689", "stroke": "17"}
"""Classes by the digits that they hold: ten, and four others."""

BACKBONE = (
    "vit(class_token=false,depth=2,embed_dim=24,global_pool=avg,mlp_ratio=1,"
    "num_classes={classes},num_heads=3,patch_size=4)@16"
)
"""A backbone for these images, by its number of classes."""


def write_digits(
    folder: Path, classes: Mapping[str, str], *, num_images: int = 997, size: int = 16
) -> Path:
    """Write the first images as PNG files: of ten, seven are for train, two for val, one for test.

    Args:
        folder: the folder to create.
        classes: names of the classes, each with its digits.
        num_images: number of images.
        size: image height and width in pixels.
    """
    digits = load_digits()
    class_of = {int(digit): name for name, members in classes.items() for digit in members}
    for number in range(num_images):
        split = "test" if number % 10 == 9 else "val" if number % 10 > 6 else "train"
        place = folder / split / class_of[int(digits.target[number])]
        place.mkdir(parents=True, exist_ok=True)
        pixels = (digits.images[number] * (255.0 / 16.0)).astype(np.uint8)
        image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
        image.save(place / f"{number:04d}.png")
    return folder
