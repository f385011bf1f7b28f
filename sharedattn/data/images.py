"""Image data sets on disk: everything random-access that timm's `create_dataset` opens.

A folder holds `train/` with one folder per class, and beside it a validation split, a test split,
or both; a named data set (`torch/cifar10`, `hfds/...`) has what its library gives. A missing
validation split is cut from train, so that the search never sees the split that is tested last.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_dataset, create_loader
from timm.data.mixup import Mixup
from torch.utils.data import Dataset

from sharedattn.data.source import Batch, DataConfig, DataSource, Split, hash_files
from sharedattn.errors import InputError
from sharedattn.recipe import Recipe

SplitName = Literal["train", "validation", "test"]

DEFAULT_IMAGE_SIZE = 224
CROP_PCT = 0.9  # share of the resized image's side that the evaluation crop keeps
SMALL_IMAGE_SIZE = 64  # up to here the whole image is evaluated
HASH_CONTENTS_BELOW_BYTES = 256 * 2**20
_SPLIT_FOLDERS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_ITERABLE_PREFIXES = ("tfds/", "wds/", "hfids/")


class _Part(Dataset[Any]):
    """Some images of a data set, through a transform that timm's loader sets."""

    def __init__(self, dataset: Any, indices: np.ndarray[Any, Any] | None = None) -> None:
        self.dataset = dataset
        self.indices = np.arange(len(dataset)) if indices is None else indices

    @property
    def transform(self) -> Any:
        return self.dataset.transform

    @transform.setter
    def transform(self, transform: Any) -> None:
        self.dataset.transform = transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]


