"""The members nearest to a member, for a proposal that was made before.

The distance is that of `sharedattn.spaces.repair`: the number of attributes that differ, position
by position. Ties go to the member whose MACs are closest, then to the first in symbol order.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from sharedattn.placement import Placement
from sharedattn.spaces.automaton import Path, pad
from sharedattn.spaces.encoding import Encoding
from sharedattn.spaces.pricing import macs_of
from sharedattn.spaces.repair import difference
from sharedattn.spaces.stages.language import symbol_key
from sharedattn.spaces.variation import Variation

MAX_LISTED = 8192
"""Most members of a space that is searched whole."""
MAX_RINGS = 3
"""Edits from the member within which a larger space is searched."""


class NearestMembers:
    """Finds the members inside the budget nearest to one of them.

    Args:
        encoding: the encoding of the space inside its budget.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._counted = encoding.counted
        self._variation = Variation(encoding)
        self._depths = self._counted.space.automaton.depths

    def of(self, placement: Placement) -> Iterator[Placement]:
        """Yield other members, the nearest first.

        A space of up to `MAX_LISTED` members is yielded whole. A larger one is yielded edit by
        edit (see `Variation.neighbours`): first what one edit reaches, the nearest first, then
        what two reach, and so on up to `MAX_RINGS`.
        """
        if self._counted.in_budget <= MAX_LISTED:
            yield from self._ordered([p for p in self._members if p != placement], placement)
            return
        reached, ring = {placement}, [placement]
        for _ in range(MAX_RINGS):
            found = dict.fromkeys(n for member in ring for n in self._variation.neighbours(member))
            ring = self._ordered([p for p in found if p not in reached], placement)
            reached.update(ring)
            yield from ring

    @cached_property
    def _members(self) -> tuple[Placement, ...]:
        return tuple(self._counted.enumerate())

    def _ordered(self, members: list[Placement], placement: Placement) -> list[Placement]:
        path = self._path(placement)
        macs = self._macs(path)

        def key(member: Placement) -> tuple[int, int, list[tuple[int, ...]]]:
            other = self._path(member)
            distance = sum(map(difference, path, other))
            return distance, abs(self._macs(other) - macs), [symbol_key(s) for s in other]

        return sorted(members, key=key)

    def _path(self, placement: Placement) -> Path:
        return pad(placement.stages, self._depths)

    def _macs(self, path: Path) -> int:
        cost = self._counted.priced.member_cost(path)
        assert cost is not None
        return macs_of(cost)
