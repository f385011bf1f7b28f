"""The interface of data sets for training, evaluation and the database."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

import torch

from sharedattn.data.pixels import PixelChanges, Pixels
from sharedattn.distributed import ALONE, Rank
from sharedattn.errors import InputError
from sharedattn.hashing import document_key
from sharedattn.image_size import AnySize, ImageSize
from sharedattn.tasks import CLASSIFY, DENOISE, TASKS

if TYPE_CHECKING:
    from sharedattn.recipe import Recipe

Split = Literal["validation", "test"]
SplitName = Literal["train", "validation", "test"]
Batch = tuple[torch.Tensor, torch.Tensor]


EMBEDDED = {"digit-pairs": CLASSIFY, "digit-count": CLASSIFY, "digits": DENOISE}
"""The data sets that need no files, each with its task."""

LAYOUTS = {
    CLASSIFY: "train/ with one folder for each class, and val/ or test/ beside it",
    "detect": "annotations/instances_train.json in COCO's format, and its images in train/",
    "segment": "images/train/ and masks/train/, where each image has a mask of the same name",
    DENOISE: "images, in any folders below it",
}
"""What a folder has to hold to serve a task."""

READER = 2  # the current reader of folders and named data sets


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Configuration of a data set: small, picklable, and enough to open it on any machine.

    Attributes:
        name: `digit-pairs`, `digit-count` or `digits`, a folder, or a name that timm's
            `create_dataset` opens with random access (`torch/cifar10`, `hfds/...`).
        root: folder that holds a named data set, required for `torch/`; defaults to that of the
            library.
        image_size: pixels on a side of square images, or their height and width; defaults to the
            data's own.
        in_chans: image channels, 1 or 3; defaults to the data's own.
        val_fraction: share of the training images to cut off if there is no validation split.
        split_seed: seed of that cut.
        test_fraction: share of the training images to cut off if there is no test split; defaults
            to `val_fraction`; 0 for no test split.
        reader: reader of data on disk: 2 is this package's scan, 1 the reader before it.
        classes: names of a folder's classes in the order of their numbers; defaults to those of
            train, sorted by code point.
        left_out: unusable files of a folder, to be treated as absent.
        pixels: changes to `default_pixels`.
        task: what the data is read for: `classify`, `detect`, `segment` or `denoise`.

    Raises:
        InputError: a value is out of its range, or the data cannot serve the task.
    """

    name: str
    root: str | None = None
    image_size: AnySize | None = None
    in_chans: int | None = None
    val_fraction: float = 0.1
    split_seed: int = 0
    test_fraction: float | None = None
    reader: int = READER
    classes: tuple[str, ...] | None = None
    left_out: tuple[str, ...] = ()
    pixels: PixelChanges = PixelChanges()
    task: str = CLASSIFY

    def __post_init__(self) -> None:
        if self.reader not in (1, READER):
            raise InputError(
                f"`reader` of data is {self.reader!r}; this version reads data as 1 or {READER}"
            )
        if self.name in EMBEDDED:
            # It has one reader only.
            object.__setattr__(self, "reader", READER)
        _check_task(self)
        if self.image_size is not None:
            object.__setattr__(self, "image_size", ImageSize.of(self.image_size).given)
        if not 0.0 < self.val_fraction < 1.0:
            raise InputError(
                f"`--val-fraction` is {self.val_fraction:g}; give a share of the training images "
                f"above 0 and below 1"
            )
        if self.test_fraction is not None and not 0.0 <= self.test_fraction < 1.0:
            raise InputError(
                f"`--test-split` is {self.test_fraction:g}; give a share of the training images "
                f"above 0 and below 1, or none"
            )

    @property
    def is_folder(self) -> bool:
        """Whether `name` is a folder of images."""
        return self.name not in EMBEDDED and os.path.isdir(self.name)

    @property
    def test_share(self) -> float:
        """Share of the training images to cut off if there is no test split."""
        return self.val_fraction if self.test_fraction is None else self.test_fraction

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; later fields are omitted at their defaults."""
        document: dict[str, Any] = {name: getattr(self, name) for name in _FIRST_FIELDS}
        if self.image_size is not None:
            document["image_size"] = ImageSize.of(self.image_size).to_json()
        if self.name not in EMBEDDED:
            # Always included: a document without it means reader 1.
            document["reader"] = self.reader
        if self.test_fraction is not None:
            document["test_fraction"] = self.test_fraction
        if self.classes is not None:
            document["classes"] = list(self.classes)
        if self.left_out:
            document["left_out"] = list(self.left_out)
        if pixels := self.pixels.to_json():
            document["pixels"] = pixels
        if self.task != CLASSIFY:
            document["task"] = self.task
        return document

    @classmethod
    def from_json(cls, document: Any) -> DataConfig:
        """Invert `to_json`; omitted fields take their defaults, except that `reader` is 1.

        Raises:
            InputError: an unknown field, a missing `name`, or a value of another type.
        """
        types = {f.name: f.type for f in fields(cls)}
        if not isinstance(document, dict) or not set(document) <= set(types):
            unknown = (
                sorted(map(str, set(document) - set(types)))
                if isinstance(document, dict)
                else document
            )
            raise InputError(
                f"`data` has no field {unknown!r}; known are {', '.join(sorted(types))}"
            )
        if "name" not in document:
            raise InputError("`data` has no name; say which data set or folder it is")
        values = {"reader": 1, **document}
        for name in ("classes", "left_out"):
            if name in values:
                values[name] = _texts(name, values[name])
        if "pixels" in values:
            values["pixels"] = PixelChanges.from_json(values["pixels"])
        hints = get_type_hints(cls)
        # The size has a check of its own.
        plain = {*_FIRST_FIELDS, "reader", "test_fraction", "task"} - {"image_size"}
        for name in plain & set(values):
            value = values[name]
            is_number = isinstance(value, int) and hints[name] in (float, float | None)
            if isinstance(value, bool) or not (is_number or isinstance(value, hints[name])):
                raise InputError(f"`{name}` of data is {types[name]}, but got {value!r}")
        return cls(**values)


_FIRST_FIELDS = ("name", "root", "image_size", "in_chans", "val_fraction", "split_seed")


def _check_task(config: DataConfig) -> None:
    """Check that data of this kind can have labels of its task.

    Raises:
        InputError: there is no such task, or the data's labels are classes of whole images.
    """
    if config.task not in TASKS:
        raise InputError(f"`task` of data is {config.task!r}; it is one of {', '.join(TASKS)}")
    if (own := EMBEDDED.get(config.name, config.task)) != config.task and own != CLASSIFY:
        folder = f", or ./{config.name} for the folder" if Path(config.name).is_dir() else ""
        raise InputError(
            f"`--data` is the embedded {config.name}, which is to {own}, but this network is to "
            f"{config.task}; name other data{folder}"
        )
    if own != config.task or (config.task != CLASSIFY and config.reader != READER):
        raise InputError(
            f"`--data` is {config.name}, whose images are labelled as a whole, but this network "
            f"is to {config.task}; name a folder that holds {LAYOUTS[config.task]}"
        )


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) for text in value):
        raise InputError(f"`{name}` of data is a list of texts, but got {value!r}")
    return tuple(value)


class DataSource(ABC):
    """Images with labels, in the splits train, validation and test.

    Training batches depend on (seed, epoch) alone; evaluation batches are fixed.

    Attributes:
        config: configuration of the data.
        name: display name of the data set.
        image_size: height and width in pixels.
        in_chans: number of image channels.
        num_classes: number of classes.
        task: what it is for: `classify`, `detect`, `segment` or `denoise`.
        identity: the data's identity as a JSON document; its hash is the fingerprint.
    """

    config: DataConfig
    name: str
    image_size: ImageSize
    in_chans: int
    num_classes: int
    task: str = CLASSIFY
    identity: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """sha256 of `identity`, in hexadecimal."""
        return document_key(self.identity)

    @property
    def digest(self) -> str:
        """A hash of the data, as far as possible without reading every image."""
        return self.fingerprint

    @property
    def pixels(self) -> Pixels | None:
        """How images are resized and normalised, or None if they are not."""
        return None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes by number, or None if the data has none."""
        return None

    @property
    def origins(self) -> dict[SplitName, str]:
        """Short description of where each split comes from; may be empty."""
        return {}

    @property
    def cuts(self) -> frozenset[SplitName]:
        """The splits that are cut from the training images."""
        return frozenset()

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks, such as on files that were left out, one sentence each."""
        return ()

    def class_counts(self, split: SplitName) -> tuple[int, ...] | None:
        """Images of each class in a split, by number, or None if unknown."""
        return None

    def check_recipe(self, recipe: Recipe) -> None:  # noqa: B027  # most data augments nothing
        """Check that the recipe's augmentation can be applied.

        Raises:
            InputError: it cannot.
        """

    @abstractmethod
    def num_images(self, split: SplitName) -> int:
        """Number of images of a split, 0 for a missing one; for `train`, of one epoch."""

    @abstractmethod
    def train_batches(
        self,
        recipe: Recipe,
        *,
        seed: int,
        epoch: int,
        device: torch.device,
        rank: Rank = ALONE,
    ) -> Iterator[Batch]:
        """Yield one epoch of augmented training batches, without the last incomplete one.

        Targets are those of the task, on the images as they are: labels (B,), int64, or
        (B, classes) if mixed; masks (B, Y, X), uint8; boxes (B, most boxes of an image, 6), see
        `sharedattn.data.labels`; or, where nothing is labelled, numbers of the images (B,), int64.

        Args:
            recipe: gives the batch size and the augmentation.
            seed: seed of the training.
            epoch: number of the epoch, from 0; each has its own order and augmentation.
            device: device of the batches.
            rank: selects a process's share of each batch; the number of processes divides the
                batch size, and where images are mixed the share is even.

        Yields:
            Images (B, C, Y, X), float, and targets.
        """

    @abstractmethod
    def eval_batches(
        self,
        split: Split,
        *,
        batch_size: int,
        device: torch.device,
        at_most: int | None = None,
        rank: Rank = ALONE,
    ) -> Iterator[Batch]:
        """Yield the images of a split once, in a fixed order.

        Args:
            split: the split.
            batch_size: number of images per batch; the last may have fewer.
            device: device of the batches.
            at_most: number of images, spread evenly over the split, or None for all of them.
            rank: selects the batches of one process.

        Yields:
            Images (B, C, Y, X), float, and targets as of `train_batches`, never mixed.
        """


def spread(total: int, at_most: int | None) -> Sequence[int]:
    """At most `at_most` evenly spread indices below `total`, since files are often sorted."""
    count = total if at_most is None else min(at_most, total)
    return range(total) if count == total else [i * total // count for i in range(count)]


def hash_files(paths: list[Path], root: Path, *, with_contents: bool) -> str:
    """sha256 over the sorted (relative path, size) of files, and optionally their contents."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
        if with_contents:
            digest.update(path.read_bytes())
    return digest.hexdigest()
