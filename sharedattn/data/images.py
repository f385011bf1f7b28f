"""Image data sets on disk: everything random-access that timm's `create_dataset` opens.

A folder holds `train/` with one folder per class, and beside it a validation split, a test split,
or both; a named data set (`torch/cifar10`, `hfds/...`) has what its library gives. A missing
validation split is cut from train, so that the search never sees the split that is tested last.

timm's `create_loader` seeds augmentation by worker, so its batches follow the number of workers.
Here timm gives the transforms, the order is drawn first, and each image seeds its augmentation.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_dataset, create_transform
from timm.data.mixup import Mixup
from torch.utils.data import DataLoader, Dataset

from sharedattn.data.source import Batch, DataConfig, DataSource, Split, hash_files, spread
from sharedattn.errors import InputError
from sharedattn.ranks import ALONE, Rank
from sharedattn.recipe import Recipe
from sharedattn.seeds import derived_seed

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
_TORCH_NAMES = ("cifar10", "cifar100", "mnist", "kmnist", "fashion_mnist", "qmnist")
_ORDER, _AUGMENTATION, _MIXUP = range(3)  # what is drawn for an epoch, each from its own seeds


@contextmanager
def _seeded(*entropy: int) -> Iterator[None]:
    """Seed the three global generators that timm draws from, and put them back afterwards."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = derived_seed(*entropy)
    random.seed(seed)
    np.random.seed(seed)
    # Not torch.manual_seed, which also seeds the accelerators and so the network's dropout.
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


class _Part:
    """Some images of a data set, as PIL images of one mode, with their labels."""

    def __init__(
        self, dataset: Any, mode: str, indices: np.ndarray[Any, Any] | None = None
    ) -> None:
        self.dataset = dataset
        self.mode = mode
        self.indices = np.arange(len(dataset)) if indices is None else indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self.dataset[int(self.indices[index])]
        return image.convert(self.mode), label


class _Transformed(Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, part: _Part, transform: Callable[[Any], torch.Tensor]) -> None:
        self.part = part
        self.transform = transform

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, label = self.part[index]
        return self.transform(image), label


class _Augmented(_Transformed):
    """One epoch's images; the augmentation of each depends on (seed, epoch, index) alone."""

    def __init__(
        self, part: _Part, transform: Callable[[Any], torch.Tensor], *, seed: int, epoch: int
    ) -> None:
        super().__init__(part, transform)
        self.seed = seed
        self.epoch = epoch

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with _seeded(self.seed, self.epoch, _AUGMENTATION, index):
            return super().__getitem__(index)


