"""A fixed flat encoding of placements for general samplers, and the way back into the space.

Every placement has the same named parameters, each from a closed list of choices, so that a
sampler such as TPE needs no knowledge of placements. Proposals it makes may break rules of the
space; `repair` gives the nearest member inside the budget, and what the sampler is told is the
encoding of that member. Of stages given by counts,

* in any order: `stageS.kindP` is the kind of layer P, `-` where there is none;
* in the order E, V, L, N: `stageS.E` to `stageS.N` are the counts, read as shares where their sum
  is no allowed depth;
* and `stageS.slots`, `stageS.external_form`, `stageS.less_form`, `stageS.dia`, `stageS.cb` are the
  options, as in the space's document.

Of stages given layer by layer, `stageS.layerP` is the choice of layer P with its canonical DIA
cell. Stages and layers count from 1. A parameter of one choice only is left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sharedattn.errors import InputError
from sharedattn.placement import Kind, LayerChoice, Placement, dia_runs
from sharedattn.spaces.automaton import pad
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.repair import Repair
from sharedattn.spaces.stages import (
    FORM_KEYS,
    KIND_ORDER,
    CountedStage,
    LastLayers,
    ListedStage,
    Stage,
    Symbol,
    form_text,
    read_form,
)

Value = int | str
Layers = tuple[LayerChoice, ...]
Proposal = tuple[Layers, ...]
"""Layers of each stage, in canonical DIA cells, that need not be a legal placement."""

ABSENT = "-"


def with_options(layers: Sequence[LayerChoice], num_groups: int, with_cb: int) -> Layers:
    """Layers of the same attention branches under the options of a whole stage.

    Args:
        layers: what is kept of them are kinds, slots and forms.
        num_groups: DIA groups, cut at the number of layers; 0: none.
        with_cb: last layers with context broadcasting.
    """
    depth = len(layers)
    num_groups = min(num_groups, depth)
    cells = dia_runs(depth, num_groups) if num_groups else (None,) * depth
    return tuple(
        replace(layer, dia=cell, cb=position >= depth - with_cb)
        for position, (layer, cell) in enumerate(zip(layers, cells, strict=True))
    )


def canonical_cells(layers: Sequence[LayerChoice]) -> Layers:
    """The same layers with their DIA cells numbered by first use."""
    number: dict[int, int] = {}
    for layer in layers:
        if layer.dia is not None:
            number.setdefault(layer.dia, len(number))
    if list(number) == list(range(len(number))):
        return tuple(layers)
    return tuple(
        layer if layer.dia is None else replace(layer, dia=number[layer.dia]) for layer in layers
    )


def num_dia_cells(layers: Sequence[LayerChoice]) -> int:
    """Number of distinct DIA cells."""
    return len({layer.dia for layer in layers} - {None})


class _StageEncoding(ABC):
    """Named parameters of one stage.

    Attributes:
        dimensions: the choices of each parameter, by its name within the stage.
    """

    dimensions: dict[str, tuple[Value, ...]]

    @abstractmethod
    def encode(self, layers: Layers) -> dict[str, Value]:
        """The parameters of a member's layers."""

    @abstractmethod
    def decode(self, values: Mapping[str, Value]) -> Layers:
        """The layers that the parameters propose."""


