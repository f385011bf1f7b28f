"""The members of a stage without the left-out layers at their ends."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cache

from sharedattn.mechanisms.registry import branch_of
from sharedattn.spaces.stages.language import StageLanguage, Symbol


def without_trailing(language: StageLanguage) -> StageLanguage:
    """The members of a language without the left-out layers at their ends, each once."""
    can_leave_out = any(branch_of(kind).is_absent for kind in language.kinds)
    return _Trimmed(language) if can_leave_out else language


class _Trimmed(StageLanguage):
    """A language whose members may end wherever left-out layers alone would follow.

    A state adds to the language's own whether the last layer is there, since no member ends with
    one that is left out.
    """

    def __init__(self, language: StageLanguage) -> None:
        self.max_depth = language.max_depth
        self.kinds = language.kinds
        self._language = language
        self._ends = cache(self._only_absent_follow)

    @property
    def start(self) -> Hashable:
        """The state before the first layer, where no member ends."""
        return self._language.start, False

    def moves(
        self, state: tuple[Hashable, bool] | None, position: int
    ) -> Mapping[Symbol, Hashable]:
        """The language's moves, and an end where its members end in left-out layers."""
        if state is None:
            return {None: None}
        before, is_layer = state
        moves: dict[Symbol, Hashable] = {
            symbol: (after, not symbol.is_absent)
            for symbol, after in self._language.moves(before, position).items()
            if symbol is not None
        }
        if is_layer and self._ends(before, position):
            moves[None] = None
        return moves

    def _only_absent_follow(self, state: Hashable, position: int) -> bool:
        """Whether a member of the language ends here, but for left-out layers."""
        return any(
            symbol is None or (symbol.is_absent and self._ends(after, position + 1))
            for symbol, after in self._language.moves(state, position).items()
        )
