"""Stratified search: uniform over legal placements within each band of MACs, band by band."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from sharedattn.search.searchers.base import PastTrial, Proposal, Searcher
from sharedattn.spaces.stratified import StratifiedSampler

NUM_BANDS = 8


class StratifiedSearcher(Searcher):
    """Draws from each of 8 bands of MACs in turn; the control for other searchers.

    Uniform draws leave the cheap end of the front empty, since most placements are deep: a
    searcher that beats those may have learned nothing but that.
    """

    name: ClassVar[str] = "stratified"

    @cached_property
    def _bands(self) -> StratifiedSampler:
        return StratifiedSampler(self.space, NUM_BANDS)

    def ask(self, number: int, attempt: int) -> Proposal:
        # The first trial is the backbone as published, at the end of the last band as a rule.
        # A band whose members have all been tried gives way to the next.
        rng = self.generator(number, attempt)
        return Proposal(placement=self._bands.sample_from(rng, number + attempt - 1))

    def accept(self, trial: PastTrial, parameters: Mapping[str, Any] | None = None) -> None:
        pass

    def tell(self, trial: PastTrial) -> None:
        pass
