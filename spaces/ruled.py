"""The members of a stage that satisfy a rule on their layers, such as a bound on a cost."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from sharedattn.objectives import StageRule
from sharedattn.spaces.stages import StageLanguage, Symbol


class Ruled(StageLanguage):
    """The members of a language that a rule accepts: the product of the two automata."""

    def __init__(self, language: StageLanguage, rule: StageRule) -> None:
        """Restrict `language` to `rule`."""
        self.max_depth = language.max_depth
        self._language = language
        self._rule = rule

    @property
    def start(self) -> Hashable:
        """The state before the first layer."""
        return self._language.start, self._rule.start

    def moves(
        self, state: tuple[Hashable, Hashable] | None, position: int
    ) -> Mapping[Symbol, Hashable]:
        """The language's moves that the rule also allows."""
        if state is None:
            return self._language.moves(None, position)
        before, kept = state
        moves: dict[Symbol, Hashable] = {}
        for symbol, after in self._language.moves(before, position).items():
            if symbol is None:
                if self._rule.accepts(kept):
                    moves[None] = after
                continue
            following = self._rule.step(kept, position, symbol)
            if following is not None:
                moves[symbol] = after, following
        return moves