class _OptionsEncoding(_StageEncoding):
    """A stage given by counts: options of the whole stage beside the kinds of its layers."""

    def __init__(self, stage: CountedStage) -> None:
        self.stage = stage
        self.dimensions = {**self.kind_dimensions()}
        if stage.most(Kind.EXTERNAL):
            self.dimensions["slots"] = stage.slots
        for kind, key in FORM_KEYS.items():
            if stage.most(kind):
                self.dimensions[key] = tuple(form_text(kind, form) for form in stage.forms(kind))
        most = max(stage.depth)
        self.dimensions["dia"] = tuple(n for n in stage.dia if n <= most)
        self.dimensions["cb"] = tuple(k for k in stage.cb if k == "all" or k <= most)

    @abstractmethod
    def kind_dimensions(self) -> dict[str, tuple[Value, ...]]:
        """The parameters that say the kinds."""

    @abstractmethod
    def encode_kinds(self, kinds: list[Kind]) -> dict[str, Value]:
        """The parameters of the kinds of a member's layers."""

    @abstractmethod
    def decode_kinds(self, values: Mapping[str, Value]) -> list[Kind]:
        """The kinds that the parameters propose."""

    def encode(self, layers: Layers) -> dict[str, Value]:
        # Without an external layer the slots mean nothing: always the same value then. So do the
        # forms without a layer of their kind.
        slots = next((layer.slots for layer in layers if layer.slots), self.stage.slots[0])
        forms: dict[str, Value] = {}
        for kind, key in FORM_KEYS.items():
            found = (layer.form for layer in layers if layer.kind is kind)
            forms[key] = form_text(kind, next(found, self.stage.forms(kind)[0]))
        with_cb = sum(layer.cb for layer in layers)
        last: LastLayers = with_cb if with_cb in self.stage.cb else "all"
        return {
            **self.encode_kinds([layer.kind for layer in layers]),
            "slots": slots,
            **forms,
            "dia": num_dia_cells(layers),
            "cb": last,
        }

    def decode(self, values: Mapping[str, Value]) -> Layers:
        kinds = self.decode_kinds(values)
        slots, num_groups, last = values.get("slots"), values["dia"], values["cb"]
        forms = {
            kind: read_form(kind, str(values[key]))
            for kind, key in FORM_KEYS.items()
            if key in values
        }
        layers = [
            LayerChoice(
                kind,
                int(slots) if kind is Kind.EXTERNAL and slots else None,
                form=forms.get(kind),
            )
            for kind in kinds
        ]
        with_cb = len(kinds) if last == "all" else int(last)
        return with_options(layers, int(num_groups), with_cb)


class _AnyOrderEncoding(_OptionsEncoding):
    def kind_dimensions(self) -> dict[str, tuple[Value, ...]]:
        kinds = tuple(
            kind.value
            for kind, numbers in zip(KIND_ORDER, self.stage.counts, strict=True)
            if max(numbers) > 0
        )
        return {
            f"kind{position + 1}": kinds if position < min(self.stage.depth) else (*kinds, ABSENT)
            for position in range(max(self.stage.depth))
        }

    def encode_kinds(self, kinds: list[Kind]) -> dict[str, Value]:
        filled = [
            *(kind.value for kind in kinds),
            *[ABSENT] * (max(self.stage.depth) - len(kinds)),
        ]
        return {f"kind{position + 1}": kind for position, kind in enumerate(filled)}

    def decode_kinds(self, values: Mapping[str, Value]) -> list[Kind]:
        letters = (str(values[f"kind{position + 1}"]) for position in range(max(self.stage.depth)))
        return [Kind(letter) for letter in letters if letter != ABSENT]


class _OrderedEncoding(_OptionsEncoding):
    def kind_dimensions(self) -> dict[str, tuple[Value, ...]]:
        return {
            kind.value: tuple(n for n in numbers if n <= max(self.stage.depth))
            for kind, numbers in zip(KIND_ORDER, self.stage.counts, strict=True)
        }

    def encode_kinds(self, kinds: list[Kind]) -> dict[str, Value]:
        return {kind.value: kinds.count(kind) for kind in KIND_ORDER}

    def decode_kinds(self, values: Mapping[str, Value]) -> list[Kind]:
        counts = [int(values[kind.value]) for kind in KIND_ORDER]
        total = sum(counts)
        if total:
            depth = min(self.stage.depth, key=lambda depth: (abs(depth - total), depth))
            counts = _shares(counts, depth)
        return [kind for kind, count in zip(KIND_ORDER, counts, strict=True) for _ in range(count)]


