"""Image data sets on disk: folders, and data sets of torchvision and Hugging Face by name.

A folder holds `train/` with one folder per class, and beside it a validation split, a test split,
or both; a named data set (`torch/cifar10`, `hfds/...`) has the splits of its library. A missing
split is cut from train, so that the search never sees the split that is tested last.

timm's `create_loader` seeds augmentation by worker, so its batches depend on the number of
workers. Here timm gives the transforms, the order is drawn first, and each image seeds its own
augmentation.
"""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data import auto_augment, create_transform
from timm.data.mixup import Mixup

from sharedattn.data.folders.data import open_folder
from sharedattn.data.folders.reader_1 import open_reader_1
from sharedattn.data.loader import BatchLoader, ImageItems, Item, Normaliser, seeded
from sharedattn.data.named import open_named
from sharedattn.data.pixels import Pixels, default_pixels
from sharedattn.data.samples import FileSamples, Opened, Part
from sharedattn.data.source import Batch, DataConfig, DataSource, Split, SplitName, spread
from sharedattn.distributed import ALONE, Rank
from sharedattn.errors import InputError
from sharedattn.hashing import derived_seed
from sharedattn.image_size import ImageSize
from sharedattn.recipe import Recipe

DEFAULT_IMAGE_SIZE = 224
# Decoded images that a process keeps at most: those of 5,000 images of 64 x 64 pixels fit. Of more
# or larger images none are kept, since a part of them would save little.
KEPT_BYTES = 2**26
_ORDER, _AUGMENTATION, _MIXUP = range(3)  # the draws of an epoch, each with its own seeds


class _Epoch(NamedTuple):
    """One epoch of a training."""

    seed: int
    epoch: int


class KeptImages:
    """Decoded images that stay in memory, since small ones take longer to read than to train on.

    Every process has its own; no other receives them.

    Args:
        most_image_bytes: of the pixels of an image; larger ones are not kept.
    """

    def __init__(self, most_image_bytes: int) -> None:
        self._most_image_bytes = most_image_bytes
        self._images: dict[tuple[SplitName, int], tuple[Image.Image, Any]] = {}

    def __reduce__(self) -> tuple[type[KeptImages], tuple[int]]:
        return KeptImages, (self._most_image_bytes,)

    def get(self, split: SplitName, index: int) -> tuple[Image.Image, Any] | None:
        """A copy of a kept image, with its label."""
        kept = self._images.get((split, index))
        return None if kept is None else (kept[0].copy(), kept[1])

    def keep(self, split: SplitName, index: int, image: Image.Image, label: Any) -> None:
        """Keep an image, if it is small enough."""
        if image.width * image.height * len(image.getbands()) <= self._most_image_bytes:
            self._images[split, index] = image.copy(), label


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads images for a loader's workers, in one mode."""

    parts: Mapping[SplitName, Part]
    mode: str
    kept: KeptImages

    def __call__(self, split: SplitName, index: int) -> tuple[Image.Image, Any]:
        if (kept := self.kept.get(split, index)) is not None:
            return kept
        image, label = self.parts[split].read(index, self.mode)
        self.kept.keep(split, index, image, label)
        return image, label


