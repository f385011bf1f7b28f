"""Placements as a tree, in which common beginnings are computed once.

Placements share a layer if they agree in all layers up to it, in this stage and the stages before.
Part of a layer is shared even more widely: its attention and MLP do not depend on its CB and DIA,
so placements share them if they agree in all earlier layers and in this one's kind, slots and
form; only CB, gate and residual addition are then computed for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from sharedattn.errors import InputError
from sharedattn.placement import LayerChoice, Placement, num_present


class Act(StrEnum):
    """What a step computes."""

    BEGIN = "begin"
    ENTER = "enter"
    START = "start_layer"
    COMPLETE = "complete_layer"
    FINISH = "finish"


@dataclass(slots=True, eq=False)
class Step:
    """One computation, shared by all placements that pass through it.

    Attributes:
        act: what is computed.
        stage: index of the stage that is entered, or of the layer's stage.
        index: index of the layer in its stage.
        choice: the layer's choice, without CB and DIA where the layer is only started, or None if
            the step is not a layer's.
        placements: the placements that pass through.
        next: the steps that use this one's result.
        number: number of the step in depth-first order.
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
        placements: the placements to run; duplicates are run once.

    Attributes:
        root: the first step, which all share.
        placements: the distinct placements.
        evaluations: number of blocks if placements are computed one at a time; layers that are
            left out are none.
        prefixes: number of distinct prefixes: of blocks, if each is computed once.
        parts: number of attentions with their MLPs, if placements also share those that differ in
            CB or DIA only.
        num_steps: number of steps of all kinds.

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
        # The successors of each step, by what distinguishes them.
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
            count[step.act] += step.choice is None or not step.choice.is_absent
        self.evaluations = sum(num_present(placement.layers) for placement in self.placements)
        self.prefixes, self.parts = count[Act.COMPLETE], count[Act.START]

    @property
    def bound(self) -> float:
        """The ratio of blocks computed one placement at a time to blocks computed by prefixes."""
        return self.evaluations / self.prefixes

    def depth_first(self) -> Iterator[Step]:
        """Yield the steps in depth-first order."""
        waiting = [self.root]
        while waiting:
            step = waiting.pop()
            yield step
            waiting.extend(reversed(step.next))


def _steps_of(placement: Placement) -> Iterator[Step]:
    """Yield the steps of one placement after the first."""
    for stage, choices in enumerate(placement.stages):
        if stage > 0:
            yield Step(Act.ENTER, stage)
        for index, choice in enumerate(choices):
            yield Step(Act.START, stage, index, replace(choice, gate=None, cb=False))
            yield Step(Act.COMPLETE, stage, index, choice)
    yield Step(Act.FINISH, len(placement.stages) - 1)
