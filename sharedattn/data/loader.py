"""Load batches of images by worker processes that last for a whole training.

Workers decode and augment, and hand over 8-bit pixels, a quarter of the bytes; the process that
trains normalises them, on its device. They stay from epoch to epoch, and begin with the next epoch
while the last one is still being used up. What an image becomes depends on the image, the seed and
the epoch alone, so the number of workers changes no result.
"""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
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

# Workers start at once and share what is loaded. A trial's own process was spawned, and would by
# default spawn them: each would import torch again, for seconds.
_CONTEXT = "fork" if sys.platform == "linux" else None
_NORMALISED_AT_ONCE = 2**17  # numbers, half a megabyte


class Item(NamedTuple):
    """One image that is asked of a worker.

    Attributes:
        split: whose image.
        number: of the image in the split.
        entropy: what its augmentation is drawn from; None: it is not augmented.
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
    """Where in a batch a patch goes.

    Attributes:
        position: of the image.
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
    """What a worker hands over.

    Attributes:
        images: (B, C, Y, X), uint8.
        labels: (B,), int64.
        boxes: what random erasing fills.
        fillings: the values of all boxes, one after the other; one tensor, since each that a
            worker hands over costs a file descriptor and a system call or more.
        error: why an image could not be read; the batch is empty then.
    """

    images: torch.Tensor
    labels: torch.Tensor
    boxes: list[Box]
    fillings: torch.Tensor
    error: str | None = None


_Sample = tuple[npt.NDArray[np.uint8], int, Patch | None]


class ImageItems(Dataset[_Sample | ImageReadError]):
    """Images of some splits, transformed to one size.

    Args:
        read: gives the image of a split at an index, and its label.
        transform: of timm, for its prefetcher: from a PIL image to (C, Y, X), uint8.
        erasing: the probability of random erasing.
    """

    def __init__(
        self,
        read: Callable[[SplitName, int], tuple[Any, int]],
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
            return np.asarray(self._transform(image)), label, None
        with seeded(*item.entropy):
            pixels = np.asarray(self._transform(image))
            patch = None if self._erasing is None else _erased(self._erasing, pixels.shape)
        return pixels, label, patch


class BatchLoader:
    """Draws batches of items by workers that retry_on_lost_connection the batches.

    Args:
        items: the images.
        num_workers: processes; 0: none, batches are made where they are used.
        pin_memory: whether batches are made ready for copies to a GPU.
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
            collate_fn=_collated,
            worker_init_fn=_begin_worker,
            generator=torch.Generator(),  # else each pass draws from torch's global one
        )
        self._batches: Iterator[RawBatch] | None = None
        self._next: object = None

    def batches(
        self, what: K, wanted: Callable[[K], Iterable[list[Item]]], count: int, after: K | None
    ) -> Iterator[RawBatch]:
        """Some batches, and then readiness for those that are likely asked for next.

        Args:
            what: names the batches.
            wanted: gives them by their name, and without end or to some end what comes after.
            count: of the batches that `what` names.
            after: names what follows them in `wanted`; None: nothing does.

        Raises:
            ImageReadError: an image cannot be read. Names it.
        """
        if self._next != what or self._batches is None:
            self._wanted.batches = wanted(what)
            self._batches = iter(self._loader)
        # Whoever leaves in the midst finds the beginning again.
        self._next = None
        for _ in range(count):
            batch = next(self._batches)
            if batch.error is not None:
                raise ImageReadError(batch.error)
            yield batch
        self._next = after


class _Wanted:
    """The batches that a loader asks its workers for; set anew before each pass."""

    batches: Iterable[list[Item]] = ()

    def __iter__(self) -> Iterator[list[Item]]:
        return iter(self.batches)


class Normaliser:
    """Makes network input of raw batches, equal to torchvision's ToTensor and Normalize.

    Args:
        pixels: whose mean and std.
        device: where to.
    """

    def __init__(self, pixels: Pixels, device: torch.device) -> None:
        self._device = device
        self._mean, self._std = (
            torch.tensor(numbers, device=device).view(1, -1, 1, 1)
            for numbers in (pixels.mean, pixels.std)
        )

    def __call__(self, batch: RawBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, C, Y, X), float32, normalised and erased, and labels (B,), on the device."""
        if self._device.type == "cpu":
            images = torch.from_numpy(self._normalised_here(batch.images.numpy()))
        else:
            images = batch.images.to(self._device, non_blocking=True).to(torch.float32)
            images = images.div_(255).sub_(self._mean).div_(self._std)
        if batch.boxes:
            self._fill(images, batch)
        return images, batch.labels.to(self._device, non_blocking=True)

    def _normalised_here(self, raw: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The images normalised on a CPU: the same arithmetic in half the time of torch's.

        A part of a batch fits the cache, where each pass over the whole would read it from memory;
        and torch's threads would wait actively, on the cores that the workers need.
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
    """Seed the three global generators that timm draws from, and put them back afterwards.

    In a loader's worker nobody else draws from them, and they are left as they are.
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
    """Takes the place of the image that timm's random erasing would write to."""

    def __init__(self) -> None:
        self.written: tuple[Sequence[slice], torch.Tensor] | None = None

    def __setitem__(self, where: Sequence[slice], values: torch.Tensor) -> None:
        self.written = where, values


def _erased(erasing: RandomErasing, shape: tuple[int, ...]) -> Patch | None:
    """What timm's random erasing would write to a normalised image of a shape (C, Y, X)."""
    recorder = _Recorder()
    erasing._erase(recorder, *shape, torch.float32)
    if recorder.written is None:
        return None
    (_, rows, columns), values = recorder.written
    return Patch(rows.start, columns.start, values)


def _collated(samples: Sequence[_Sample | ImageReadError]) -> RawBatch:
    read: list[_Sample] = []
    for sample in samples:
        if isinstance(sample, ImageReadError):
            nothing = torch.empty(0)
            return RawBatch(nothing, nothing, [], nothing, str(sample))
        read.append(sample)
    patches = [(position, patch) for position, (*_, patch) in enumerate(read) if patch is not None]
    return RawBatch(
        images=torch.from_numpy(np.stack([pixels for pixels, _, _ in read])),
        labels=torch.tensor([label for _, label, _ in read], dtype=torch.int64),
        boxes=[Box(at, p.top, p.left, *p.values.shape[1:]) for at, p in patches],
        fillings=torch.cat([p.values.flatten() for _, p in patches] or [torch.empty(0)]),
    )


def _begin_worker(_: int) -> None:
    # Damaged camera data and large pictures, which are read all the same.
    warnings.filterwarnings("ignore", module="PIL")
