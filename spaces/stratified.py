"""Sampling by strata of MACs: cheap and dear placements equally often.

Uniform over a space's placements, most draws would be deep, since deep stages have most choices:
shallow placements would hardly ever be trained, and measured too seldom to be compared.
"""

from __future__ import annotations

import random
from itertools import pairwise

from sharedattn.placement import Placement
from sharedattn.spaces.budget import BudgetedSpace


class StratifiedSampler:
    """Draws placements from bands of equal width in MACs, uniform within each.

    Args:
        space: what may be drawn.
        num_strata: bands that the range of MACs inside the budget is cut into.

    Attributes:
        bands: least and most MACs of each band that has a member inside the budget.

    Raises:
        ValueError: `num_strata` is below 1.
    """

    def __init__(self, space: BudgetedSpace, num_strata: int) -> None:
        if num_strata < 1:
            raise ValueError(f"`num_strata >= 1` must hold, but got {num_strata}")
        self._space = space
        least, most = space.macs_range
        if space.budget.max_macs is not None:
            most = min(most, space.budget.max_macs)
        edges = [least + i * (most + 1 - least) // num_strata for i in range(num_strata + 1)]
        self.bands = tuple(
            (low, high - 1)
            for low, high in pairwise(edges)
            if low < high and space.num_in_macs_band(low, high - 1)
        )

    def sample(self, rng: random.Random) -> Placement:
        """A placement, all bands being equally likely."""
        return self._space.sample_in_macs_band(rng, *rng.choice(self.bands))

    def sample_many(self, rng: random.Random, count: int) -> list[Placement]:
        """`count` placements that all differ, as evenly from the bands as their members allow.

        Raises:
            InputError: fewer than `count` members are inside the budget.
        """
        sizes = [self._space.num_in_macs_band(*band) for band in self.bands]
        shares = [0] * len(sizes)
        for _ in range(min(count, sum(sizes))):
            # The band that has given least so far, of those that have members left.
            poorest = min(
                (i for i, size in enumerate(sizes) if shares[i] < size), key=shares.__getitem__
            )
            shares[poorest] += 1
        if sum(shares) < count:
            # Refuses, in the words of the space.
            return self._space.sample_many(rng, count)
        return [
            placement
            for band, share in zip(self.bands, shares, strict=True)
            for placement in self._space.sample_many_in_macs_band(rng, *band, share)
        ]
