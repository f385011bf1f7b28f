"""Micro-batches: a training batch in parts, whose gradients add up to those of the whole.

A loss that is the mean over the images of a part is weighted by the part's share of the batch, so
sums of gradients equal those of the whole batch up to rounding. What couples the images of a batch
differs: batch norms use the statistics of each part, and dropout and stochastic depth draw part by
part. Mixup and cutmix do not differ, since a batch is mixed before it is cut.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

ADVICE = (
    "lower `batch_size` of the recipe, set its `grad_checkpointing` or `amp: bfloat16`, or give "
    "the trial more of the GPU"
)


def parts_of(
    images: Tensor, labels: Tensor, num_parts: int
) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Cut a batch in parts of nearly equal size.

    Args:
        images: (B, C, Y, X).
        labels: (B,), or (B, classes) if mixed.
        num_parts: number of parts; with fewer images, one part per image.

    Yields:
        Images and labels of a part, and its share of the batch's images.
    """
    num_parts = min(num_parts, len(images))
    parts = zip(images.tensor_split(num_parts), labels.tensor_split(num_parts), strict=True)
    for part_images, part_labels in parts:
        yield part_images, part_labels, len(part_images) / len(images)


def out_of_memory(
    error: torch.OutOfMemoryError, num_images: int, num_parts: int
) -> torch.OutOfMemoryError:
    """The error of a training that memory does not suffice for, with what to do about it.

    Args:
        error: torch's error.
        num_images: number of images of the batch in this process.
        num_parts: number of parts that it was run in.
    """
    how = f"in {num_parts} parts" if num_parts > 1 else "as a whole"
    return torch.OutOfMemoryError(
        f"the device ran out of memory on a training batch of {num_images} images, run {how}; "
        f"{ADVICE}. torch says: {error}"
    )
