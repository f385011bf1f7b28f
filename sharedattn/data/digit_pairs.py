"""`digit-pairs`: are the two digits on the canvas the same? Embedded; needs attention.

scikit-learn's handwritten digits (1,797 real images, 8 x 8) are split 60/20/20 by image before
anything else. An example is two digits of one split in two different cells of a 2 x 2 canvas
(16 x 16 pixels), labelled 1 when they are the same digit; half of the examples are. A network that
never compares tokens stays at chance, so placement matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits

from sharedattn.data.source import (
    EMBEDDED,
    Batch,
    DataConfig,
    DataSource,
    Split,
    SplitName,
    spread,
)
from sharedattn.distributed import ALONE, Rank
from sharedattn.errors import InputError
from sharedattn.recipe import Recipe

CELL = 8  # pixels on a side of one digit
GRID = 2  # cells on a side of the canvas
IMAGE_SIZE = GRID * CELL
PAIRS_PER_EPOCH = 4480
EVAL_PAIRS = 4000
SPLIT_SEED = 20_260
EVAL_SEEDS = {"validation": 20_261, "test": 20_262}


class _Digits(NamedTuple):
    images: npt.NDArray[np.float32]  # (n, 8, 8), standardised by the training split
    labels: npt.NDArray[np.int64]  # (n,), sorted
    first: npt.NDArray[np.int64]  # (10,), where each digit begins
    size: npt.NDArray[np.int64]  # (10,), images of each digit


@cache
def _splits() -> dict[SplitName, _Digits]:
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)
    labels = digits.target.astype(np.int64)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    train_end, validation_end = int(0.6 * len(labels)), int(0.8 * len(labels))
    parts: dict[SplitName, npt.NDArray[np.int64]] = {
        "train": order[:train_end],
        "validation": order[train_end:validation_end],
        "test": order[validation_end:],
    }
    mean, std = images[parts["train"]].mean(), images[parts["train"]].std()
    splits: dict[SplitName, _Digits] = {}
    for name, part in parts.items():
        by_digit = part[np.argsort(labels[part], kind="stable")]
        size = np.bincount(labels[by_digit], minlength=10).astype(np.int64)
        splits[name] = _Digits(
            (images[by_digit] - mean) / std, labels[by_digit], np.cumsum(size) - size, size
        )
    return splits


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
    digits = _splits()[split]
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


class DigitPairs(DataSource):
    """The embedded data set; training pairs are redrawn each epoch.

    Validation and test pairs are fixed and do not depend on a study's seed.

    Args:
        config: the configuration; image size and channels are fixed at 16 and 1.

    Raises:
        InputError: another image size or number of channels, or a root.
    """

    name = EMBEDDED
    image_size = IMAGE_SIZE
    in_chans = 1
    num_classes = 2

    def __init__(self, config: DataConfig) -> None:
        if config.image_size not in (None, IMAGE_SIZE) or config.in_chans not in (None, 1):
            raise InputError(
                f"`--data` digit-pairs has images of 16x16 pixels and 1 channel, but the network "
                f"takes image size {config.image_size} and {config.in_chans} channels; name a "
                f"backbone for those, or other data"
            )
        if config.root is not None:
            raise InputError(
                f"`--data-root` is {config.root!r}, but digit-pairs is embedded and lies in no "
                f"folder; leave it out"
            )
        self.config = config
        self.identity = {
            "name": self.name,
            "version": 1,
            "scikit_learn_digits": int(load_digits().images.sum()),
            "split_seed": SPLIT_SEED,
            "eval_seeds": EVAL_SEEDS,
            "eval_pairs": EVAL_PAIRS,
            "pairs_per_epoch": PAIRS_PER_EPOCH,
            "transform": "standardised",
        }
        self._eval: dict[Split, Batch] = {}
        _refuse_choices(config)

    def num_images(self, split: SplitName) -> int:
        return PAIRS_PER_EPOCH if split == "train" else EVAL_PAIRS

    def class_counts(self, split: SplitName) -> tuple[int, ...]:
        same = self.num_images(split) // 2
        return self.num_images(split) - same, same

    def train_batches(
        self,
        recipe: Recipe,
        *,
        seed: int,
        epoch: int,
        device: torch.device,
        rank: Rank = ALONE,
    ) -> Iterator[Batch]:
        rng = np.random.default_rng((seed, epoch))
        images, labels = draw_pairs("train", PAIRS_PER_EPOCH, rng)
        images, labels = images.to(device), labels.to(device)
        share = torch.tensor(rank.shard_positions(recipe.batch_size), device=device)
        for start in range(0, PAIRS_PER_EPOCH - recipe.batch_size + 1, recipe.batch_size):
            yield images[start + share], labels[start + share]

    def eval_batches(
        self,
        split: Split,
        *,
        batch_size: int,
        device: torch.device,
        at_most: int | None = None,
        rank: Rank = ALONE,
    ) -> Iterator[Batch]:
        if split not in self._eval:
            rng = np.random.default_rng(EVAL_SEEDS[split])
            self._eval[split] = draw_pairs(split, EVAL_PAIRS, rng)
        images, labels = self._eval[split]
        chosen = torch.tensor(spread(EVAL_PAIRS, at_most))
        for part in rank.shard_batches(torch.split(chosen, batch_size)):
            yield images[part].to(device), labels[part].to(device)


def _refuse_choices(config: DataConfig) -> None:
    """Check that no options of data on disk are given.

    Raises:
        InputError: one is given; the message names it.
    """
    chosen = {
        "--test-split": config.test_fraction is not None,
        "--classes": config.classes is not None,
        "--pixels, --mean, --std, --interpolation, --crop-pct and --crop-mode": bool(
            config.pixels.given()
        ),
    }
    useless = [name for name, is_chosen in chosen.items() if is_chosen]
    if useless:
        raise InputError(
            f"{useless[0]}: digit-pairs has its own splits, classes and pixels; leave it out"
        )
