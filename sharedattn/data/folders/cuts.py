"""Cut splits from the training images: seeded, and in proportion to each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sharedattn.errors import InputError

Indices = npt.NDArray[np.int64]


def cut_by_class(
    labels: Indices, shares: Mapping[str, float], classes: Sequence[str], *, seed: int
) -> tuple[Indices, dict[str, Indices]]:
    """Cut splits off some images: a share of every class each, and at least one image of each.

    Args:
        labels: (n,), the class of each image.
        shares: share of each split to cut, by name, in (0, 1); less than 1 in total.
        classes: names by number, for messages.
        seed: seed of the choice.

    Returns:
        Indices of the remaining images, and those of each split, ascending.

    Raises:
        InputError: a class has too few images for every split; the message names it.
    """
    rng = np.random.default_rng(seed)
    cuts: dict[str, list[Indices]] = {name: [] for name in shares}
    left: list[Indices] = []
    too_few: list[str] = []
    for label in np.unique(labels):
        order = rng.permutation(np.flatnonzero(labels == label))
        total = len(order)
        for name, share in shares.items():
            count = max(1, round(share * total))
            cuts[name].append(order[:count])
            order = order[count:]
        if not len(order):
            too_few.append(f"{classes[label]} ({total})")
        left.append(order)
    if too_few:
        more = f" and {len(too_few) - 10:,} more" if len(too_few) > 10 else ""
        raise InputError(
            f"`--data`: these classes have too few training images to give some to "
            f"{' and '.join(shares)}: {', '.join(too_few[:10])}{more}; add images, "
            f"give the data a folder of each split, or cut a smaller share"
        )

    def joined(parts: list[Indices]) -> Indices:
        return np.sort(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)

    return joined(left), {name: joined(parts) for name, parts in cuts.items()}
