"""A bound on the attention memory of every layer, as a rule that reads a stage layer by layer.

What is alive while a layer attends depends on later layers: scores are held for them, see
`CostModel.attention_bytes`. So the rule keeps, of each layer read, which later events would put it
above the bound, and refuses the layer that would make one true.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import combinations
from typing import NamedTuple

from sharedattn.costs.model import CostModel
from sharedattn.placement import Kind, LayerChoice

# Events beside the numbers of groups, each of which is held once its next layer is less attention.
_RESIDUAL = -1  # a later vanilla layer adds the attention residual
_HANDED_ON = -2  # no later layer attends, and the next stage takes the scores

_Events = frozenset[int]


class _State(NamedTuple):
    """What is known of the layers read so far.

    Attributes:
        forbidden: sets of events that may not all come true, none within another.
        groups: groups of layers that have attended.
        last_is_vanilla: whether the last scores of their own are a vanilla layer's.
    """

    forbidden: frozenset[_Events]
    groups: frozenset[int]
    last_is_vanilla: bool


class AttentionMemoryRule:
    """The layers of one stage, none of whose attention takes more memory than a bound.

    Args:
        costs: of the backbone.
        stage: index of the stage.
        max_bytes: the bound, inclusive.
    """

    def __init__(self, costs: CostModel, stage: int, max_bytes: float) -> None:
        self._costs = costs
        self._stage = stage
        self._max_bytes = max_bytes
        self._attention = costs.shape.stages[stage].attention
        self._hands_on = costs.hands_on_scores(stage)

    @property
    def start(self) -> Hashable:
        """No layer."""
        return _State(frozenset(), frozenset(), False)

    def step(self, state: Hashable, position: int, choice: LayerChoice) -> Hashable | None:
        """The state after a layer; None: this layer, or one before it, takes too much."""
        assert isinstance(state, _State)
        forbidden, groups, last_is_vanilla = state
        if choice.kind in (Kind.VANILLA, Kind.LESS):
            group = self._attention.score_group(position)
            left = _after(forbidden, group, is_vanilla=choice.kind is Kind.VANILLA)
            if frozenset() in left:
                return None
            forbidden, groups = left, groups | {group}
            if choice.form != "reuse":
                last_is_vanilla = choice.kind is Kind.VANILLA
        found = set(forbidden)
        for events in self._too_much(choice, groups, last_is_vanilla):
            if not events:
                return None
            found.add(events)
        return _State(_minimal(found), groups, last_is_vanilla)

    def accepts(self, state: Hashable) -> bool:
        """Whether a stage may end here."""
        assert isinstance(state, _State)
        return frozenset({_HANDED_ON}) not in state.forbidden

    def _too_much(
        self, choice: LayerChoice, groups: frozenset[int], last_is_vanilla: bool
    ) -> Iterator[_Events]:
        """Sets of later events with which a layer takes too much memory."""

        def exceeds(num_held: int, with_residual: bool) -> bool:
            taken = self._costs.layer_attention_bytes(
                self._stage,
                choice,
                num_held=num_held,
                holds_residual=with_residual,
                last_is_vanilla=last_is_vanilla,
            )
            return taken > self._max_bytes

        for num_held in range(len(groups) + 1):
            for held in combinations(sorted(groups), num_held):
                for with_residual in (False, True):
                    if exceeds(num_held, with_residual):
                        yield frozenset((*held, _RESIDUAL) if with_residual else held)
        if self._hands_on and exceeds(len(groups), False):
            yield frozenset({_HANDED_ON})


def _after(forbidden: frozenset[_Events], group: int, *, is_vanilla: bool) -> frozenset[_Events]:
    """What stays forbidden after a layer that attends; an empty set: it has come true."""
    left = set()
    for events in forbidden:
        if _HANDED_ON in events or (is_vanilla and group in events):
            continue
        left.add(events - {_RESIDUAL if is_vanilla else group})
    return frozenset(left)


def _minimal(found: set[_Events]) -> frozenset[_Events]:
    return frozenset(e for e in found if not any(other < e for other in found))