class ImageData(DataSource):
    """A folder of images, or a data set known to torchvision or Hugging Face, on this disk.

    Args:
        config: configuration of the data.

    Attributes:
        least_classes: number of classes that there have to be.

    Raises:
        InputError: no such folder or data set, no training images, fewer than two classes, or
            anything else that its reader refuses.
    """

    least_classes = 2

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.name = Path(config.name).name if config.is_folder else config.name
        self.image_size = ImageSize.of(config.image_size or DEFAULT_IMAGE_SIZE)
        self.in_chans = config.in_chans or 3
        if self.in_chans not in (1, 3):
            raise InputError(
                f"`in_chans` is {self.in_chans}, but images are read with 1 or 3 channels"
            )
        self._pixels = self._own_pixels()
        self._opened = self._open()
        self._parts = self._opened.parts
        self.num_classes = self._opened.num_classes
        if not len(self._parts["train"]) or not len(self._parts["validation"]):
            raise InputError(
                f"`--data` {config.name!r} has {len(self._parts['train'])} training and "
                f"{len(self._parts['validation'])} validation images; change --val-fraction"
            )
        if self.num_classes < self.least_classes:
            raise InputError(
                f"`--data` {config.name!r} has {self.num_classes} class; at least two are needed"
            )
        num_images = sum(len(part) for part in self._parts.values())
        self._kept = KeptImages(KEPT_BYTES // num_images)
        self._train_loader: tuple[Any, BatchLoader] | None = None
        self._eval_loader: tuple[Any, BatchLoader] | None = None

    def _own_pixels(self) -> Pixels:
        return default_pixels(self.image_size, self.in_chans).changed(self.config.pixels)

    def _open(self) -> Opened:
        config = self.config
        if config.reader == 1:
            return open_reader_1(config)
        return open_folder(config) if config.is_folder else open_named(config)

    @property
    def pixels(self) -> Pixels:
        return self._pixels

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return self._opened.class_names

    @property
    def origins(self) -> dict[SplitName, str]:
        return dict(self._opened.origins)

    @property
    def cuts(self) -> frozenset[SplitName]:
        return self._opened.cuts

    @property
    def notes(self) -> tuple[str, ...]:
        return self._opened.notes

    def class_counts(self, split: SplitName) -> tuple[int, ...] | None:
        return self._parts[split].class_counts(self.num_classes) if split in self._parts else None

    @cached_property
    def identity(self) -> dict[str, Any]:  # type: ignore[override]
        pixels = self._pixels.to_json()
        if self.config.reader == 1:
            # Documents from before crop modes could be chosen lack this field.
            del pixels["crop_mode"]
        size = self.image_size.to_json()
        transform = {"image_size": size, "in_chans": self.in_chans, **pixels}
        return {**self._opened.identity(), "transform": transform}

    @cached_property
    def digest(self) -> str:
        size = self.image_size.to_json()
        seen = hashlib.sha256(repr((size, self.in_chans, self._pixels)).encode())
        for split, part in self._parts.items():
            seen.update(f"{split} {len(part)}\0".encode())
            seen.update(part.labels.tobytes())
            if isinstance(part.samples, FileSamples):
                for index in part.indices:
                    path = part.samples.root / part.samples.paths[index]
                    seen.update(f"{part.samples.paths[index]!r} {path.stat().st_size}\0".encode())
        seen.update(self._opened.label_digest.encode())
        return seen.hexdigest()

    @property
    def _mode(self) -> str:
        return "L" if self.in_chans == 1 else "RGB"

    def num_images(self, split: SplitName) -> int:
        return len(self._parts[split]) if split in self._parts else 0

    def check_recipe(self, recipe: Recipe) -> None:
        # timm ignores a section without a number; its own errors are handled below.
        for section in (recipe.auto_augment or "").split("-")[1:]:
            if not re.fullmatch(r"[a-z]+\d[\d.]*", section):
                raise InputError(
                    f"`auto_augment` of the recipe is {recipe.auto_augment!r}, which timm refuses "
                    f"in part: {section!r} is no letters with a number; try rand-m9-mstd0.5-inc1"
                )
        # Magnitudes that an operation refuses only show when an image is augmented.
        image = Image.new(self._mode, (self.image_size.width, self.image_size.height))
        try:
            transform = self._train_transform(recipe)
            for draw in range(16):
                with seeded(draw):
                    transform(image)
        except (AssertionError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise InputError(
                f"`auto_augment` of the recipe is {recipe.auto_augment!r}, which timm refuses: "
                f"{str(error) or type(error).__name__}; try rand-m9-mstd0.5-inc1, or leave it out"
            ) from error

    def train_batches(
        self,
        recipe: Recipe,
        *,
        seed: int,
        epoch: int,
        device: torch.device,
        rank: Rank = ALONE,
    ) -> Iterator[Batch]:
        mixup = None
        if recipe.mixup or recipe.cutmix:
            mixup = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                label_smoothing=recipe.label_smoothing,
                num_classes=self.num_classes,
            )
        num_batches = len(self._parts["train"]) // recipe.batch_size

        def wanted(first: _Epoch) -> Iterator[list[Item]]:
            for number in range(first.epoch, max(recipe.epochs, first.epoch + 1)):
                yield from self._train_items(first.seed, number, recipe.batch_size, rank)

        loader = self._loader_of_train(recipe, num_batches, device, rank)
        normalise = Normaliser(self._pixels, device)
        following = _Epoch(seed, epoch + 1) if epoch + 1 < recipe.epochs else None
        batches = loader.batches(_Epoch(seed, epoch), wanted, num_batches, following)
        for step, raw in enumerate(batches):
            images, labels = normalise(raw)
            if mixup is not None:
                with seeded(seed, epoch, _MIXUP, step):
                    images, labels = mixup(images, labels)
            yield images, labels

    def eval_batches(
        self,
        split: Split,
        *,
        batch_size: int,
        device: torch.device,
        at_most: int | None = None,
        rank: Rank = ALONE,
    ) -> Iterator[Batch]:
        if split not in self._parts:
            return
        chosen = spread(len(self._parts[split]), at_most)
        batches = rank.shard_batches(
            [list(chosen[i : i + batch_size]) for i in range(0, len(chosen), batch_size)]
        )
        items = [[Item(split, index) for index in batch] for batch in batches]
        loader = self._loader_of_eval(len(items), device)
        normalise = Normaliser(self._pixels, device)
        for raw in loader.batches(split, lambda _: items, len(items), None):
            yield normalise(raw)

    def _train_items(
        self, seed: int, epoch: int, batch_size: int, rank: Rank
    ) -> Iterator[list[Item]]:
        """The images of each batch of an epoch for one process, with their seeds."""
        total = len(self._parts["train"])
        order = np.random.default_rng(derived_seed(seed, epoch, _ORDER)).permutation(total)
        share = rank.shard_positions(batch_size)
        for start in range(0, total - batch_size + 1, batch_size):
            batch = order[start : start + batch_size][share].tolist()
            yield [Item("train", i, (seed, epoch, _AUGMENTATION, i)) for i in batch]

    def _loader_of_train(
        self, recipe: Recipe, num_batches: int, device: torch.device, rank: Rank
    ) -> BatchLoader:
        num_workers = _num_workers(recipe.loader_workers, num_batches)
        # Everything that changes the batches or their workers.
        key = (recipe, num_workers, device, rank)
        if self._train_loader is None or self._train_loader[0] != key:
            self._train_loader = key, _loader(self._train_data(recipe), num_workers, device)
        return self._train_loader[1]

    def _loader_of_eval(self, num_batches: int, device: torch.device) -> BatchLoader:
        num_workers = _num_workers(None, num_batches)
        key = (num_workers, device)
        if self._eval_loader is None or self._eval_loader[0] != key:
            self._eval_loader = key, _loader(self._eval_data(), num_workers, device)
        return self._eval_loader[1]

    @property
    def _read(self) -> _Reader:
        return _Reader(self._parts, self._mode, self._kept)

    def _train_data(self, recipe: Recipe) -> ImageItems:
        return ImageItems(self._read, self._train_transform(recipe), recipe.random_erasing)

    def _eval_data(self) -> ImageItems:
        return ImageItems(self._read, self._eval_transform())

    def _eval_transform(self) -> Any:
        return self._transform(
            is_training=False,
            crop_pct=self._pixels.crop_pct,
            crop_mode=self._pixels.crop_mode,
        )

    def _train_transform(self, recipe: Recipe) -> Any:
        # Of width to height, so that a crop is no more distorted than a square one.
        own = self.image_size.width / self.image_size.height
        transform = self._transform(
            is_training=True,
            scale=(recipe.crop_scale_min, 1.0),
            ratio=(3 / 4 * own, 4 / 3 * own) if recipe.crop_scale_min < 1.0 else (own, own),
            hflip=recipe.hflip,
            color_jitter=recipe.color_jitter,
            auto_augment=recipe.auto_augment,
        )
        for operation in _operations(transform):
            if operation.aug_fn is auto_augment.posterize:
                operation.aug_fn = _posterize
        return transform

    def _transform(self, **options: Any) -> Any:
        """timm's transform to 8-bit pixels, which are normalised batch by batch."""
        return create_transform(
            input_size=(self.in_chans, *self.image_size),
            interpolation=self._pixels.interpolation,
            mean=self._pixels.mean,
            std=self._pixels.std,
            use_prefetcher=True,
            **options,
        )


def _num_workers(asked: int | None, num_batches: int) -> int:
    """Number of loading processes: as requested, but at most the cores of this slot.

    None in a daemon, such as a worker of a pool, which may not start processes.
    """
    if multiprocessing.current_process().daemon:
        return 0
    cores = min(torch.get_num_threads(), len(os.sched_getaffinity(0)))
    return min(cores if asked is None else asked, cores, num_batches)


def _loader(items: ImageItems, num_workers: int, device: torch.device) -> BatchLoader:
    return BatchLoader(items, num_workers=num_workers, pin_memory=device.type == "cuda")


def _operations(transform: Any) -> Iterator[Any]:
    """Yield every operation of the automatic augmentations in a timm transform."""
    for step in transform.transforms:
        yield from getattr(step, "ops", ())
        yield from itertools.chain.from_iterable(getattr(step, "policy", ()))


def _posterize(image: Image.Image, bits_to_keep: int, **_: Any) -> Image.Image:
    """timm's operation, which may ask for 0 bits; older Pillow gave black for that."""
    if bits_to_keep >= 8:
        return image
    if bits_to_keep < 1:
        return image.point(lambda _: 0)
    return ImageOps.posterize(image, bits_to_keep)