def _shares(counts: Sequence[int], total: int) -> list[int]:
    """Counts in the same proportions that add up to `total`: largest remainders first."""
    given = sum(counts)
    shares = [count * total // given for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda i: (-(counts[i] * total % given), i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


class _ListedEncoding(_StageEncoding):
    def __init__(self, alphabets: Sequence[Sequence[Symbol]]) -> None:
        self._choices = [
            {ABSENT if symbol is None else str(symbol): symbol for symbol in alphabet}
            for alphabet in alphabets
        ]
        self.dimensions = {
            f"layer{position + 1}": tuple(choices)
            for position, choices in enumerate(self._choices)
        }

    def encode(self, layers: Layers) -> dict[str, Value]:
        filled = pad([layers], [len(self._choices)])
        return {
            f"layer{position + 1}": ABSENT if symbol is None else str(symbol)
            for position, symbol in enumerate(filled)
        }

    def decode(self, values: Mapping[str, Value]) -> Layers:
        symbols = (
            choices[str(values[f"layer{position + 1}"])]
            for position, choices in enumerate(self._choices)
        )
        return canonical_cells([symbol for symbol in symbols if symbol is not None])


class Encoding:
    """Placements of a counted space as named parameters, and back by repair.

    Args:
        counted: the space with its budget.

    Attributes:
        counted: as given.
        dimensions: the choices of each parameter, by name; more than one each.
    """

    def __init__(self, counted: BudgetedSpace) -> None:
        self.counted = counted
        self._repair = Repair(counted.priced, counted.box)
        automaton = counted.space.automaton
        self._stages: list[_StageEncoding] = []
        begin = 0
        for stage, depth in zip(counted.space.stages, automaton.depths, strict=True):
            alphabets = automaton.alphabets[begin : begin + depth]
            self._stages.append(_stage_encoding(stage, counted.space.order == "EVLN", alphabets))
            begin += depth
        every = {
            f"stage{i + 1}.{name}": choices
            for i, stage_encoding in enumerate(self._stages)
            for name, choices in stage_encoding.dimensions.items()
        }
        self.dimensions = {name: choices for name, choices in every.items() if len(choices) > 1}
        self._constants = {
            name: choices[0] for name, choices in every.items() if len(choices) == 1
        }

    def encode(self, placement: Placement) -> dict[str, Value]:
        """The parameters of a member; `repair(decode(...))` gives it back.

        Raises:
            InputError: `placement` is not a member inside the budget.
        """
        if placement not in self.counted:
            raise InputError(
                f"`a placement that is encoded is a member inside the budget` must hold, but "
                f"got {str(placement)!r}"
            )
        values = {
            f"stage{i + 1}.{name}": value
            for i, (encoding, layers) in enumerate(
                zip(self._stages, placement.stages, strict=True)
            )
            for name, value in encoding.encode(layers).items()
        }
        return {name: values[name] for name in self.dimensions}

    def decode(self, values: Mapping[str, Value]) -> Proposal:
        """The layers that the parameters propose, legal or not.

        Raises:
            InputError: names or values other than those of `dimensions`.
        """
        for name in self.dimensions.keys() ^ values.keys():
            raise InputError(
                f"`the parameters are those of the encoding` must hold, but {name!r} is "
                f"{'missing' if name in self.dimensions else 'none of them'}"
            )
        for name, choices in self.dimensions.items():
            if values[name] not in choices:
                raise InputError(
                    f"`{name}` is one of {', '.join(map(str, choices))}, but got {values[name]!r}"
                )
        every = {**self._constants, **values}
        return tuple(
            encoding.decode({name: every[f"stage{i + 1}.{name}"] for name in encoding.dimensions})
            for i, encoding in enumerate(self._stages)
        )

    def repair(self, proposal: Proposal) -> Placement:
        """The nearest member inside the budget, by the distance of `sharedattn.spaces.repair`.

        Args:
            proposal: layers of each stage, at most as many as the space has positions.
        """
        path = pad(proposal, self.counted.space.automaton.depths)
        return self.counted.placement(self._repair.nearest(path))


def _stage_encoding(
    stage: Stage, ordered: bool, alphabets: Sequence[Sequence[Symbol]]
) -> _StageEncoding:
    if isinstance(stage, ListedStage):
        return _ListedEncoding(alphabets)
    return _OrderedEncoding(stage) if ordered else _AnyOrderEncoding(stage)
