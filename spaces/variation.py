"""Variation of members for evolutionary search: one-edit neighbours, mutation, crossover.

Every result is a member inside the budget.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import FormOption, NumberOption, OptionValue
from sharedattn.mechanisms.registry import is_always_listed, registry
from sharedattn.placement import LayerChoice, Placement, num_present, numbered_cells, trimmed
from sharedattn.spaces.automaton import pad
from sharedattn.spaces.encoding import Encoding, Layers, groups_of, with_options
from sharedattn.spaces.stages import ListedStage, StageGroups, Symbol

_Edit = Callable[[int, Layers], Iterator[Layers]]
"""Yields changed layers of a stage, members or not, from its index and its layers."""

MAX_TRIES = 128
"""Tries to draw a member other than a given one; each fails with probability at most 1 / 2."""


class Variation:
    """Mutation, crossover and neighbours of the members inside a budget.

    Args:
        encoding: the encoding of the space inside its budget.
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
        # An edit that no stage offers would only waste its share of the draws. Edits of built-in
        # numbers, groups and depths stay anyway: the draws depend on the number of edits.
        with_forms = any(self._has_forms(stage) for stage in range(len(self._depths)))
        self._edits: tuple[_Edit, ...] = (
            self._other_layer,
            *(partial(self._other_number, letter, name) for letter, name in self._numbers()),
            *([self._other_form] if with_forms else []),
            self._other_groups,
            self._other_broadcasting,
            self._other_depth,
        )

    def neighbours(self, placement: Placement) -> tuple[Placement, ...]:
        """The members one edit away, in a fixed order.

        An edit changes one stage: the kind of one layer, or its choice where layers are listed;
        a number option, such as slots, of all its layers of one kind; the form of all its layers
        of one kind; the gate and its number of groups; the number of last layers with
        broadcasting; or the depth by one layer. With the depth, groups and broadcasting adapt in
        a stage given by counts, and stay with their layers in a listed stage.
        """
        found = (self._edited(placement, edit) for edit in self._edits)
        return tuple(dict.fromkeys(member for members in found for member in members))

    def mutate(
        self, placement: Placement, rng: random.Random, *, jump_probability: float = 0.0
    ) -> Placement:
        """A member one edit away, each kind of edit equally likely, or any other if none is.

        Args:
            placement: a member inside the budget.
            rng: the generator of the draws.
            jump_probability: how often any other member is drawn instead, uniformly. Rules of a
                space may part it into members that no edits connect; jumps reach all of them.

        Raises:
            InputError: there is no other member inside the budget.
        """
        if jump_probability and rng.random() < jump_probability:
            return self._other_member(placement, rng)
        for edit in rng.sample(self._edits, len(self._edits)):
            members = self._edited(placement, edit)
            if members:
                return rng.choice(members)
        return self._other_member(placement, rng)

    def _other_member(self, placement: Placement, rng: random.Random) -> Placement:
        """Any member but `placement`, uniformly."""
        if self._counted.in_budget == 1:
            raise InputError(
                f"{str(placement)!r} is the only member of the space inside the budget; widen the "
                f"space or the budget"
            )
        for _ in range(MAX_TRIES):
            member = self._counted.sample(rng)
            if member != placement:
                return member
        raise AssertionError(f"{MAX_TRIES} uniform draws gave one member: rng is not random")

    def crossover(self, one: Placement, other: Placement, rng: random.Random) -> Placement:
        """Take each parameter of the encoding from either parent, and repair the result.

        Raises:
            InputError: a parent is not a member inside the budget.
        """
        first, second = self._encoding.encode(one), self._encoding.encode(other)
        child = {name: (first if rng.random() < 0.5 else second)[name] for name in first}
        return self._encoding.repair(self._encoding.decode(child))

    def _edited(self, placement: Placement, edit: _Edit) -> list[Placement]:
        """The members other than `placement` that this edit reaches."""
        seen = {placement.stages}
        members = []
        for stage, layers in enumerate(placement.stages):
            for changed in edit(stage, layers):
                stages = placement.stages
                candidate = (*stages[:stage], trimmed(changed), *stages[stage + 1 :])
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
                changed = (*layers[:position], symbol, *layers[position + 1 :])
                if self._is_listed(stage) or (symbol.gate, symbol.cb) == (old.gate, old.cb):
                    yield numbered_cells(changed)
                elif symbol.is_absent or old.is_absent:
                    yield from _adapted(layers, changed)

    def _other_number(
        self, letter: str, name: str, stage: int, layers: Layers
    ) -> Iterator[Layers]:
        values = {s.option(name) for s in self._symbols(stage) if s.kind == letter}
        for value in sorted(values):
            yield _with_option(layers, letter, name, value)

    def _other_form(self, stage: int, layers: Layers) -> Iterator[Layers]:
        for letter, name, form in self._forms(stage):
            yield _with_option(layers, letter, name, form)

    def _other_groups(self, stage: int, layers: Layers) -> Iterator[Layers]:
        cells = {s.gate for s in self._symbols(stage) if s.gate is not None}
        numbers = Counter(cell.gate for cell in cells)
        every: list[StageGroups | None] = [None]
        for gate in registry().gates_by_rank:
            every += [StageGroups(gate.name, n + 1) for n in range(numbers[gate.name])]
        for groups in every:
            regrouped = with_options(layers, groups, 0)
            yield tuple(
                replace(layer, gate=new.gate) for new, layer in zip(regrouped, layers, strict=True)
            )

    def _other_broadcasting(self, stage: int, layers: Layers) -> Iterator[Layers]:
        del stage
        for with_cb in range(num_present(layers) + 1):
            broadcast = with_options(layers, None, with_cb)
            yield tuple(
                replace(layer, cb=new.cb) for new, layer in zip(broadcast, layers, strict=True)
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
            yield from map(numbered_cells, changed)
            return
        for others in changed:
            yield from _adapted(layers, others)

    def _is_listed(self, stage: int) -> bool:
        return isinstance(self._counted.space.stages[stage], ListedStage)

    def _symbols(self, stage: int) -> Iterator[LayerChoice]:
        return (s for alphabet in self._alphabets[stage] for s in alphabet if s is not None)

    def _numbers(self) -> Iterator[tuple[str, str]]:
        """Kind and name of the number options that are built in or of a kind in the space."""
        stages = range(len(self._depths))
        kinds = {symbol.kind for stage in stages for symbol in self._symbols(stage)}
        for branch in registry().by_rank:
            for option in branch.options:
                is_known = is_always_listed(branch) or branch.letter in kinds
                if isinstance(option, NumberOption) and is_known:
                    yield branch.letter, option.name

    def _has_forms(self, stage: int) -> bool:
        """Whether layers of one kind can differ in form within a stage."""
        options = [(letter, name) for letter, name, _ in self._forms(stage)]
        return len(set(options)) < len(options)

    def _forms(self, stage: int) -> dict[tuple[str, str, OptionValue | None], None]:
        """Kind, option and form of every layer that a stage may have, in symbol order."""
        return dict.fromkeys(
            (symbol.kind, option.name, symbol.option(option.name))
            for symbol in self._symbols(stage)
            for option in symbol.branch.options
            if isinstance(option, FormOption)
        )


def _adapted(layers: Layers, changed: Layers) -> Iterator[Layers]:
    """Other layers of a stage given by counts, with the groups and broadcasting that it had."""
    groups, with_cb = groups_of(layers), sum(layer.cb for layer in layers)
    # Broadcasting in all layers also counts as the last K: keep either meaning.
    if with_cb == num_present(layers):
        yield with_options(changed, groups, num_present(changed))
    yield with_options(changed, groups, with_cb)


def _with_option(layers: Layers, letter: str, name: str, value: OptionValue | None) -> Layers:
    """Set an option to `value` in all layers of a kind."""
    return tuple(
        layer.with_option(name, value) if layer.kind == letter else layer for layer in layers
    )
