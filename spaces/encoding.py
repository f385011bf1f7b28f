"""A fixed flat encoding of placements for general samplers, and the way back into the space.

Every placement has the same named parameters, each from a closed list of choices, so that a
sampler such as TPE needs no knowledge of placements. Its proposals may break rules of the space;
`repair` gives the nearest member inside the budget, and the sampler is told the encoding of that
member. The parameters of a stage given by counts are

* in any order: `stageS.kindP`, the kind of layer P, or `-` where there is none;
* in the order of ranks: `stageS.LETTER`, the counts, read as shares where their sum is not an
  allowed depth;
* in both: `stageS.KEY`, the options of branches, the numbers of groups of gates, and `cb`, as in
  the space's document. If several gates have groups, the first by rank applies.

For a stage given layer by layer, `stageS.layerP` is the choice of layer P with its canonical cell.
Stages and layers count from 1. Parameters with a single choice are left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import OptionValue
from sharedattn.mechanisms.registry import branch_of, registry
from sharedattn.placement import (
    GateCell,
    LayerChoice,
    Placement,
    gate_runs,
    num_present,
    numbered_cells,
    trimmed,
    with_stage_options,
)
from sharedattn.spaces.automaton import pad
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.repair import Repair
from sharedattn.spaces.stages import (
    CountedStage,
    LastLayers,
    ListedStage,
    Stage,
    StageGroups,
    Symbol,
)
from sharedattn.spaces.stages.parts import Value, gates_by_code, read_value, value_text

Layers = tuple[LayerChoice, ...]
Proposal = tuple[Layers, ...]
"""The layers of each stage, in canonical cells; not necessarily a legal placement."""

ABSENT = "-"


def with_options(
    layers: Sequence[LayerChoice], groups: StageGroups | None, with_cb: int
) -> Layers:
    """Put the options of a whole stage on the layers of a stage.

    Args:
        layers: their kinds and the options of their branches are kept.
        groups: a gate and its groups, at most one per layer; or None for no gate.
        with_cb: number of last layers with context broadcasting.
    """
    depth = num_present(layers)
    cells: Sequence[GateCell | None] = [None] * depth
    if groups is not None and depth:
        runs = gate_runs(depth, min(groups.number, depth), groups.gate)
        cells = [GateCell(groups.gate, cell) for cell in runs]
    return with_stage_options(layers, cells, with_cb)


def groups_of(layers: Sequence[LayerChoice]) -> StageGroups | None:
    """The gate of a stage that has at most one, with its number of cells; or None."""
    cells = {layer.gate for layer in layers if layer.gate is not None}
    return StageGroups(next(iter(cells)).gate, len(cells)) if cells else None


class _StageEncoding(ABC):
    """The named parameters of one stage.

    Attributes:
        dimensions: the choices of each parameter, by the parameter's name within the stage.
    """

    dimensions: dict[str, tuple[Value, ...]]

    @abstractmethod
    def encode(self, layers: Layers) -> dict[str, Value]:
        """The parameters of a member's layers."""

    @abstractmethod
    def decode(self, values: Mapping[str, Value]) -> Layers:
        """The layers that the parameters propose."""


class _OptionsEncoding(_StageEncoding):
    """A stage given by counts: kinds of its layers, and options of the whole stage."""

    def __init__(self, stage: CountedStage) -> None:
        self.stage = stage
        self.dimensions = {**self.kind_dimensions()}
        for _, option in stage.used_options:
            values = stage.options[option.key]
            self.dimensions[option.key] = tuple(value_text(option, value) for value in values)
        most = max(stage.depth)
        for code, numbers in stage.gates.items():
            self.dimensions[code] = tuple(n for n in numbers if n <= most)
        self.dimensions["cb"] = tuple(k for k in stage.cb if k == "all" or k <= most)

    @abstractmethod
    def kind_dimensions(self) -> dict[str, tuple[Value, ...]]:
        """The parameters that encode the kinds."""

    @abstractmethod
    def encode_kinds(self, kinds: list[str]) -> dict[str, Value]:
        """The parameters of the kinds of a member's layers."""

    @abstractmethod
    def decode_kinds(self, values: Mapping[str, Value]) -> list[str]:
        """The kinds that the parameters propose."""

    def encode(self, layers: Layers) -> dict[str, Value]:
        # Without a layer of the kind its options have no effect: encode them always the same.
        options: dict[str, Value] = {}
        for branch, option in self.stage.used_options:
            found = (layer.option(option.name) for layer in layers if layer.kind == branch.letter)
            value = next(found, self.stage.options[option.key][0])
            options[option.key] = value_text(option, value)
        groups, gates = groups_of(layers), registry().gates
        gate = None if groups is None else gates[groups.gate].code
        with_cb = sum(layer.cb for layer in layers)
        last: LastLayers = with_cb if with_cb in self.stage.cb else "all"
        return {
            **self.encode_kinds([layer.kind for layer in layers]),
            **options,
            **{
                code: groups.number if groups is not None and code == gate else 0
                for code in self.stage.gates
            },
            "cb": last,
        }

    def decode(self, values: Mapping[str, Value]) -> Layers:
        kinds, last = self.decode_kinds(values), values["cb"]
        said: dict[str, list[tuple[str, OptionValue]]] = {}
        for branch, option in self.stage.used_options:
            value = read_value(option, values[option.key])
            if value is not None:
                said.setdefault(branch.letter, []).append((option.name, value))
        layers = [LayerChoice(kind, tuple(said.get(kind, ()))) for kind in kinds]
        groups = [
            StageGroups(gate.name, int(values[code]))
            for code, gate in gates_by_code().items()
            if values.get(code)
        ]
        with_cb = len(layers) if last == "all" else int(last)
        return with_options(layers, groups[0] if groups else None, with_cb)


