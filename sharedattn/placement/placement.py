"""Placements: the choice of each layer of a network, by stage.

A placement consists of one `LayerChoice` per layer; text, YAML and JSON are its forms. All objects
are frozen, validated on construction, and canonical: placements of the same network are equal, and
have the same text and hash.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import Branch, Channel
from sharedattn.mechanisms.registry import branch_of, registry, registry_cache
from sharedattn.mechanisms.vanilla import VANILLA
from sharedattn.placement.layer import LayerChoice, numbered_cells, trimmed
from sharedattn.placement.text import parse_stage, stage_text

_TOGETHER = re.compile(r"\s*\(([^()]*)\)\s*((?:/[^/|()]+)+)\s*")


@dataclass(frozen=True, slots=True)
class Placement:
    """One choice per layer, by stage; canonical and hashable.

    Cells of gates are renumbered within each stage by first use. Left-out layers at a stage's end
    are dropped.

    Attributes:
        stages: the layers of each stage, in order.

    Raises:
        InputError: a stage has no layers but left-out ones, or a layer takes what no earlier layer
            of its stage leaves.
    """

    stages: tuple[tuple[LayerChoice, ...], ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise InputError("a placement has no stage; write at least one, such as V2")
        canonical = tuple(_canonical_stage(i, stage) for i, stage in enumerate(self.stages))
        object.__setattr__(self, "stages", canonical)

    @property
    def layers(self) -> tuple[LayerChoice, ...]:
        """All layers, in the order of stages."""
        return tuple(itertools.chain.from_iterable(self.stages))

    @property
    def depths(self) -> tuple[int, ...]:
        """Number of layers in each stage, including left-out ones between others."""
        return tuple(len(stage) for stage in self.stages)

    @classmethod
    def parse(cls, text: str) -> Placement:
        """Parse the text form, `stage | stage | ...`; see `sharedattn.placement.text`.

        Raises:
            InputError: the text is not a placement; the message names the faulty part.
        """
        together = _TOGETHER.fullmatch(text)
        if together is not None:
            stages = (stage.strip() + together[2] for stage in together[1].split("|"))
            raise InputError(
                f"{text!r} shares {together[2]} over stages, and stages differ in width or grid: "
                f"units are of one stage; write {' | '.join(stages)}"
            )
        return cls(tuple(parse_stage(part.strip()) for part in text.split("|")))

    @classmethod
    def from_json(cls, stages: Sequence[Sequence[Sequence[Any]]]) -> Placement:
        """The inverse of `to_json`.

        Raises:
            InputError: the value is not nested lists of layers, or is not a valid placement.
        """
        if not _is_list(stages) or not all(map(_is_list, stages)):
            raise InputError(f"a placement is a list of stages of layers, but got {stages!r}")
        return cls(
            tuple(tuple(LayerChoice.from_json(layer) for layer in stage) for stage in stages)
        )

    @classmethod
    def all_vanilla(cls, depths: Sequence[int]) -> Placement:
        """The backbone's own attention in every layer, as published."""
        return cls(tuple((LayerChoice(VANILLA.letter),) * depth for depth in depths))

    def to_json(self) -> list[list[list[Any]]]:
        """Lists of layers by stage, each layer as in `LayerChoice.to_json`."""
        return [[layer.to_json() for layer in stage] for stage in self.stages]

    def __str__(self) -> str:
        return " | ".join(stage_text(stage) for stage in self.stages)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _canonical_stage(index: int, stage: Iterable[LayerChoice]) -> tuple[LayerChoice, ...]:
    given = tuple(stage)
    layers = trimmed(given)
    if not layers:
        what = f"leaves out every layer ({stage_text(given)})" if given else "has no layer"
        raise InputError(f"stage {index + 1} {what}; write at least one, such as V1")
    kinds = [layer.kind for layer in layers]
    unserved = _unserved(tuple(dict.fromkeys(kinds)))
    if unserved is not None:
        branch, channel = unserved
        raise InputError(
            f"layer {kinds.index(branch.letter) + 1} of stage {index + 1} is {branch.letter} "
            f"({branch.title}) and has nothing to reuse: no layer before it in its stage leaves "
            f"its {channel.name}; put {' or '.join(makers_of(channel))} before it"
        )
    return numbered_cells(layers)


@registry_cache(maxsize=4096)
def _unserved(kinds: tuple[str, ...]) -> tuple[Branch, Channel] | None:
    """The first branch that takes from a channel in which no earlier one leaves anything.

    Args:
        kinds: the distinct kinds of a stage's layers, by first use: if the first layer of a kind
            has what it takes, so have the others.
    """
    left: set[Channel] = set()
    for branch in map(branch_of, kinds):
        for channel in branch.takes:
            if channel not in left:
                return branch, channel
        left.update(branch.leaves)
    return None


def makers_of(channel: Channel) -> list[str]:
    """Letters of the kinds that leave something in a channel without taking from it."""
    return [
        branch.letter
        for branch in registry().branches.values()
        if channel in branch.leaves and channel not in branch.takes
    ]
