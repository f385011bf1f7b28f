"""Random search: uniform over the legal placements inside the budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from sharedattn.search.searchers.base import PastTrial, Proposal, Searcher


class RandomSearcher(Searcher):
    """Draws every proposal uniformly, so mostly deep placements; see `StratifiedSearcher`."""

    name: ClassVar[str] = "random"

    def ask(self, number: int, attempt: int) -> Proposal:
        return Proposal(placement=self.space.sample(self.generator(number, attempt)))

    def accept(self, trial: PastTrial, parameters: Mapping[str, Any] | None = None) -> None:
        pass

    def tell(self, trial: PastTrial) -> None:
        pass
