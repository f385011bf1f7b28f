"""The members of one stage as a language that a deterministic automaton reads.

A member is a canonical tuple of `LayerChoice`, and exactly one way through the automaton, however
many ways the options can say it (an option of a kind that has no layer, labels of cells that only
differ in name, `all` against the last K). That makes counting exact over distinct placements.
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
"""What stands at a layer position: a choice, or None where the stage has ended before it."""


@registry_cache(maxsize=4096)
def symbol_key(symbol: Symbol) -> tuple[int, ...]:
    """Sorts symbols: by kind, its options, the gate's cell, broadcasting; None comes last.

    Kinds and gates are in the order of their ranks; a layer without a gate comes first.
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
        max_depth: positions; shorter members are followed by None.
        kinds: letters that some layer may have.
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

        Members are numbered in the order in which states are found, so the order of the moves is
        the same in every process: it does not depend on hashes of texts or of None.

        Args:
            state: a state that `start` or `moves` gave; None: the stage has ended.
            position: from 0 to `max_depth`; there, None stands exactly where a stage may end.
        """


def check_numbers(name: str, numbers: tuple[int, ...], least: int) -> None:
    """Refuse what is no rising list.

    Raises:
        InputError: no number, numbers that do not rise, or one below `least`.
    """
    if not numbers or min(numbers) < least or list(numbers) != sorted(set(numbers)):
        raise InputError(
            f"`{name}` is a rising list of whole numbers >= {least}, but got {list(numbers)}"
        )


def check_depth(depth: tuple[int, ...], shape: StageShape, path: DocumentPath) -> None:
    """Refuse a stage with more layers than the backbone's.

    Raises:
        DocumentError: names the depth and the most that fits.
    """
    if max(depth) > shape.max_depth:
        raise DocumentError(
            path,
            f"`depth` is up to {max(depth)}, and the backbone has {shape.max_depth} layers in "
            f"this stage",
        )
