"""The members of one stage as the language of a deterministic automaton.

A member is a canonical tuple of `LayerChoice` and exactly one path through the automaton, even
where options describe it in many ways (an option of a kind without a layer, gate labels that only
differ in name, `all` against the last K). This makes counts over distinct placements exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any

from sharedattn.errors import InputError
from sharedattn.mechanisms.registry import gate_of, registry_cache
from sharedattn.placement import LayerChoice
from sharedattn.shape import StageShape
from sharedattn.yaml_text import DocumentError, DocumentPath

Symbol = LayerChoice | None
"""A choice at a layer position, or None if the stage has ended before it."""


@registry_cache(maxsize=4096)
def symbol_key(symbol: Symbol) -> tuple[int, ...]:
    """Sort key of symbols: by kind, options, gate cell, broadcasting; None comes last.

    Kinds and gates sort by rank; a layer without a gate comes first.
    """
    if symbol is None:
        return (1,)
    branch, gate = symbol.branch, symbol.gate
    said = dict(symbol.options)
    values = [number for o in branch.options for number in o.order(said.get(o.name))]
    cell = (0,) if gate is None else (1, gate_of(gate.gate).rank, gate.cell)
    return (0, branch.rank, *values, *cell, symbol.cb)


class StageLanguage(ABC):
    """The members of one stage as a deterministic automaton over symbols.

    Attributes:
        max_depth: number of positions; shorter members are padded with None.
        kinds: letters of the kinds that a layer may have.
    """

    max_depth: int
    kinds: frozenset[str]

    @property
    @abstractmethod
    def start(self) -> Hashable:
        """The state before the first layer."""

    @abstractmethod
    def moves(self, state: Any, position: int) -> Mapping[Symbol, Hashable]:
        """The symbols that may stand at `position`, each with the state after it.

        Members are numbered in the order in which states are found, so implementations return
        moves in an order that does not depend on hashes, which differ between processes.

        Args:
            state: a state from `start` or `moves`, or None if the stage has ended.
            position: from 0 to `max_depth`; there, None is offered exactly where a stage may end.
        """


def check_numbers(name: str, numbers: tuple[int, ...], least: int) -> None:
    """Check that a list of numbers is not empty and rises.

    Raises:
        InputError: the list is empty, does not rise, or has a number below `least`.
    """
    if not numbers or min(numbers) < least or list(numbers) != sorted(set(numbers)):
        raise InputError(
            f"`{name}` is {list(numbers)}; give a rising list of whole numbers >= {least}"
        )


def check_depth(depth: tuple[int, ...], shape: StageShape, path: DocumentPath) -> None:
    """Check that a stage has at most as many layers as the backbone's, or as many if it is whole.

    Raises:
        DocumentError: it has not; the message gives both depths.
    """
    if max(depth) > shape.max_depth:
        raise DocumentError(
            path,
            f"`depth` is up to {max(depth)}, but the backbone has {shape.max_depth} layers in "
            f"this stage; give at most as many",
        )
    if shape.is_whole and depth != (shape.max_depth,):
        raise DocumentError(
            path,
            f"`depth` is {', '.join(map(str, depth))}, but no layer of a UNet is left out, since "
            f"its decoder takes what each layer of the encoder gives; give {shape.max_depth}",
        )
