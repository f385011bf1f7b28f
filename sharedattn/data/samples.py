"""Labelled images, however they are stored, and their splits."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sharedattn.data.folders.cuts import cut_by_class
from sharedattn.data.folders.decode import read_image
from sharedattn.data.folders.listing import SPLITS
from sharedattn.data.source import DataConfig, SplitName
from sharedattn.errors import InputError

Indices = npt.NDArray[np.int64]

HASH_CONTENTS_BELOW_BYTES = 256 * 2**20


class Samples(ABC):
    """Images with labels, by index.

    Attributes:
        labels: (n,), int64, the class of each image, by which splits are cut; 0 for images whose
            label is no class.
    """

    labels: Indices

    def label(self, index: int) -> Any:
        """The label of an image: its class, unless the data has others."""
        return int(self.labels[index])

    @abstractmethod
    def read(self, index: int, mode: str) -> Image.Image:
        """Decode one image.

        Args:
            index: index of the image.
            mode: Pillow's mode of the result, `RGB` or `L`.

        Raises:
            ImageReadError: the image cannot be read; another never replaces it.
        """


@dataclass(frozen=True, slots=True)
class FileSamples(Samples):
    """Images that are files of their own.

    Attributes:
        root: the folder of the files.
        paths: paths below `root`.
        labels: as in `Samples`.
    """

    root: Path
    paths: Sequence[str]
    labels: Indices

    def read(self, index: int, mode: str) -> Image.Image:
        return read_image(self.root / self.paths[index], mode)


@dataclass(frozen=True, slots=True)
class Part:
    """The images of one split.

    Attributes:
        samples: the images of the data set.
        indices: indices of this split's images, ascending.
    """

    samples: Samples
    indices: Indices

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Indices:
        """(n,), int64, the class of each image of the split."""
        return self.samples.labels[self.indices]

    def class_counts(self, num_classes: int) -> tuple[int, ...]:
        """Images of each class, by number."""
        return tuple(np.bincount(self.labels, minlength=num_classes).tolist())

    def read(self, index: int, mode: str) -> tuple[Image.Image, Any]:
        """The image at an index of the split, and its label."""
        at = int(self.indices[index])
        return self.samples.read(at, mode), self.samples.label(at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A data set with fixed splits.

    Attributes:
        parts: the splits; `test` may be missing.
        class_names: names by number, or None if the data has none.
        num_classes: number of classes.
        origins: short description of where each split comes from.
        cuts: the splits that are cut from train.
        notes: remarks, such as on files that were left out, one sentence each.
        identity: computes the data's identity, without the transform, as a JSON document; slow.
        label_digest: a hash of labels that are no classes, or empty.
    """

    parts: dict[SplitName, Part]
    class_names: tuple[str, ...] | None
    num_classes: int
    origins: dict[SplitName, str]
    cuts: frozenset[SplitName]
    notes: tuple[str, ...]
    identity: Callable[[], dict[str, Any]]
    label_digest: str = ""


def with_cuts(
    given: dict[SplitName, Samples], config: DataConfig, classes: Sequence[str]
) -> tuple[dict[SplitName, Part], dict[SplitName, float]]:
    """The splits of the data, with missing ones cut from its training images.

    Args:
        given: the images of each existing split, `train` among them.
        config: gives the shares to cut.
        classes: names by number, for messages.

    Returns:
        The splits, and the share of each that was cut.

    Raises:
        InputError: a share that cuts or leaves nothing, or classes that are too small.
    """
    train = given["train"]
    shares: dict[str, float] = {}
    if config.test_fraction == 0.0:
        given = {split: samples for split, samples in given.items() if split != "test"}
    if "test" in given and config.test_fraction is not None:
        raise InputError(
            "`--test-split` cuts a test split from train, but the data has one; leave it out"
        )
    if "test" not in given and config.test_fraction != 0.0:
        shares["test"] = config.test_share
    if "validation" not in given:
        shares["validation"] = config.val_fraction
    if sum(shares.values()) >= 1.0:
        raise InputError(
            f"`--val-fraction` and `--test-split` cut {sum(shares.values()):g} of the training "
            f"images; leave some of them to train on"
        )
    left, cuts = cut_by_class(train.labels, shares, classes, seed=config.split_seed)
    parts = {split: Part(s, np.arange(len(s.labels))) for split, s in given.items()}
    parts["train"] = Part(train, left)
    parts |= {split: Part(train, cuts[split]) for split in SPLITS if split in cuts}
    empty = [split for split, part in parts.items() if not len(part)]
    if empty:
        raise InputError(f"`--data`: the {empty[0]} split has no images; add some, or its folder")
    return parts, {split: shares[split] for split in SPLITS if split in cuts}


def hash_members(files: Iterable[tuple[str, int, int]]) -> str:
    """sha256 over path, size in bytes and class of a split's images, in their order."""
    digest = hashlib.sha256()
    for path, size, label in files:
        digest.update(os.fsencode(path) + f"\0{size}\0{label}\0".encode())
    return digest.hexdigest()


def hash_contents(root: Path, paths: Sequence[str]) -> str:
    """sha256 over the contents of files, in their order."""
    digest = hashlib.sha256()
    for path in paths:
        with (root / path).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
