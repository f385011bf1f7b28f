"""A bound on the attention memory of each layer, as a rule that reads a stage layer by layer.

The memory in use while a layer attends depends on later layers, for which what it left, such as
scores, is held; see `CostModel.attention_bytes`. So the rule records, for each layer read, the
later events that would exceed the bound, and refuses the layer that would complete a set of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import combinations
from typing import NamedTuple

from sharedattn.costs.model import CostModel
from sharedattn.mechanisms.interface import SCORES
from sharedattn.mechanisms.registry import registry
from sharedattn.networks.legality import left_keys, taken_keys
from sharedattn.networks.state import Key
from sharedattn.placement import LayerChoice

# The other events are: the next layer that touches a channel takes what was left there.
_RESIDUAL: Key = ("a later layer adds the attention residual", 0)
_HANDED_ON: Key = ("no later layer touches scores, and the next stage takes them", 0)

_Events = frozenset[Key]


class _State(NamedTuple):
    """State of the rule after some layers.

    Attributes:
        forbidden: minimal sets of events that must not all happen.
        left: channels and groups in which layers have left something.
        bias_is_own: whether the last scores have their layer's own bias, not a mapped one.
    """

    forbidden: frozenset[_Events]
    left: frozenset[Key]
    bias_is_own: bool


class AttentionMemoryRule:
    """Accepts stages in which no layer's attention takes more memory than a bound.

    Args:
        costs: costs on the backbone.
        stage: index of the stage.
        max_bytes: the bound, inclusive.
    """

    def __init__(self, costs: CostModel, stage: int, max_bytes: float) -> None:
        self._costs = costs
        self._stage = stage
        self._max_bytes = max_bytes
        self._attention = costs.shape.stages[stage].attention
        self._hands_on = costs.hands_on_scores(stage)
        branches = registry().branches.values()
        self._taken_names = {channel.name for branch in branches for channel in branch.takes}

    @property
    def start(self) -> Hashable:
        """The state before any layer."""
        return _State(frozenset(), frozenset(), False)

    def step(self, state: Hashable, position: int, choice: LayerChoice) -> Hashable | None:
        """The state after a layer, or None if this layer or an earlier one takes too much."""
        assert isinstance(state, _State)
        forbidden, left, bias_is_own = state
        branch = choice.branch
        takes = taken_keys(self._attention, choice, position)
        leaves = left_keys(self._attention, choice, position)
        true = takes | ({_RESIDUAL} if branch.adds_residual else frozenset())
        false = leaves - takes
        if any(name == SCORES.name for name, _ in takes | leaves):
            false |= {_HANDED_ON}
        forbidden = frozenset(events - true for events in forbidden if not events & false)
        if frozenset() in forbidden:
            return None
        left |= {key for key in leaves if key[0] in self._taken_names}
        if SCORES in branch.leaves and branch.score_bias(choice.options) != "kept":
            bias_is_own = branch.score_bias(choice.options) == "own"
        found = set(forbidden)
        for events in self._too_much(choice, left, bias_is_own):
            if not events:
                return None
            found.add(events)
        return _State(_minimal(found), left, bias_is_own)

    def accepts(self, state: Hashable) -> bool:
        """Whether a stage may end in this state."""
        assert isinstance(state, _State)
        return frozenset({_HANDED_ON}) not in state.forbidden

    def _too_much(
        self, choice: LayerChoice, left: frozenset[Key], bias_is_own: bool
    ) -> Iterator[_Events]:
        """Sets of later events that make a layer take too much memory."""

        def exceeds(held: frozenset[Key], holds_residual: bool) -> bool:
            taken = self._costs.layer_attention_bytes(
                self._stage,
                choice,
                held=held,
                holds_residual=holds_residual,
                bias_is_own=bias_is_own,
            )
            return taken > self._max_bytes

        scores = frozenset(key for key in left if key[0] == SCORES.name)
        for held in _subsets(left):
            for holds_residual in (False, True):
                if exceeds(held, holds_residual):
                    yield held | ({_RESIDUAL} if holds_residual else frozenset())
        if self._hands_on:
            for others in _subsets(left - scores):
                if exceeds(scores | others, False):
                    yield others | {_HANDED_ON}


def _subsets(keys: frozenset[Key]) -> Iterator[frozenset[Key]]:
    for number in range(len(keys) + 1):
        yield from map(frozenset, combinations(sorted(keys), number))


def _minimal(found: set[_Events]) -> frozenset[_Events]:
    return frozenset(e for e in found if not any(other < e for other in found))
