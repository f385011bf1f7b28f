"""Load batches of images in worker processes that last for a whole training.

Workers decode and augment, and return 8-bit pixels, a quarter of the bytes of floats; the training
process normalises them on its device. Workers stay from epoch to epoch, and start on the next
epoch while the last one is still being consumed. Augmentation depends on the image, the seed and
the epoch alone, so the number of workers changes no result.
"""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from timm.data.random_erasing import RandomErasing
from torch.utils.data import DataLoader, Dataset, get_worker_info

from sharedattn.data.folders.decode import ImageReadError
from sharedattn.data.pixels import Pixels
from sharedattn.data.source import SplitName
from sharedattn.hashing import derived_seed

K = TypeVar("K")

# Forked workers start at once and share what is loaded. The default in a spawned trial process is
# to spawn, and each worker would import torch again, for seconds.
_CONTEXT = "fork" if sys.platform == "linux" else None
_NORMALISED_AT_ONCE = 2**17  # numbers, half a megabyte


class Item(NamedTuple):
    """A request for one image.

    Attributes:
        split: split of the image.
        number: number of the image in the split.
        entropy: seed of its augmentation, or None for no augmentation.
    """

    split: SplitName
    number: int
    entropy: tuple[int, ...] | None = None


class Patch(NamedTuple):
    """A rectangle of an image that random erasing fills, after the image is normalised.

    Attributes:
        top: first row.
        left: first column.
        values: (C, rows, columns).
    """

    top: int
    left: int
    values: torch.Tensor


class Box(NamedTuple):
    """The place of a patch in a batch.

    Attributes:
        position: position of the image in the batch.
        top: first row.
        left: first column.
        rows: number of rows.
        columns: number of columns.
    """

    position: int
    top: int
    left: int
    rows: int
    columns: int


class RawBatch(NamedTuple):
    """A batch as a worker returns it.

    Attributes:
        images: (B, C, Y, X), uint8.
        labels: (B, ...), as the data source has them.
        boxes: the places that random erasing fills.
        fillings: the values of all boxes, concatenated; one tensor, since each tensor that a
            worker returns costs a file descriptor and at least one system call.
        error: why an image could not be read; the batch is then empty.
    """

    images: torch.Tensor
    labels: torch.Tensor
    boxes: list[Box]
    fillings: torch.Tensor
    error: str | None = None


_Sample = tuple[npt.NDArray[np.uint8], Any, Patch | None]


class ImageItems(Dataset[_Sample | ImageReadError]):
    """Images of some splits, transformed to one size.

    Args:
        read: returns the image of a split at an index, and its label.
        transform: timm's transform for its prefetcher, from a PIL image to (C, Y, X), uint8.
        erasing: probability of random erasing.
    """

    def __init__(
        self,
        read: Callable[[SplitName, int], tuple[Any, Any]],
        transform: Callable[[Any], Any],
        erasing: float = 0.0,
    ) -> None:
        self._read = read
        self._transform = transform
        self._erasing = (
            RandomErasing(erasing, mode="pixel", device="cpu") if erasing > 0.0 else None
        )

    def __getitem__(self, item: Item) -> _Sample | ImageReadError:
        try:
            image, label = self._read(item.split, item.number)
        except ImageReadError as error:
            # Raised where the batch is used: torch would wrap it into the worker's traceback.
            return error
        if item.entropy is None:
            return *self.transformed(image, label), None
        with seeded(*item.entropy):
            pixels, label = self.transformed(image, label)
            patch = None if self._erasing is None else _erased(self._erasing, pixels.shape)
        return pixels, label, patch

    def transformed(self, image: Any, label: Any) -> tuple[npt.NDArray[np.uint8], Any]:
        """Pixels (C, Y, X) of the network's size, and the label on them."""
        return np.asarray(self._transform(image)), label

    def joined(self, labels: Sequence[Any]) -> torch.Tensor:
        """The labels of a batch, (B, ...)."""
        return torch.tensor(labels, dtype=torch.int64)


class BatchLoader:
    """Draws batches of items in workers that outlast the batches.

    Args:
        items: the images.
        num_workers: number of processes, or 0 to load in this one.
        pin_memory: whether to pin batches for copies to a GPU.
    """

    def __init__(self, items: ImageItems, *, num_workers: int, pin_memory: bool) -> None:
        self._wanted = _Wanted()
        self._loader = DataLoader(
            items,
            batch_sampler=self._wanted,
            num_workers=num_workers,
            multiprocessing_context=_CONTEXT if num_workers else None,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            collate_fn=partial(_collated, join=items.joined),
            worker_init_fn=_begin_worker,
            generator=torch.Generator(),  # else each pass draws from torch's global one
        )
        self._batches: Iterator[RawBatch] | None = None
        self._next: object = None

    def batches(
        self, what: K, wanted: Callable[[K], Iterable[list[Item]]], count: int, after: K | None
    ) -> Iterator[RawBatch]:
        """Yield batches, and prefetch those that will probably be asked for next.

        Args:
            what: identifies the batches.
            wanted: returns the batches for an identifier, followed by later ones, perhaps without
                end.
            count: number of batches that `what` identifies.
            after: identifies the batches that follow in `wanted`, or None if none do.

        Raises:
            ImageReadError: an image cannot be read; the message names it.
        """
        if self._next != what or self._batches is None:
            self._wanted.batches = wanted(what)
            self._batches = iter(self._loader)
        # A caller that stops midway restarts from the first batch.
        self._next = None
        for _ in range(count):
            batch = next(self._batches)
            if batch.error is not None:
                raise ImageReadError(batch.error)
            yield batch
        self._next = after


