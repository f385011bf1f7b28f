"""What a data set must give to training, evaluation and the database."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

import torch

from sharedattn.errors import InputError
from sharedattn.ranks import ALONE, Rank

if TYPE_CHECKING:
    from sharedattn.recipe import Recipe

Split = Literal["validation", "test"]
Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which data, at which size, cut how; small, picklable, and enough to open it anywhere.

    Attributes:
        name: `digit-pairs`, a folder, or a name that timm's `create_dataset` opens
            with random access (`torch/cifar10`, `hfds/...`).
        root: folder that holds a named data set, which a `torch/` one must have; None: the
            library's own default.
        image_size: pixels on a side of the images given out; None: the data's own.
        in_chans: image channels, 1 or 3; None: the data's own.
        val_fraction: share of the training images cut off as validation where the data has none.
        split_seed: seed of that cut.
    """

    name: str
    root: str | None = None
    image_size: int | None = None
    in_chans: int | None = None
    val_fraction: float = 0.1
    split_seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of every field."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> DataConfig:
        """The inverse of `to_json`; fields left out take their defaults.

        Raises:
            InputError: an unknown field, a missing `name`, or a value of another type.
        """
        types = {f.name: f.type for f in fields(cls)}
        if not isinstance(document, dict) or not set(document) <= set(types):
            unknown = (
                sorted(set(document) - set(types)) if isinstance(document, dict) else document
            )
            raise InputError(
                f"`data has fields of {', '.join(sorted(types))}` must hold, but got {unknown!r}"
            )
        if "name" not in document:
            raise InputError("`data has a name` must hold; say which data set or folder it is")
        hints = get_type_hints(cls)
        for name, value in document.items():
            if isinstance(value, bool) or not isinstance(value, hints[name]):
                raise InputError(f"`{name}` of data is {types[name]}, but got {value!r}")
        return cls(**document)


class DataSource(ABC):
    """Images with labels, in the splits train, validation and test.

    Training batches depend on (seed, epoch) alone; evaluation batches on nothing.

    Attributes:
        name: name of the data set, for people.
        image_size: pixels on a side.
        in_chans: image channels.
        num_classes: classes of the label.
        identity: what the data is, as a JSON document; its hash is the fingerprint.
    """

    name: str
    image_size: int
    in_chans: int
    num_classes: int
    identity: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """sha256 of `identity`, in hexadecimal."""
        canonical = json.dumps(self.identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @abstractmethod
    def num_images(self, split: Literal["train", "validation", "test"]) -> int:
        """Images of a split; for `train`, of one epoch."""

    def class_counts(
        self, split: Literal["train", "validation", "test"]
    ) -> tuple[int, ...] | None:
        """Images of each class in a split, by label; None: not known."""
        return None

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
        """One epoch of augmented training batches, the last incomplete one left out.

        Args:
            recipe: gives the batch size and the augmentation.
            seed: seed of the training.
            epoch: number of the epoch, from 0; each has its own order and augmentation.
            device: where the batches are put.
            rank: whose share of each batch is given out; it divides the batch size, and where
                images are mixed a share is even.

        Yields:
            Images (B, C, Y, X), float, and labels (B,), int64, or (B, classes) where mixed.
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
        """Images of a split once, in a fixed order.

        Args:
            split: which one.
            batch_size: images of a batch; the last may have fewer.
            device: where the batches are put.
            at_most: so many images, spread evenly over the split; None: all of them.
            rank: whose batches are given out.

        Yields:
            Images (B, C, Y, X), float, and labels (B,), int64.
        """


def spread(total: int, at_most: int | None) -> Sequence[int]:
    """Numbers below `total`, at most so many, evenly spread: files often lie sorted by class."""
    count = total if at_most is None else min(at_most, total)
    return range(total) if count == total else [i * total // count for i in range(count)]


def hash_files(paths: list[Path], root: Path, *, with_contents: bool) -> str:
    """sha256 over the sorted (relative path, size) of files, and their contents when asked."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
        if with_contents:
            digest.update(path.read_bytes())
    return digest.hexdigest()
