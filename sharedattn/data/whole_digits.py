"""`digits`: scikit-learn's handwritten digits, whole, to learn to draw; embedded.

The 1,797 real images are split 60/20/20 by image and resized from 8 x 8 to 16 x 16 pixels, since a
network that halves its maps twice leaves 4 x 4 of them. Nothing is labelled: the target of an
image is its number, by which evaluation draws its noise. Each image of an evaluation is seen with
several noises, which spreads them over the steps of diffusion.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from sharedattn.data.digits import EmbeddedData, split_indices
from sharedattn.data.source import Batch, SplitName
from sharedattn.image_size import ImageSize
from sharedattn.tasks import DENOISE

IMAGE_SIZE = 16
NOISES = 4  # of each image of an evaluation


@cache
def whole_digits() -> dict[SplitName, tuple[Tensor, Tensor]]:
    """By split, images (n, 1, 16, 16), float32, from -1 to 1, and digits (n,), int64."""
    digits = load_digits()
    images_N1yx = torch.from_numpy(digits.images.astype(np.float32) / 8.0 - 1.0)[:, None]
    images_N1YX = F.interpolate(images_N1yx, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear")
    labels_N = torch.from_numpy(digits.target.astype(np.int64))
    splits = split_indices(len(labels_N))
    return {split: (images_N1YX[numbers], labels_N[numbers]) for split, numbers in splits.items()}


class Digits(EmbeddedData):
    """The data set `digits`, with images of 16 x 16 pixels; see `EmbeddedData`."""

    name = "digits"
    image_size = ImageSize(IMAGE_SIZE, IMAGE_SIZE)
    num_classes = 1
    task = DENOISE
    transform = "bilinear, from -1 to 1"

    def num_images(self, split: SplitName) -> int:
        images_N1YX, _ = whole_digits()[split]
        return len(images_N1YX) * (1 if split == "train" else NOISES)

    def _sizes(self) -> dict[str, int]:
        return {"image_size": IMAGE_SIZE, "noises": NOISES}

    def _draw(self, split: SplitName, count: int, rng: np.random.Generator) -> Batch:
        images_N1YX, _ = whole_digits()[split]
        if split == "train":
            numbers_N = torch.from_numpy(rng.permutation(count))
            return images_N1YX[numbers_N], numbers_N
        numbers_N = torch.arange(count)
        return images_N1YX[numbers_N // NOISES], numbers_N
