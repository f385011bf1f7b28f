"""Variation of members for evolutionary search: one-edit neighbours, mutation, crossover.

Every result is a member inside the budget.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from sharedattn.errors import InputError
from sharedattn.placement import Kind, Placement
from sharedattn.spaces.automaton import pad
from sharedattn.spaces.encoding import (
    Encoding,
    Layers,
    canonical_cells,
    num_dia_cells,
    with_options,
)
from sharedattn.spaces.stages import ListedStage, Symbol

_Edit = Callable[[int, Layers], Iterator[Layers]]
"""Gives changed layers of a stage, members or not, from its index and its layers."""

MAX_TRIES = 128
"""Draws of a member that shall differ from a given one: each fails with at most 1 / 2."""


class Variation:
    """Mutation, crossover and neighbours of the members inside a budget.

    Args:
        encoding: the encoding over the counted space.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._counted = encoding.counted
        automaton = encoding.counted.space.automaton
        self._depths = automaton.depths
        alphabets = iter(automaton.alphabets)
        self._alphabets: list[list[tuple[Symbol, ...]]] = [
            [next(alphabets) for _ in range(depth)] for depth in self._depths
        ]
        # A sort of edit that no stage offers would only take its share of the draws.
        with_forms = any(self._has_forms(stage) for stage in range(len(self._depths)))
        self._edits: tuple[_Edit, ...] = (
            self._other_layer,
            self._other_slots,
            *([self._other_form] if with_forms else []),
            self._other_groups,
            self._other_broadcasting,
            self._other_depth,
        )

    def neighbours(self, placement: Placement) -> tuple[Placement, ...]:
        """The members one edit away, in a fixed order.

        An edit changes one stage: the kind of one layer, or its choice where layers are listed;
        the slots of all its external layers; the form of all its layers of one kind; the number
        of DIA groups; the number of last layers with broadcasting; or one layer more or less.
        Then, in a stage given by counts, DIA groups and broadcasting follow the new depth, and in
        a listed one they stay with their layers.
        """
        found = (self._edited(placement, edit) for edit in self._edits)
        return tuple(dict.fromkeys(member for members in found for member in members))

    def mutate(self, placement: Placement, rng: random.Random) -> Placement:
        """Another member: one edit away, each sort of edit equally likely; else any member.

        Raises:
            InputError: there is no other member inside the budget.
        """
        for edit in rng.sample(self._edits, len(self._edits)):
            members = self._edited(placement, edit)
            if members:
                return rng.choice(members)
        if self._counted.in_budget == 1:
            raise InputError(
                f"`a space has another member inside the budget` must hold, but {str(placement)!r}"
                f" is the only one; widen the space or the budget"
            )
        for _ in range(MAX_TRIES):
            member = self._counted.sample(rng)
            if member != placement:
                return member
        raise AssertionError(f"{MAX_TRIES} uniform draws gave one member: rng is not random")

    def crossover(self, one: Placement, other: Placement, rng: random.Random) -> Placement:
        """A member that has each parameter of the encoding from either parent, then repaired.

        Raises:
            InputError: a parent is not a member inside the budget.
        """
        first, second = self._encoding.encode(one), self._encoding.encode(other)
        child = {name: (first if rng.random() < 0.5 else second)[name] for name in first}
        return self._encoding.repair(self._encoding.decode(child))

    def _edited(self, placement: Placement, edit: _Edit) -> list[Placement]:
        """The members other than `placement` that one edit of this sort gives."""
        seen = {placement.stages}
        members = []
        for stage, layers in enumerate(placement.stages):
            for changed in edit(stage, layers):
                candidate = (*placement.stages[:stage], changed, *placement.stages[stage + 1 :])
                if candidate not in seen:
                    seen.add(candidate)
                    if self._counted.admits(pad(candidate, self._depths)):
                        members.append(Placement(candidate))
        return members

    def _other_layer(self, stage: int, layers: Layers) -> Iterator[Layers]:
        for position, alphabet in enumerate(self._alphabets[stage][: len(layers)]):
            old = layers[position]
            for symbol in alphabet:
                if symbol is None:
                    continue
                if self._is_listed(stage) or (symbol.dia, symbol.cb) == (old.dia, old.cb):
                    yield canonical_cells([*layers[:position], symbol, *layers[position + 1 :]])

    def _other_slots(self, stage: int, layers: Layers) -> Iterator[Layers]:
        for slots in self._slots(stage):
            yield tuple(
                replace(layer, slots=slots) if layer.kind is Kind.EXTERNAL else layer
                for layer in layers
            )

    def _other_form(self, stage: int, layers: Layers) -> Iterator[Layers]:
        for kind, form in self._forms(stage):
            yield tuple(
                replace(layer, form=form) if layer.kind is kind else layer for layer in layers
            )

    def _other_groups(self, stage: int, layers: Layers) -> Iterator[Layers]:
        cells = {s.dia for symbols in self._alphabets[stage] for s in symbols if s is not None}
        for num_groups in range(len(cells - {None}) + 1):
            regrouped = with_options(layers, num_groups, 0)
            yield tuple(
                replace(layer, dia=new.dia) for new, layer in zip(regrouped, layers, strict=True)
            )

    def _other_broadcasting(self, stage: int, layers: Layers) -> Iterator[Layers]:
        del stage
        for with_cb in range(len(layers) + 1):
            yield tuple(
                replace(layer, cb=position >= len(layers) - with_cb)
                for position, layer in enumerate(layers)
            )

    def _other_depth(self, stage: int, layers: Layers) -> Iterator[Layers]:
        changed = [
            (*layers[:position], *layers[position + 1 :]) for position in range(len(layers))
        ]
        if len(layers) < self._depths[stage]:
            changed += [
                (*layers[:position], symbol, *layers[position:])
                for position in range(len(layers) + 1)
                for symbol in self._alphabets[stage][position]
                if symbol is not None
            ]
        if self._is_listed(stage):
            yield from map(canonical_cells, changed)
            return
        num_groups, with_cb = num_dia_cells(layers), sum(layer.cb for layer in layers)
        for others in changed:
            # Broadcasting in all layers is broadcasting in the last K as well: either may go on.
            if with_cb == len(layers):
                yield with_options(others, num_groups, len(others))
            yield with_options(others, num_groups, with_cb)

    def _is_listed(self, stage: int) -> bool:
        return isinstance(self._counted.space.stages[stage], ListedStage)

    def _slots(self, stage: int) -> list[int]:
        symbols = (symbol for alphabet in self._alphabets[stage] for symbol in alphabet)
        return sorted({symbol.slots for symbol in symbols if symbol and symbol.slots})

    def _has_forms(self, stage: int) -> bool:
        """Whether layers of one kind may have different forms in a stage."""
        kinds = [kind for kind, _ in self._forms(stage)]
        return len(set(kinds)) < len(kinds)

    def _forms(self, stage: int) -> dict[tuple[Kind, str | None], None]:
        """The forms of each kind that layers of a stage may have, in the order of symbols."""
        symbols = (symbol for alphabet in self._alphabets[stage] for symbol in alphabet)
        return dict.fromkeys((symbol.kind, symbol.form) for symbol in symbols if symbol)
