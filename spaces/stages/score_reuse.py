"""Which members of a stage are legal: what a layer takes, a layer before it must have left."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from sharedattn.mechanisms.registry import branch_of
from sharedattn.networks.legality import left_keys
from sharedattn.placement import LayerChoice
from sharedattn.shape import AttentionShape
from sharedattn.spaces.stages.language import StageLanguage, Symbol

_Left = frozenset[tuple[str, int]]


class HandOver(StageLanguage):
    """Those members of a stage in which every layer has what it takes from layers before it.

    A state is the language's own beside the channels that something was left in, of each group of
    layers; `sharedattn.networks.legality.check_placement` has the rule.
    """

    def __init__(self, language: StageLanguage, attention: AttentionShape) -> None:
        """The legal members of `language` on a stage of these sizes."""
        self.max_depth = language.max_depth
        self.kinds = language.kinds
        self._language = language
        self._attention = attention
        # What no layer takes need not be remembered.
        self._taken = {c.name for kind in self.kinds for c in branch_of(kind).takes}

    @property
    def start(self) -> Hashable:
        """Nothing has been left."""
        return self._language.start, frozenset[tuple[str, int]]()

    def moves(
        self, state: tuple[Hashable, _Left] | None, position: int
    ) -> Mapping[Symbol, Hashable]:
        """The language's moves, without layers that have nothing to take."""
        if state is None:
            return self._language.moves(None, position)
        before, left = state
        moves: dict[Symbol, Hashable] = {}
        for symbol, after in self._language.moves(before, position).items():
            if symbol is None:
                moves[None] = None
            elif self._is_legal(symbol, left, position):
                made = left_keys(self._attention, symbol, position)
                moves[symbol] = after, left.union(k for k in made if k[0] in self._taken)
        return moves

    def _is_legal(self, layer: LayerChoice, left: _Left, position: int) -> bool:
        branch = layer.branch
        has_branch = branch.attends or branch.feeds_forward
        return (has_branch or not (layer.cb or layer.gate)) and all(
            (channel.name, channel.group(self._attention, position)) in left
            for channel in branch.takes
        )
