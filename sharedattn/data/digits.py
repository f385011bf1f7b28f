"""The base of the embedded data sets: scikit-learn's digits, split by image.

The 1,797 real images (8 x 8 pixels) are split 60/20/20 by image before anything else, so no
image is in two splits.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits

from sharedattn.data.source import Batch, DataConfig, DataSource, Split, SplitName, spread
from sharedattn.distributed import ALONE, Rank
from sharedattn.errors import InputError
from sharedattn.image_size import ImageSize
from sharedattn.recipe import Recipe

CELL = 8  # pixels on a side of one digit
SPLIT_SEED = 20_260
EVAL_SEEDS = {"validation": 20_261, "test": 20_262}


class DigitImages(NamedTuple):
    """The images of one split, digit by digit."""

    images: npt.NDArray[np.float32]  # (n, 8, 8), standardised by the training split
    labels: npt.NDArray[np.int64]  # (n,), sorted
    first: npt.NDArray[np.int64]  # (10,), where each digit begins
    size: npt.NDArray[np.int64]  # (10,), images of each digit


def split_indices(num_images: int) -> dict[SplitName, npt.NDArray[np.int64]]:
    """Numbers of the images of each split, shuffled; equal in every process."""
    order = np.random.default_rng(SPLIT_SEED).permutation(num_images)
    train_end, validation_end = int(0.6 * num_images), int(0.8 * num_images)
    return {
        "train": order[:train_end],
        "validation": order[train_end:validation_end],
        "test": order[validation_end:],
    }


@cache
def digit_splits() -> dict[SplitName, DigitImages]:
    """The digits by split; equal in every process."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)
    labels = digits.target.astype(np.int64)
    parts = split_indices(len(labels))
    mean, std = images[parts["train"]].mean(), images[parts["train"]].std()
    splits: dict[SplitName, DigitImages] = {}
    for name, part in parts.items():
        by_digit = part[np.argsort(labels[part], kind="stable")]
        size = np.bincount(labels[by_digit], minlength=10).astype(np.int64)
        splits[name] = DigitImages(
            (images[by_digit] - mean) / std, labels[by_digit], np.cumsum(size) - size, size
        )
    return splits


class EmbeddedData(DataSource):
    """An embedded data set: canvases of digits, redrawn each epoch for training.

    Validation and test examples are fixed and do not depend on a study's seed.

    Args:
        config: the configuration; image size and channels are fixed.

    Raises:
        InputError: another image size or number of channels, a root, or an option of data on disk.
    """

    in_chans = 1
    transform = "standardised"  # what has been done to pixels, in the identity

    def __init__(self, config: DataConfig) -> None:
        size = self.image_size
        if config.image_size not in (None, size.given) or config.in_chans not in (None, 1):
            asked = ImageSize.of(config.image_size or size)
            raise InputError(
                f"`--data` {self.name} has images of {size.height}x{size.width} pixels and 1 "
                f"channel, but the network takes image size {asked} and {config.in_chans or 1} "
                f"channels; name a backbone for those, or other data"
            )
        if config.root is not None:
            raise InputError(
                f"`--data-root` is {config.root!r}, but {self.name} is embedded and lies in no "
                f"folder; leave it out"
            )
        self.config = config
        self.identity = {
            "name": self.name,
            "version": 1,
            "scikit_learn_digits": int(load_digits().images.sum()),
            "split_seed": SPLIT_SEED,
            "eval_seeds": EVAL_SEEDS,
            **self._sizes(),
            "transform": self.transform,
        }
        self._eval: dict[Split, Batch] = {}
        _refuse_choices(config)

    @abstractmethod
    def _sizes(self) -> dict[str, int]:
        """Numbers of examples, by their names in the identity."""

    @abstractmethod
    def _draw(self, split: SplitName, count: int, rng: np.random.Generator) -> Batch:
        """Draw `count` examples: images (count, 1, Y, X), and labels (count,), int64."""

    def train_batches(
        self,
        recipe: Recipe,
        *,
        seed: int,
        epoch: int,
        device: torch.device,
        rank: Rank = ALONE,
    ) -> Iterator[Batch]:
        total = self.num_images("train")
        images, labels = self._draw("train", total, np.random.default_rng((seed, epoch)))
        images, labels = images.to(device), labels.to(device)
        share = torch.tensor(rank.shard_positions(recipe.batch_size), device=device)
        for start in range(0, total - recipe.batch_size + 1, recipe.batch_size):
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
        total = self.num_images(split)
        if split not in self._eval:
            rng = np.random.default_rng(EVAL_SEEDS[split])
            self._eval[split] = self._draw(split, total, rng)
        images, labels = self._eval[split]
        chosen = torch.tensor(spread(total, at_most))
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
            f"{useless[0]}: {config.name} has its own splits, classes and pixels; leave it out"
        )
