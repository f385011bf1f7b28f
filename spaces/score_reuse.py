"""Which members of a stage are legal: a less-attention layer needs scores that it may take."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from sharedattn.placement import Kind
from sharedattn.placement.shape import AttentionShape
from sharedattn.spaces.stages import StageLanguage, Symbol


class HandOver(StageLanguage):
    """Those members of a stage in which every less-attention layer has scores to take.

    A state is the language's own beside the groups of layers, in shifted windows, that have
    scores; `sharedattn.networks.legality.check_placement` has the rule.
    """

    def __init__(self, language: StageLanguage, attention: AttentionShape) -> None:
        """The legal members of `language` on a stage of these sizes."""
        self.max_depth = language.max_depth
        self._language = language
        self._attention = attention

    @property
    def start(self) -> Hashable:
        """No group has scores."""
        return self._language.start, frozenset[int]()

    def moves(
        self, state: tuple[Hashable, frozenset[int]] | None, position: int
    ) -> Mapping[Symbol, Hashable]:
        """The language's moves, without less-attention layers whose group has no scores."""
        if state is None:
            return self._language.moves(None, position)
        before, have_scores = state
        moves: dict[Symbol, Hashable] = {}
        for symbol, after in self._language.moves(before, position).items():
            if symbol is None:
                moves[None] = None
                continue
            group = self._attention.score_group(position)
            if symbol.kind is not Kind.LESS or group in have_scores:
                made = {group} if symbol.kind is Kind.VANILLA else frozenset[int]()
                moves[symbol] = after, have_scores | made
        return moves
