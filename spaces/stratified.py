"""Sampling by bins of MACs, so that cheap and expensive placements are drawn equally often.

Most uniform draws from a space would be deep, since deep stages have most choices: shallow
placements would hardly ever be trained, and too rarely measured to be compared.
"""

from __future__ import annotations

import random
from functools import cached_property
from itertools import pairwise

from sharedattn.placement import Placement
from sharedattn.spaces.budget import BudgetedSpace


class StratifiedSampler:
    """Draws placements from bins of equal width in MACs, uniformly within each bin.

    The bins cover `BudgetedSpace.macs_span`. They are disjoint, or neighbours share the value at
    their edge; both layouts are kept, since the draws of stored studies depend on them.

    Args:
        space: the space to draw from.
        num_bins: number of bins.
        shared_edges: whether neighbours share the value at their edge.

    Attributes:
        bins: least and most MACs of each bin.

    Raises:
        ValueError: `num_bins` is below 1.
    """

    def __init__(self, space: BudgetedSpace, num_bins: int, *, shared_edges: bool = False) -> None:
        if num_bins < 1:
            raise ValueError(f"`num_bins` is {num_bins}; give at least 1")
        self._space = space
        least, most = space.macs_span
        if shared_edges:
            width = (most - least) / num_bins
            edges = [least + round(i * width) for i in range(num_bins + 1)]
            self.bins = tuple(pairwise(edges))
        else:
            edges = [least + i * (most + 1 - least) // num_bins for i in range(num_bins + 1)]
            self.bins = tuple((low, high - 1) for low, high in pairwise(edges) if low < high)

    @cached_property
    def filled_bins(self) -> tuple[tuple[int, int], ...]:
        """The bins that have a member inside the budget."""
        return tuple(bin_ for bin_ in self.bins if self._space.num_in_macs_bin(*bin_))

    def sample(self, rng: random.Random) -> Placement:
        """Draw a placement; all bins that have a member are equally likely."""
        return self._space.sample_in_macs_bin(rng, *rng.choice(self.filled_bins))

    def sample_from(self, rng: random.Random, number: int) -> Placement:
        """Draw a placement of bin `number`, modulo the number of bins.

        If the bin has no member, the draw is uniform over all members inside the budget.
        """
        low, high = self.bins[number % len(self.bins)]
        if not self._space.num_in_macs_bin(low, high):
            return self._space.sample(rng)
        return self._space.sample_in_macs_bin(rng, low, high)

    def sample_many(self, rng: random.Random, count: int) -> list[Placement]:
        """Draw `count` distinct placements, as evenly from the bins as their members allow.

        Raises:
            InputError: fewer than `count` members are inside the budget.
        """
        bins = self.filled_bins
        sizes = [self._space.num_in_macs_bin(*bin_) for bin_ in bins]
        shares = [0] * len(sizes)
        for _ in range(min(count, sum(sizes))):
            # The bin with the fewest draws so far, among those that have members left.
            poorest = min(
                (i for i, size in enumerate(sizes) if shares[i] < size), key=shares.__getitem__
            )
            shares[poorest] += 1
        if sum(shares) < count:
            # Raises the space's own error.
            return self._space.sample_many(rng, count)
        return [
            placement
            for bin_, share in zip(bins, shares, strict=True)
            for placement in self._space.sample_many_in_macs_bin(rng, *bin_, share)
        ]
