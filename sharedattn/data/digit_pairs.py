"""`digit-pairs`: are the two digits on the canvas the same? Embedded; needs attention.

scikit-learn's handwritten digits (1,797 real images, 8 x 8) are split 60/20/20 by image before
anything else. An example is two digits of one split in two different cells of a 2 x 2 canvas
(16 x 16 pixels), labelled 1 when they are the same digit; half of the examples are. A network that
never compares tokens stays at chance, so placement matters.
"""

from __future__ import annotations

import numpy as np
import torch

from sharedattn.data.digits import CELL, EmbeddedData, digit_splits
from sharedattn.data.source import Batch, SplitName
from sharedattn.image_size import ImageSize

GRID = 2  # cells on a side of the canvas
IMAGE_SIZE = GRID * CELL
PAIRS_PER_EPOCH = 4480
EVAL_PAIRS = 4000


def draw_pairs(split: SplitName, num_pairs: int, rng: np.random.Generator) -> Batch:
    """Draw examples from the images of one split.

    Args:
        split: split whose images are used; no image is in two splits.
        num_pairs: number of examples; half of them, rounded down, show the same digit twice.
        rng: source of all randomness.

    Returns:
        Canvases (num_pairs, 1, 16, 16), float32, zero mean and unit variance over the digits of
        the training split, empty cells at the background's value; labels (num_pairs,), int64.
    """
    digits = digit_splits()[split]
    same = rng.permutation(np.arange(num_pairs) % 2).astype(bool)
    one = rng.integers(len(digits.labels), size=num_pairs)
    other_digit = (digits.labels[one] + rng.integers(1, 10, size=num_pairs)) % 10
    wanted = np.where(same, digits.labels[one], other_digit)
    # A same-digit pair shows two different images: an offset of 1 to size - 1 from the first.
    within = one - digits.first[wanted]
    offset = 1 + (rng.random(num_pairs) * (digits.size[wanted] - 1)).astype(np.int64)
    free = (rng.random(num_pairs) * digits.size[wanted]).astype(np.int64)
    two = digits.first[wanted] + np.where(same, (within + offset) % digits.size[wanted], free)
    cell_one = rng.integers(GRID * GRID, size=num_pairs)
    cell_two = (cell_one + rng.integers(1, GRID * GRID, size=num_pairs)) % (GRID * GRID)
    background = digits.images.min()
    cells = np.full((num_pairs, GRID * GRID, CELL, CELL), background, dtype=np.float32)
    row = np.arange(num_pairs)
    cells[row, cell_one] = digits.images[one]
    cells[row, cell_two] = digits.images[two]
    canvas = cells.reshape(num_pairs, GRID, GRID, CELL, CELL).transpose(0, 1, 3, 2, 4)
    images = np.ascontiguousarray(canvas).reshape(num_pairs, 1, IMAGE_SIZE, IMAGE_SIZE)
    return torch.from_numpy(images), torch.from_numpy(same.astype(np.int64))


class DigitPairs(EmbeddedData):
    """The data set `digit-pairs`, with images of 16 x 16 pixels; see `EmbeddedData`."""

    name = "digit-pairs"
    image_size = ImageSize(IMAGE_SIZE, IMAGE_SIZE)
    num_classes = 2

    def num_images(self, split: SplitName) -> int:
        return PAIRS_PER_EPOCH if split == "train" else EVAL_PAIRS

    def class_counts(self, split: SplitName) -> tuple[int, ...]:
        same = self.num_images(split) // 2
        return self.num_images(split) - same, same

    def _sizes(self) -> dict[str, int]:
        return {"eval_pairs": EVAL_PAIRS, "pairs_per_epoch": PAIRS_PER_EPOCH}

    def _draw(self, split: SplitName, count: int, rng: np.random.Generator) -> Batch:
        return draw_pairs(split, count, rng)
