"""The legal members of a stage: a layer reuses only what an earlier layer computed.

Nor is a layer left out that changes the shape of a stage of convolutions.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from sharedattn.mechanisms.registry import branch_of
from sharedattn.networks.legality import left_keys
from sharedattn.placement import LayerChoice
from sharedattn.shape import StageShape
from sharedattn.spaces.stages.language import StageLanguage, Symbol

_Left = frozenset[tuple[str, int]]


class HandOver(StageLanguage):
    """The members of a stage in which every layer finds what it reuses from earlier layers.

    A state adds to the language's own the channels that each group of layers has written;
    `sharedattn.networks.legality.check_placement` has the rule.
    """

    def __init__(self, language: StageLanguage, shape: StageShape) -> None:
        """Restrict `language` to its legal members on a stage of these sizes."""
        self.max_depth = language.max_depth
        self.kinds = language.kinds
        self._language = language
        self._attention = shape.attention
        self._num_kept = shape.num_kept
        # Channels that no layer reads need not be remembered.
        self._taken = {c.name for kind in self.kinds for c in branch_of(kind).takes}

    @property
    def start(self) -> Hashable:
        """The state before the first layer, with nothing written."""
        return self._language.start, frozenset[tuple[str, int]]()

    def moves(
        self, state: tuple[Hashable, _Left] | None, position: int
    ) -> Mapping[Symbol, Hashable]:
        """The language's moves, without layers that have nothing to reuse."""
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
        if layer.is_absent and position < self._num_kept:
            return False
        return all(
            (channel.name, channel.group(self._attention, position)) in left
            for channel in layer.branch.takes
        )
