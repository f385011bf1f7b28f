"""Placements as a tree: what begins alike is computed once.

Placements share a layer where they agree in all layers up to it, of this stage and of the stages
before. They share even more of it: a layer's attention and MLP depend on neither its CB nor its
DIA, so placements that agree in all layers before and in this one's kind, slots and form share
these as well, and CB, gate and residual addition are what is left to each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from sharedattn.errors import InputError
from sharedattn.placement import LayerChoice, Placement


class Act(StrEnum):
    """What a step computes."""

    BEGIN = "begin"
    ENTER = "enter"
    START = "start_layer"
    COMPLETE = "complete_layer"
    FINISH = "finish"


@dataclass(slots=True, eq=False)
class Step:
    """One computation that all placements share that come by it.

    Attributes:
        act: what is computed.
        stage: index of the stage that is entered, or of the layer's.
        index: index of the layer in its stage.
        choice: what the layer does, without CB and DIA where it is started alone; None where the
            step is no layer's.
        placements: those that come by.
        next: the steps that take this one's result.
        number: its number in depth-first order.
    """

    act: Act
    stage: int = 0
    index: int = 0
    choice: LayerChoice | None = None
    placements: list[Placement] = field(default_factory=list)
    next: list[Step] = field(default_factory=list)
    number: int = 0


class PlacementTree:
    """The steps of all placements, each once, from the images to the logits of each placement.

    Args:
        placements: those to be run; one that stands there twice is run once.

    Attributes:
        root: the first step, which all share.
        placements: each once.
        evaluations: blocks of all placements, as they are computed one placement at a time.
        prefixes: distinct prefixes, the blocks that are left when each is computed once.
        parts: attentions with their MLPs that are left when placements share these also where CB
            and DIA differ.
        num_steps: steps of all kinds.

    Raises:
        InputError: no placement, or placements with different numbers of stages.
    """

    def __init__(self, placements: Iterable[Placement]) -> None:
        self.placements = tuple(dict.fromkeys(placements))
        if len({len(placement.stages) for placement in self.placements}) != 1:
            raise InputError(
                "`placements` needs one placement or more, all with the same number of stages, "
                "but got " + (", ".join(repr(str(p)) for p in self.placements[:3]) or "none")
            )
        self.root = Step(Act.BEGIN)
        # Of each step those that follow, by what tells them apart.
        followers: dict[int, dict[object, Step]] = {}
        for placement in self.placements:
            step = self.root
            step.placements.append(placement)
            for following in _steps_of(placement):
                known = followers.setdefault(id(step), {})
                key = (following.act, following.choice)
                if key not in known:
                    known[key] = following
                    step.next.append(following)
                step = known[key]
                step.placements.append(placement)
        count = dict.fromkeys(Act, 0)
        self.num_steps = 0
        for step in self.depth_first():
            step.number = self.num_steps
            self.num_steps += 1
            count[step.act] += 1
        self.evaluations = sum(sum(placement.depths) for placement in self.placements)
        self.prefixes, self.parts = count[Act.COMPLETE], count[Act.START]

    @property
    def bound(self) -> float:
        """How many times fewer blocks are computed by prefixes than one placement at a time."""
        return self.evaluations / self.prefixes

    def depth_first(self) -> Iterator[Step]:
        """Every step before those that follow it, and all that follow one before the next."""
        waiting = [self.root]
        while waiting:
            step = waiting.pop()
            yield step
            waiting.extend(reversed(step.next))


def _steps_of(placement: Placement) -> Iterator[Step]:
    """The steps of one placement after the first."""
    for stage, choices in enumerate(placement.stages):
        if stage > 0:
            yield Step(Act.ENTER, stage)
        for index, choice in enumerate(choices):
            yield Step(Act.START, stage, index, replace(choice, gate=None, cb=False))
            yield Step(Act.COMPLETE, stage, index, choice)
    yield Step(Act.FINISH, len(placement.stages) - 1)