class _AnyOrderEncoding(_OptionsEncoding):
    def kind_dimensions(self) -> dict[str, tuple[Value, ...]]:
        kinds = tuple(branch.letter for branch in self.stage.branches)
        left_out = sum(self.stage.most(b.letter) for b in self.stage.branches if b.is_absent)
        least = max(1, min(self.stage.depth) - left_out)
        return {
            f"kind{position + 1}": kinds if position < least else (*kinds, ABSENT)
            for position in range(max(self.stage.depth))
        }

    def encode_kinds(self, kinds: list[str]) -> dict[str, Value]:
        filled = [*kinds, *[ABSENT] * (max(self.stage.depth) - len(kinds))]
        return {f"kind{position + 1}": kind for position, kind in enumerate(filled)}

    def decode_kinds(self, values: Mapping[str, Value]) -> list[str]:
        letters = (str(values[f"kind{position + 1}"]) for position in range(max(self.stage.depth)))
        return [letter for letter in letters if letter != ABSENT]


class _OrderedEncoding(_OptionsEncoding):
    def kind_dimensions(self) -> dict[str, tuple[Value, ...]]:
        return {
            letter: tuple(n for n in numbers if n <= max(self.stage.depth))
            for letter, numbers in self.stage.counts.items()
        }

    def encode_kinds(self, kinds: list[str]) -> dict[str, Value]:
        return min(self._counts_of(kinds), key=lambda counts: tuple(counts.values()))

    def _counts_of(self, kinds: list[str]) -> Iterator[dict[str, Value]]:
        """Yield the counts that mean these kinds, those of left-out layers at the end added."""
        letters = list(self.stage.counts)
        choices: list[Iterable[int]] = []
        for place, letter in enumerate(letters):
            found = kinds.count(letter)
            may_follow = branch_of(letter).is_absent and place > letters.index(kinds[-1])
            more = [n for n in self.stage.counts[letter] if n >= found]
            choices.append(more if may_follow else [found])
        for counts in product(*choices):
            if sum(counts) in self.stage.depth:
                yield dict(zip(letters, counts, strict=True))

    def decode_kinds(self, values: Mapping[str, Value]) -> list[str]:
        counts = [int(values[letter]) for letter in self.stage.counts]
        total = sum(counts)
        if total:
            depth = min(self.stage.depth, key=lambda depth: (abs(depth - total), depth))
            counts = _shares(counts, depth)
        pairs = zip(self.stage.counts, counts, strict=True)
        return [letter for letter, count in pairs for _ in range(count)]


def _shares(counts: Sequence[int], total: int) -> list[int]:
    """Scale counts in proportion to the sum `total`, largest remainders first."""
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
        return numbered_cells([symbol for symbol in symbols if symbol is not None])


class Encoding:
    """Placements of a budgeted space as named parameters, and back by repair.

    Args:
        counted: the space with its budget.

    Attributes:
        counted: as given.
        dimensions: the choices of each parameter, by name; at least two each.
    """

    def __init__(self, counted: BudgetedSpace) -> None:
        self.counted = counted
        self._repair = Repair(counted.priced, counted.box)
        automaton = counted.space.automaton
        self._stages: list[_StageEncoding] = []
        begin = 0
        for stage, depth in zip(counted.space.stages, automaton.depths, strict=True):
            alphabets = automaton.alphabets[begin : begin + depth]
            self._stages.append(_stage_encoding(stage, counted.space.is_ordered, alphabets))
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
        """The parameters of a member; `repair(decode(...))` inverts it.

        Raises:
            InputError: `placement` is not a member inside the budget.
        """
        if placement not in self.counted:
            raise InputError(
                f"{str(placement)!r} is not a member of {self.counted.space.name} inside the "
                f"budget, so it has no encoding; give a member"
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
        """The layers that the parameters propose, legal or not; left-out ones at an end dropped.

        Raises:
            InputError: names or values other than those of `dimensions`.
        """
        for name in self.dimensions.keys() ^ values.keys():
            raise InputError(
                f"{name!r} is {'missing from' if name in self.dimensions else 'not among'} the "
                f"parameters; give exactly those of the encoding"
            )
        for name, choices in self.dimensions.items():
            if values[name] not in choices:
                raise InputError(
                    f"`{name}` is one of {', '.join(map(str, choices))}, but got {values[name]!r}"
                )
        every = {**self._constants, **values}
        return tuple(
            trimmed(
                encoding.decode(
                    {name: every[f"stage{i + 1}.{name}"] for name in encoding.dimensions}
                )
            )
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
