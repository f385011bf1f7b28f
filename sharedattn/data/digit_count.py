"""The embedded data set `digit-count`: how many different digits are on the canvas?

An example is four of scikit-learn's digits, one in each cell of a 2 x 2 canvas (16 x 16 pixels),
labelled by the number of different digits among them, one to four. Each digit spans four tokens of
a network with patches of 4 x 4 pixels. benchmarks/yardstick.py measures whether the order of
placements holds when they are trained for longer.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from sharedattn.data.digits import CELL, EmbeddedData, digit_splits
from sharedattn.data.source import Batch, SplitName
from sharedattn.image_size import ImageSize

GRID = 2  # cells on a side of the canvas
NUM_CELLS = GRID * GRID
IMAGE_SIZE = GRID * CELL
IMAGES_PER_EPOCH = 4480
EVAL_IMAGES = 4000


def draw_counts(split: SplitName, num_images: int, rng: np.random.Generator) -> Batch:
    """Draw examples from the digits of one split.

    Args:
        split: split of the digits; no digit is in two splits.
        num_images: number of examples; labels are balanced, with one more of the first labels if
            four does not divide it.
        rng: random generator.

    Returns:
        Canvases (num_images, 1, 16, 16), float32, zero mean and unit variance over the digits of
        the training split, no image twice on a canvas; labels (num_images,), int64, the number of
        different digits less one.
    """
    digits = digit_splits()[split]
    labels = rng.permutation(np.arange(num_images) % NUM_CELLS)
    digit = _digits_by_cell(labels, rng)
    image = _images_of(digit, digits.first, digits.size, rng)
    cells = digits.images[image].reshape(num_images, GRID, GRID, CELL, CELL)
    canvas = np.ascontiguousarray(cells.transpose(0, 1, 3, 2, 4))
    images = canvas.reshape(num_images, 1, IMAGE_SIZE, IMAGE_SIZE)
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def _digits_by_cell(
    labels: npt.NDArray[np.int64], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Digits (n, 4) with `labels` + 1 different ones in each row, in any order."""
    num_images = len(labels)
    cell = np.arange(NUM_CELLS)
    # Which of the different digits a cell has: each of them once, then any of them again.
    again = (rng.random((num_images, NUM_CELLS)) * (labels[:, None] + 1)).astype(np.int64)
    choice = rng.permuted(np.where(cell <= labels[:, None], cell, again), axis=1)
    different = rng.random((num_images, 10)).argsort(axis=1)
    return np.take_along_axis(different, choice, axis=1)


def _images_of(
    digit: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    size: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """An image of each digit, (n, 4), by its number in the split, none twice in a row."""
    image = np.zeros_like(digit)
    to_draw = np.arange(len(digit))
    while len(to_draw):
        wanted = digit[to_draw]
        image[to_draw] = first[wanted] + (rng.random(wanted.shape) * size[wanted]).astype(np.int64)
        in_order = np.sort(image[to_draw], axis=1)
        to_draw = to_draw[(in_order[:, 1:] == in_order[:, :-1]).any(axis=1)]
    return image


class DigitCount(EmbeddedData):
    """The data set `digit-count`, with images of 16 x 16 pixels; see `EmbeddedData`."""

    name = "digit-count"
    image_size = ImageSize(IMAGE_SIZE, IMAGE_SIZE)
    num_classes = NUM_CELLS

    def num_images(self, split: SplitName) -> int:
        return IMAGES_PER_EPOCH if split == "train" else EVAL_IMAGES

    def class_counts(self, split: SplitName) -> tuple[int, ...]:
        total = self.num_images(split)
        return tuple(len(range(label, total, NUM_CELLS)) for label in range(NUM_CELLS))

    def _sizes(self) -> dict[str, int]:
        return {"eval_images": EVAL_IMAGES, "images_per_epoch": IMAGES_PER_EPOCH}

    def _draw(self, split: SplitName, count: int, rng: np.random.Generator) -> Batch:
        return draw_counts(split, count, rng)