class ImageData(DataSource):
    """A folder of images, or a data set known to torchvision or Hugging Face, on this disk.

    Args:
        config: which data, at which size and channels, and how validation is cut.

    Raises:
        InputError: no such folder or data set, no training images, fewer than two classes, or a
            class that the training split lacks.
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
        train = self._open_split("train")
        if train is None:
            raise InputError(
                f"`data has a training split` must hold, but {self.config.name!r} has none"
            )
        given: dict[SplitName, Any] = {"train": train}
        for split in ("validation", "test"):
            if (dataset := self._open_split(split, train)) is not None:
                given[split] = dataset
        if set(given) == {"train", "validation"}:
            # Of two splits the held-out one is the test split, whatever its name.
            given["test"] = given.pop("validation")
        missing: list[SplitName] = [s for s in ("test", "validation") if s not in given]
        parts = {s: _Part(d, self._mode) for s, d in given.items()}
        order = np.random.default_rng(self.config.split_seed).permutation(len(train))
        cut = int(self.config.val_fraction * len(order))
        for split in missing:
            parts[split] = _Part(train, self._mode, np.sort(order[:cut]))
            order = order[cut:]
        parts["train"] = _Part(train, self._mode, np.sort(order))
        return parts

    def _open_split(self, split: SplitName, train: Any = None) -> Any | None:
        """timm's data set of one split, or None where the data has no such split.

        Args:
            split: which one.
            train: the training split, whose numbering of the classes the others follow.
        """
        if self._is_folder:
            root = Path(self.config.name)
            folder = next((root / n for n in _SPLIT_FOLDERS[split] if (root / n).is_dir()), None)
            has_splits = any(
                (root / n).is_dir() for names in _SPLIT_FOLDERS.values() for n in names
            )
            if folder is None and (has_splits or split != "train"):
                return None
            return _create_folder(folder or root, self._mode, train)
        if self.config.name.startswith(_ITERABLE_PREFIXES):
            raise InputError(
                f"`a data set gives random access to its images` must hold, but "
                f"{self.config.name!r} is a stream; use the hfds/ form or a folder"
            )
        library, _, name = self.config.name.partition("/")
        if library not in ("torch", "hfds") or not name:
            raise InputError(
                f"`data is digit-pairs, a folder, torch/NAME or hfds/NAME` must hold, "
                f"but got {self.config.name!r}, which is no folder here"
            )
        if library == "torch":
            if name not in _TORCH_NAMES:
                raise InputError(
                    f"`torch/NAME is one of {', '.join(_TORCH_NAMES)}` must hold, but got "
                    f"{name!r}; give its folder of images instead"
                )
            if self.config.root is None:
                raise InputError(
                    f"`a torch/ data set has a root` must hold, but {self.config.name!r} has "
                    f"none; name the folder that it lies in"
                )
            if split == "test":
                return None
        try:
            return _create(self.config.name, self.config.root, split, self._mode)
        except (ValueError, KeyError):
            # Hugging Face raises ValueError for a split that the data set does not have.
            if split == "train":
                raise
            return None

    @cached_property
    def identity(self) -> dict[str, Any]:  # type: ignore[override]
        # A folder's own name is no identity: a moved or renamed copy holds the same data.
        name = {} if self._is_folder else {"name": self.name}
        return {
            **name,
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
            root = _torch_folder(part.dataset)
            files = [path for path in root.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        return hash_files(files, root, with_contents=size < HASH_CONTENTS_BELOW_BYTES)

    @property
    def _mode(self) -> str:
        return "L" if self.in_chans == 1 else "RGB"

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
        transform = self._transform(
            is_training=True,
            scale=(recipe.crop_scale_min, 1.0),
            ratio=(3 / 4, 4 / 3) if recipe.crop_scale_min < 1.0 else (1.0, 1.0),
            hflip=recipe.hflip,
            color_jitter=recipe.color_jitter,
            auto_augment=recipe.auto_augment,
            re_prob=recipe.random_erasing,
            re_mode="pixel",
        )
        dataset = _Augmented(self._parts["train"], transform, seed=seed, epoch=epoch)
        order = np.random.default_rng(derived_seed(seed, epoch, _ORDER)).permutation(len(dataset))
        num_batches = len(order) // recipe.batch_size
        batches = order[: num_batches * recipe.batch_size].reshape(num_batches, recipe.batch_size)
        loader = DataLoader(
            dataset,
            batch_sampler=batches[:, rank.positions(recipe.batch_size)].tolist(),
            num_workers=recipe.loader_workers,
            generator=torch.Generator(),  # else each pass draws from torch's global one
        )
        for step, (images, labels) in enumerate(loader):
            images, labels = images.to(device), labels.to(device)
            if mixup is not None:
                with _seeded(seed, epoch, _MIXUP, step):
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
        transform = self._transform(is_training=False, crop_pct=self._crop_pct)
        images = _Transformed(self._parts[split], transform)
        chosen = spread(len(images), at_most)
        batches = [list(chosen[i : i + batch_size]) for i in range(0, len(chosen), batch_size)]
        loader = DataLoader(
            images,
            batch_sampler=rank.turns(batches),
            generator=torch.Generator(),
        )
        for images, labels in loader:
            yield images.to(device), labels.to(device)

    def _transform(self, **options: Any) -> Any:
        return create_transform(
            input_size=(self.in_chans, self.image_size, self.image_size),
            interpolation="bicubic",
            mean=self._mean,
            std=self._std,
            **options,
        )


def _create(name: str, root: str | None, split: str, mode: str, **options: Any) -> Any:
    try:
        return create_dataset(
            name, root=root, split=split, search_split=False, input_img_mode=mode, **options
        )
    except (RuntimeError, FileNotFoundError, AssertionError, ImportError) as error:
        raise InputError(
            f"`data is on this disk and readable` must hold, but {name or root!r} is not: {error}"
        ) from error


def _create_folder(folder: Path, mode: str, train: Any) -> Any:
    """A folder of classes, numbered as those of `train` where that is given."""
    dataset = _create("", str(folder), "train", mode)
    if train is None or dataset.reader.class_to_idx == train.reader.class_to_idx:
        return dataset
    unknown = sorted(set(dataset.reader.class_to_idx) - set(train.reader.class_to_idx))
    if unknown:
        raise InputError(
            f"`every class has training images` must hold, but {folder.name!r} also has "
            f"{', '.join(unknown)}; add training images or take the folder out"
        )
    return _create("", str(folder), "train", mode, class_map=train.reader.class_to_idx)


def _torch_folder(dataset: Any) -> Path:
    """The folder under the root that a data set of torchvision's has for itself."""
    if hasattr(dataset, "base_folder"):  # CIFAR
        return Path(dataset.root, dataset.base_folder)
    return Path(dataset.raw_folder).parent  # MNIST and its like


def _num_classes(dataset: Any) -> int:
    for owner in (getattr(dataset, "reader", None), dataset):
        for attribute in ("class_to_idx", "classes"):
            classes = getattr(owner, attribute, None)
            if classes:
                return len(classes)
    features = dataset.reader.dataset.features
    label = next(f for f in features.values() if hasattr(f, "num_classes"))
    return int(label.num_classes)
