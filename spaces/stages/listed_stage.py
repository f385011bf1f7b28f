"""A stage given by the choices at each layer position."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sharedattn.errors import InputError
from sharedattn.mechanisms.registry import gate_of
from sharedattn.networks.legality import canonical_choice, check_choice
from sharedattn.placement import GateCell, LayerChoice, MechanismOptions
from sharedattn.shape import StageShape
from sharedattn.spaces.document import Section, read_layer, read_list, read_numbers
from sharedattn.spaces.stages.language import (
    StageLanguage,
    Symbol,
    check_depth,
    check_numbers,
    symbol_key,
)
from sharedattn.yaml_text import DocumentError, DocumentPath, located


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedStage:
    """A stage given by the choices at each layer position.

    Within a member, equal labels of a gate mean one cell; the labels' numbers do not matter.

    Attributes:
        layers: the choices at each position, sorted; a member takes one from each.
        depth: allowed numbers of layers, rising; a member of depth n takes the first n positions.

    Raises:
        InputError: a position without choices, or a largest depth other than the number of
            positions.
    """

    layers: tuple[tuple[LayerChoice, ...], ...]
    depth: tuple[int, ...]

    def __post_init__(self) -> None:
        check_numbers("depth", self.depth, 1)
        if max(self.depth) != len(self.layers):
            raise InputError(
                f"`depth` is up to {max(self.depth)}, but `layers` lists {len(self.layers)} "
                f"positions; list as many positions as the largest depth"
            )
        if not all(self.layers):
            raise InputError("`layers` has a position without a choice; list at least one")
        layers = tuple(tuple(sorted(set(choices), key=symbol_key)) for choices in self.layers)
        object.__setattr__(self, "layers", layers)

    def on(self, shape: StageShape, options: MechanismOptions, path: DocumentPath) -> ListedStage:
        """Return the stage with its forms canonical on a backbone's stage.

        Args:
            shape: the backbone's stage.
            options: forms of the mechanisms.
            path: place of the stage in a space's document.

        Raises:
            DocumentError: more layers than the backbone has, or branches or gates that do not fit
                it.
        """
        check_depth(self.depth, shape, path)
        for position, choices in enumerate(self.layers):
            with located((*path, "layers", position)):
                for choice in choices:
                    check_choice(shape, options, choice)
        return replace(
            self,
            layers=tuple(
                tuple(canonical_choice(shape, choice) for choice in choices)
                for choices in self.layers
            ),
        )

    @classmethod
    def from_document(cls, document: Any, path: DocumentPath) -> ListedStage:
        """Read `{layers, depth}`; `depth` defaults to all layers.

        Raises:
            DocumentError: an unknown key or an invalid value.
        """
        section = Section(document, path, ("layers", "depth"))

        def read_layers(value: Any, at: DocumentPath) -> tuple[tuple[LayerChoice, ...], ...]:
            if not isinstance(value, list):
                raise DocumentError(
                    at, f"expected a list with one entry per layer position, but got {value!r}"
                )
            return tuple(read_list(read_layer)(item, (*at, i)) for i, item in enumerate(value))

        layers = section.take("layers", read_layers)
        depth = section.take("depth", read_numbers, len(layers))
        with located(path):
            return cls(layers=layers, depth=depth)

    def to_document(self) -> dict[str, Any]:
        """The stage as a space's document writes it."""
        return {
            "layers": [[str(choice) for choice in choices] for choices in self.layers],
            "depth": list(self.depth),
        }

    def language(self, ordered: bool) -> StageLanguage:
        """The stage's members; `ordered` has no effect on a listed stage."""
        del ordered
        return _ListedLanguage(self)


_Naming = tuple[int, ...]
"""For each canonical cell so far, by first use, the label that stands for it.

Labels are integers, since the order of a set of namings decides the order of moves: label n of
the gate at index g of G gates is n G + g. The entry becomes -1 - g once no later position offers
the label.
"""


class _ListedLanguage(StageLanguage):
    """The members of a listed stage, by subset construction over sets of namings."""

    def __init__(self, stage: ListedStage) -> None:
        self.max_depth = max(stage.depth)
        every = {choice for choices in stage.layers for choice in choices}
        self.kinds = frozenset(choice.kind for choice in every)
        gates = {choice.gate.gate for choice in every if choice.gate is not None}
        self._gates = sorted(gates, key=lambda name: gate_of(name).rank)
        self._stage = stage
        self._later_labels = [
            {self._label(choice) for choices in stage.layers[position + 1 :] for choice in choices}
            for position in range(self.max_depth)
        ]

    @property
    def start(self) -> Hashable:
        return frozenset({()})

    def moves(self, state: frozenset[_Naming] | None, position: int) -> Mapping[Symbol, Hashable]:
        if state is None:
            return {None: None}
        moves: dict[Symbol, Hashable] = {}
        if position in self._stage.depth:
            moves[None] = None
        if position == self.max_depth:
            return moves
        namings: dict[LayerChoice, set[_Naming]] = defaultdict(set)
        later = self._later_labels[position]
        for choice in self._stage.layers[position]:
            label = self._label(choice)
            for naming in state:
                after, symbol = naming, choice
                if label is not None:
                    if label not in naming:
                        after = (*naming, label)
                    symbol = replace(choice, gate=self._cell(after, label))
                kept = tuple(
                    entry if entry in later or entry < 0 else -1 - self._place(entry)
                    for entry in after
                )
                namings[symbol].add(kept)
        return moves | {symbol: frozenset(part) for symbol, part in namings.items()}

    def _label(self, choice: LayerChoice) -> int | None:
        if choice.gate is None:
            return None
        return choice.gate.cell * len(self._gates) + self._gates.index(choice.gate.gate)

    def _place(self, entry: int) -> int:
        """Index of the gate of a naming's entry."""
        return -1 - entry if entry < 0 else entry % len(self._gates)

    def _cell(self, naming: _Naming, label: int) -> GateCell:
        """The canonical cell of a label, numbered among the cells of its gate."""
        place = self._place(label)
        before = naming[: naming.index(label)]
        return GateCell(self._gates[place], sum(self._place(e) == place for e in before))
