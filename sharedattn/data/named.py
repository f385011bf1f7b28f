"""Data sets of torchvision or Hugging Face by name, opened by timm with random access."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timm.data import create_dataset

from sharedattn.data.folders.decode import ImageReadError, as_mode
from sharedattn.data.folders.listing import SPLITS
from sharedattn.data.samples import HASH_CONTENTS_BELOW_BYTES, Indices, Opened, Samples, with_cuts
from sharedattn.data.source import EMBEDDED, DataConfig, SplitName, hash_files
from sharedattn.errors import InputError

_ITERABLE_PREFIXES = ("tfds/", "wds/", "hfids/")
_TORCH_NAMES = ("cifar10", "cifar100", "mnist", "kmnist", "fashion_mnist", "qmnist")


class LibrarySamples(Samples):
    """The images of one split of a library's data set.

    Args:
        dataset: torchvision's data set, or timm's over `hfds/`.
        name: name of the data set, for messages.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        self.dataset = dataset
        self._name = name

    @cached_property
    def labels(self) -> Indices:  # type: ignore[override]
        reader = getattr(self.dataset, "reader", None)
        if reader is not None:
            return np.asarray(reader.dataset[reader.label_key], dtype=np.int64)
        return np.asarray(self.dataset.targets, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int, mode: str) -> Image.Image:
        try:
            reader = getattr(self.dataset, "reader", None)
            if reader is None:
                return as_mode(self.dataset[index][0], mode)
            # Not through timm's data set, which replaces a bad image by the next one.
            with Image.open(reader[index][0]) as image:
                return as_mode(image, mode)
        except ImageReadError as error:
            raise ImageReadError(f"image {index:,} of {self._name}: {error}") from None
        except Exception as error:
            raise ImageReadError(
                f"image {index:,} of {self._name}: {error or type(error).__name__}"
            ) from error


def open_named(config: DataConfig) -> Opened:
    """Open a named data set; missing splits are cut from train, class by class.

    Raises:
        InputError: no such data set on this disk, or as in `with_cuts`.
    """
    given = open_splits(config)
    names, num_classes = classes_of(given["train"].dataset)
    if config.classes is not None:
        raise InputError(
            f"`--classes` orders the classes of a folder, and {config.name} numbers its own; "
            f"leave it out"
        )
    known = names or tuple(str(number) for number in range(num_classes))
    parts, cuts = with_cuts(dict(given), config, known)
    origins: dict[SplitName, str] = {split: f"its {split} split" for split in given}
    origins |= {split: f"{share:.0%} of its train split" for split, share in cuts.items()}

    def identity() -> dict[str, Any]:
        return {
            "name": config.name,
            "reader": 2,
            "files": {split: files_hash(config.name, s.dataset) for split, s in given.items()},
            "images": {split: len(part) for split, part in parts.items()},
            "class_counts": {
                split: list(part.class_counts(num_classes)) for split, part in parts.items()
            },
            "split_seed": config.split_seed,
            "cuts": dict(cuts),
        }

    return Opened(
        parts=parts,
        class_names=names,
        num_classes=num_classes,
        origins={split: origins[split] for split in SPLITS if split in origins},
        cuts=frozenset(cuts),
        notes=(),
        identity=identity,
    )


def open_splits(config: DataConfig) -> dict[SplitName, LibrarySamples]:
    """Open the splits that a named data set provides, `train` among them.

    Raises:
        InputError: no such data set on this disk.
    """
    name, root = config.name, config.root
    if name.startswith(_ITERABLE_PREFIXES):
        raise InputError(
            f"`--data` {name} is a stream, which gives no random access to its images; use the "
            f"hfds/ form or a folder"
        )
    library, _, rest = name.partition("/")
    if library not in ("torch", "hfds") or not rest:
        embedded = "".join(f"{own}, " for own, task in EMBEDDED.items() if task == config.task)
        raise InputError(
            f"`--data` {name!r} is no folder here; give {embedded}a folder of images, torch/NAME "
            f"or hfds/NAME"
        )
    splits: tuple[SplitName, ...] = SPLITS
    if library == "torch":
        if rest not in _TORCH_NAMES:
            raise InputError(
                f"`--data` {name!r} is not known; torch/ has {', '.join(_TORCH_NAMES)}, and of "
                f"others give the folder of images"
            )
        if root is None:
            raise InputError(f"`--data-root` is missing; name the folder that {name!r} lies in")
        # torchvision's data sets have train and one held-out split.
        splits = ("train", "validation")
    given: dict[SplitName, LibrarySamples] = {}
    for split in splits:
        dataset = _create(name, root, split)
        if dataset is not None:
            given[split] = LibrarySamples(dataset, name)
    if library == "torch":
        given["test"] = given.pop("validation")
    return given


def classes_of(dataset: Any) -> tuple[tuple[str, ...] | None, int]:
    """Names of a data set's classes, or None, and their number."""
    for owner in (getattr(dataset, "reader", None), dataset):
        for attribute in ("class_to_idx", "classes"):
            classes = getattr(owner, attribute, None)
            if classes:
                return tuple(map(str, classes)), len(classes)
    features = dataset.reader.dataset.features
    label = next(f for f in features.values() if hasattr(f, "num_classes"))
    return tuple(label.names) or None, int(label.num_classes)


def files_hash(name: str, dataset: Any) -> str:
    """Hash of the files behind a split: names, sizes, and contents if below 256 MiB in total."""
    if name.startswith("hfds/"):
        return str(dataset.reader.dataset._fingerprint)
    root = torch_folder(dataset)
    files = [path for path in root.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    return hash_files(files, root, with_contents=size < HASH_CONTENTS_BELOW_BYTES)


def torch_folder(dataset: Any) -> Path:
    """The folder of a torchvision data set under its root."""
    if hasattr(dataset, "base_folder"):  # CIFAR
        return Path(dataset.root, dataset.base_folder)
    return Path(dataset.raw_folder).parent  # MNIST and its like


def _create(name: str, root: str | None, split: SplitName) -> Any | None:
    """timm's data set of one split, or None if the data has no such split."""
    try:
        return create_dataset(name, root=root, split=split, search_split=False)
    except (RuntimeError, FileNotFoundError, AssertionError, ImportError) as error:
        raise InputError(f"`--data` {name!r} cannot be read on this disk: {error}") from error
    except (ValueError, KeyError) as error:
        # Hugging Face raises ValueError for a split that the data set does not have.
        if split == "train":
            raise InputError(f"`--data` {name!r} has no training split: {error}") from error
        return None