class _Wanted:
    """The batches that a loader requests from its workers; reset before each pass."""

    batches: Iterable[list[Item]] = ()

    def __iter__(self) -> Iterator[list[Item]]:
        return iter(self.batches)


class Normaliser:
    """Normalises raw batches exactly as torchvision's ToTensor and Normalize.

    Args:
        pixels: mean and std to normalise by.
        device: device of the result.
    """

    def __init__(self, pixels: Pixels, device: torch.device) -> None:
        self._device = device
        self._mean, self._std = (
            torch.tensor(numbers, device=device).view(1, -1, 1, 1)
            for numbers in (pixels.mean, pixels.std)
        )

    def __call__(self, batch: RawBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, C, Y, X), float32, normalised and erased, and labels, on the device."""
        if self._device.type == "cpu":
            images = torch.from_numpy(self._normalised_here(batch.images.numpy()))
        else:
            images = batch.images.to(self._device, non_blocking=True).to(torch.float32)
            images = images.div_(255).sub_(self._mean).div_(self._std)
        if batch.boxes:
            self._fill(images, batch)
        return images, batch.labels.to(self._device, non_blocking=True)

    def _normalised_here(self, raw: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Normalise on a CPU, with equal arithmetic in half the time of torch.

        Working in parts keeps them in the cache, where whole passes would read memory each time;
        and torch's threads would busy-wait on the cores that the workers need.
        """
        mean, std = self._mean[0].numpy(), self._std[0].numpy()
        images = np.empty(raw.shape, dtype=np.float32)
        size = max(1, _NORMALISED_AT_ONCE // raw[0].size)
        for start in range(0, len(raw), size):
            part = images[start : start + size]
            np.divide(raw[start : start + size], np.float32(255), out=part, dtype=np.float32)
            part -= mean
            part /= std
        return images

    def _fill(self, images: torch.Tensor, batch: RawBatch) -> None:
        fillings = batch.fillings.to(self._device, non_blocking=True)
        start, num_channels = 0, images.shape[1]
        for box in batch.boxes:
            size = num_channels * box.rows * box.columns
            values = fillings[start : start + size].view(num_channels, box.rows, box.columns)
            rows = slice(box.top, box.top + box.rows)
            columns = slice(box.left, box.left + box.columns)
            images[box.position, :, rows, columns] = values
            start += size


@contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Seed the three global generators that timm draws from, and restore them afterwards.

    In a loader's worker nothing else draws from them, so they are not restored.
    """
    before = None
    if get_worker_info() is None:
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = derived_seed(*entropy)
    random.seed(seed)
    np.random.seed(seed)
    # Not torch.manual_seed, which also seeds the accelerators and so the network's dropout.
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        if before is not None:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_rng_state(before[2])


class _Recorder:
    """Stands in for the image that timm's random erasing would write to."""

    def __init__(self) -> None:
        self.written: tuple[Sequence[slice], torch.Tensor] | None = None

    def __setitem__(self, where: Sequence[slice], values: torch.Tensor) -> None:
        self.written = where, values


def _erased(erasing: RandomErasing, shape: tuple[int, ...]) -> Patch | None:
    """The patch that timm's random erasing would write to a normalised image of (C, Y, X)."""
    recorder = _Recorder()
    erasing._erase(recorder, *shape, torch.float32)
    if recorder.written is None:
        return None
    (_, rows, columns), values = recorder.written
    return Patch(rows.start, columns.start, values)


def _collated(
    samples: Sequence[_Sample | ImageReadError], join: Callable[[Sequence[Any]], torch.Tensor]
) -> RawBatch:
    read: list[_Sample] = []
    for sample in samples:
        if isinstance(sample, ImageReadError):
            nothing = torch.empty(0)
            return RawBatch(nothing, nothing, [], nothing, str(sample))
        read.append(sample)
    patches = [(position, patch) for position, (*_, patch) in enumerate(read) if patch is not None]
    return RawBatch(
        images=torch.from_numpy(np.stack([pixels for pixels, _, _ in read])),
        labels=join([label for _, label, _ in read]),
        boxes=[Box(at, p.top, p.left, *p.values.shape[1:]) for at, p in patches],
        fillings=torch.cat([p.values.flatten() for _, p in patches] or [torch.empty(0)]),
    )


def _begin_worker(_: int) -> None:
    # Pillow warns of damaged metadata and of large pictures, both of which are read anyway.
    warnings.filterwarnings("ignore", module="PIL")