class ImageData(DataSource):
    """A folder of images, or a data set known to torchvision or Hugging Face, on this disk.

    Args:
        config: which data, at which size and channels, and how validation is cut.

    Raises:
        InputError: no such folder or data set, no training images, or fewer than two classes.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.name = Path(config.name).name if self._is_folder else config.name
        self.image_size = config.image_size or DEFAULT_IMAGE_SIZE
        self.in_chans = config.in_chans or 3
        if self.in_chans not in (1, 3):
            raise InputError(f"`images have 1 or 3 channels` must hold, but got {self.in_chans}")
        if not 0.0 < config.val_fraction < 1.0:
            raise InputError(f"`0 < val_fraction < 1` must hold, but got {config.val_fraction}")
        self._parts = self._open_parts()
        if not len(self._parts["train"]) or not len(self._parts["validation"]):
            raise InputError(
                f"`data has training and validation images` must hold, but {config.name!r} has "
                f"{len(self._parts['train'])} and {len(self._parts['validation'])}; "
                f"change --val-fraction"
            )
        self.num_classes = _num_classes(self._parts["train"].dataset)
        if self.num_classes < 2:
            raise InputError(
                f"`data has at least two classes` must hold, but {config.name!r} has "
                f"{self.num_classes}"
            )

    @property
    def _is_folder(self) -> bool:
        return Path(self.config.name).is_dir()

    def _open_parts(self) -> dict[SplitName, _Part]:
        """The three splits; validation and, where nothing else is there, test cut from train."""
        given: dict[SplitName, Any] = {
            split: dataset
            for split in ("train", "validation", "test")
            if (dataset := self._open_split(split)) is not None
        }
        if "train" not in given:
            raise InputError(
                f"`data has a training split` must hold, but {self.config.name!r} has none"
            )
        if set(given) == {"train", "validation"}:
            # Of two splits the held-out one is the test split, whatever its name.
            given["test"] = given.pop("validation")
        missing: list[SplitName] = [s for s in ("test", "validation") if s not in given]
        parts: dict[SplitName, _Part] = {s: _Part(d) for s, d in given.items()}
        order = np.random.default_rng(self.config.split_seed).permutation(len(given["train"]))
        cut = int(self.config.val_fraction * len(order))
        for split in missing:
            # A second instance, since evaluation and training transform differently.
            parts[split] = _Part(self._open_split("train"), np.sort(order[:cut]))
            order = order[cut:]
        parts["train"] = _Part(given["train"], np.sort(order))
        return parts

    def _open_split(self, split: SplitName) -> Any | None:
        """timm's data set of one split, or None where the data has no such split."""
        mode = "L" if self.in_chans == 1 else "RGB"
        if self._is_folder:
            root = Path(self.config.name)
            folder = next((root / n for n in _SPLIT_FOLDERS[split] if (root / n).is_dir()), None)
            has_splits = any((root / n).is_dir() for n in _SPLIT_FOLDERS["train"])
            if folder is None and (has_splits or split != "train"):
                return None
            return _create("", str(folder or root), "train", mode)
        if self.config.name.startswith(_ITERABLE_PREFIXES):
            raise InputError(
                f"`a data set gives random access to its images` must hold, but "
                f"{self.config.name!r} is a stream; use the hfds/ form or a folder"
            )
        if "/" not in self.config.name or not self.config.name.startswith(("torch/", "hfds/")):
            raise InputError(
                f"`data is digit-pairs, a folder, torch/NAME or hfds/NAME` must hold, "
                f"but got {self.config.name!r}, which is no folder here"
            )
        if self.config.name.startswith("torch/") and split == "test":
            return None
        try:
            return _create(self.config.name, self.config.root, split, mode)
        except (ValueError, KeyError):
            # Hugging Face raises ValueError for a split that the data set does not have.
            if split == "train":
                raise
            return None

    @cached_property
    def identity(self) -> dict[str, Any]:  # type: ignore[override]
        return {
            "name": self.name,
            "version": 1,
            "files": {s: self._files_hash(part) for s, part in self._parts.items()},
            "images": {s: len(part) for s, part in self._parts.items()},
            "split_seed": self.config.split_seed,
            "val_fraction": self.config.val_fraction,
            "transform": {
                "image_size": self.image_size,
                "in_chans": self.in_chans,
                "crop_pct": self._crop_pct,
                "interpolation": "bicubic",
                "mean": list(self._mean),
                "std": list(self._std),
            },
        }

    def _files_hash(self, part: _Part) -> str:
        """Hash of the files behind a split: names, sizes, and contents below 256 MiB in all."""
        if not self._is_folder and self.config.name.startswith("hfds/"):
            return str(part.dataset.reader.dataset._fingerprint)
        if self._is_folder:
            root = Path(self.config.name)
            files = [Path(name) for name in part.dataset.filenames(absolute=True)]
        else:
            root = Path(self.config.root or ".")
            files = [path for path in root.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        return hash_files(files, root, with_contents=size < HASH_CONTENTS_BELOW_BYTES)

    @property
    def _crop_pct(self) -> float:
        return 1.0 if self.image_size <= SMALL_IMAGE_SIZE else CROP_PCT

    @property
    def _mean(self) -> tuple[float, ...]:
        return IMAGENET_DEFAULT_MEAN if self.in_chans == 3 else (0.5,)

    @property
    def _std(self) -> tuple[float, ...]:
        return IMAGENET_DEFAULT_STD if self.in_chans == 3 else (0.5,)

    def num_images(self, split: SplitName) -> int:
        return len(self._parts[split])

    def train_batches(
        self, recipe: Recipe, *, seed: int, epoch: int, device: torch.device
    ) -> Iterator[Batch]:
        # timm's transforms and the loader's shuffling draw from the three global generators.
        mixed_seed = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
        random.seed(mixed_seed)
        np.random.seed(mixed_seed)
        torch.manual_seed(mixed_seed)
        mixup = None
        if recipe.mixup or recipe.cutmix:
            mixup = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                label_smoothing=recipe.label_smoothing,
                num_classes=self.num_classes,
            )
        loader = self._loader(
            "train",
            batch_size=recipe.batch_size,
            is_training=True,
            scale=(recipe.crop_scale_min, 1.0),
            ratio=(3 / 4, 4 / 3) if recipe.crop_scale_min < 1.0 else (1.0, 1.0),
            hflip=recipe.hflip,
            color_jitter=recipe.color_jitter,
            auto_augment=recipe.auto_augment,
            re_prob=recipe.random_erasing,
            re_mode="pixel",
            num_workers=recipe.loader_workers,
        )
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            yield mixup(images, labels) if mixup is not None else (images, labels)

    def eval_batches(
        self, split: Split, *, batch_size: int, device: torch.device
    ) -> Iterator[Batch]:
        loader = self._loader(
            split, batch_size=batch_size, is_training=False, crop_pct=self._crop_pct, num_workers=0
        )
        for images, labels in loader:
            yield images.to(device), labels.to(device)

    def _loader(self, split: SplitName, **options: Any) -> Any:
        return create_loader(
            self._parts[split],
            input_size=(self.in_chans, self.image_size, self.image_size),
            interpolation="bicubic",
            mean=self._mean,
            std=self._std,
            use_prefetcher=False,
            persistent_workers=False,
            device=torch.device("cpu"),
            **options,
        )


def _create(name: str, root: str | None, split: str, mode: str) -> Any:
    try:
        return create_dataset(
            name, root=root, split=split, search_split=False, input_img_mode=mode
        )
    except (RuntimeError, FileNotFoundError, AssertionError, ImportError) as error:
        raise InputError(
            f"`data is on this disk and readable` must hold, but {name or root!r} is not: {error}"
        ) from error


def _num_classes(dataset: Any) -> int:
    for owner in (getattr(dataset, "reader", None), dataset):
        for attribute in ("class_to_idx", "classes"):
            classes = getattr(owner, attribute, None)
            if classes:
                return len(classes)
    features = dataset.reader.dataset.features
    label = next(f for f in features.values() if hasattr(f, "num_classes"))
    return int(label.num_classes)
