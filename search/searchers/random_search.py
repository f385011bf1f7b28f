"""Random search: uniform over the legal placements inside the budget."""

from __future__ import annotations

from typing import ClassVar

from sharedattn.search.searchers.base import PastTrial, Proposal, Searcher


class RandomSearcher(Searcher):
    """Draws every proposal uniformly; the control for every other searcher."""

    name: ClassVar[str] = "random"

    def propose(self, number: int, attempt: int) -> Proposal:
        return Proposal(placement=self.space.sample(self.generator(number, attempt)))

    def begin(self, trial: PastTrial) -> None:
        pass

    def finish(self, trial: PastTrial) -> None:
        pass
