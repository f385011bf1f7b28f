"""Layer choices: a branch with its options, a gate, context broadcasting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import Branch, NumberOption, Options, OptionValue
from sharedattn.mechanisms.registry import branch_of, gate_of, registry, registry_cache

# Options with fixed places in a layer's JSON, which is older than the registry of mechanisms.
_PLACED_OPTIONS = ("slots", "form")
_PLACED_GATE = "dia"


class GateCell(NamedTuple):
    """A cell of a gate.

    Attributes:
        gate: the gate's name.
        cell: its number within its stage, among this gate's cells.
    """

    gate: str
    cell: int


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """The choice of one layer.

    Attributes:
        kind: letter of the branch in place of the backbone's attention.
        options: the branch's explicit options as (name, value); see `Branch.options`.
        gate: the cell that gates the layer, or None.
        cb: whether context broadcasting ends the layer's MLP.

    Raises:
        InputError: the branch or gate is unknown, an option is not the branch's, a number is out
            of range, or a layer that is left out has a gate or broadcasting.
    """

    kind: str
    options: Options = ()
    gate: GateCell | None = None
    cb: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", _checked(self.kind, self.options))
        if self.gate is not None:
            _check_cell(*self.gate)
        if (self.cb or self.gate is not None) and self.is_absent:
            raise InputError(
                f"{self} has context broadcasting or a gate, and a layer of kind {self.kind} "
                f"({self.branch.title}) has no branch for them; write {self.kind}"
            )

    @classmethod
    def of(
        cls,
        kind: str,
        *,
        cb: bool = False,
        **named: OptionValue | None,
    ) -> LayerChoice:
        """Create a choice by names: `LayerChoice.of("E", slots=16, dia=0, cb=True)`.

        Args:
            kind: letter of the branch.
            cb: whether context broadcasting ends the layer's MLP.
            named: options of the branch, and under a gate's name the number of the layer's cell.
                None, or a missing number option, stands for the default.

        Raises:
            InputError: cells of two gates are given, or as for the class.
        """
        said = {name: value for name, value in named.items() if value is not None}
        gates = [name for name in registry().gates if name in said]
        cells = [GateCell(name, cast(int, said.pop(name))) for name in gates]
        if len(cells) > 1:
            raise InputError(
                f"{' and '.join(cell.gate for cell in cells)} are gates; a layer has one at most"
            )
        for option in branch_of(kind).options:
            if isinstance(option, NumberOption):
                said.setdefault(option.name, option.default)
        return cls(kind, tuple(said.items()), cells[0] if cells else None, cb)

    @property
    def branch(self) -> Branch:
        """The branch of the letter."""
        return branch_of(self.kind)

    @property
    def is_absent(self) -> bool:
        """Whether the whole layer is left out."""
        return self.branch.is_absent

    def option(self, name: str) -> Any:
        """The value of an option, or None if it is not set or not the branch's."""
        for own, value in self.options:
            if own == name:
                return value
        return None

    def with_option(self, name: str, value: OptionValue | None) -> LayerChoice:
        """The choice with an option of its branch changed, or removed if None."""
        others = dict(self.options)
        others.pop(name, None)
        if value is not None:
            others[name] = value
        return replace(self, options=tuple(others.items()))

    def cell_of(self, gate: str) -> int | None:
        """The layer's cell of a gate, or None if that does not gate it."""
        return self.gate.cell if self.gate is not None and self.gate.gate == gate else None

    def to_json(self) -> list[Any]:
        """The layer as `[kind, slots, dia cell, "cb" or null]`, then its form if it has one.

        A sixth entry, a mapping, holds options of other names and another gate's cell.
        """
        said = dict(self.options)
        slots, form = (said.pop(name, None) for name in _PLACED_OPTIONS)
        other: dict[str, Any] = {"options": said} if said else {}
        if self.gate is not None and self.gate.gate != _PLACED_GATE:
            other["gate"] = list(self.gate)
        layer = [self.kind, slots, self.cell_of(_PLACED_GATE), "cb" if self.cb else None]
        if other:
            return [*layer, form, other]
        return layer if form is None else [*layer, form]

    @classmethod
    def from_json(cls, layer: Sequence[Any]) -> LayerChoice:
        """The inverse of `to_json`.

        Raises:
            InputError: not a list of four to six entries, or the values are not a valid layer.
        """
        try:
            kind, slots, dia, broadcasting, form, other = _six(layer)
            options = {"slots": slots, "form": form, **other.pop("options", {})}
            named = other.pop("gate", None if dia is None else [_PLACED_GATE, dia])
            gate = None if named is None else GateCell(*named)
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"a layer is [kind, slots, dia, cb], then its form where it has one, and a "
                f"mapping of other options and another gate, but got {layer!r}"
            ) from error
        if not isinstance(kind, str):
            raise InputError(f"a layer's kind is a letter, but got {layer!r}")
        if other:
            raise InputError(f"a layer has nothing but what is listed there, but got {layer!r}")
        if broadcasting not in (None, "cb"):
            raise InputError(f'a layer has "cb" or null as its fourth entry, but got {layer!r}')
        said = tuple((key, value) for key, value in options.items() if value is not None)
        return cls(kind, said, gate, broadcasting == "cb")

    def __str__(self) -> str:
        said = dict(self.options)
        codes = [option.text(said.get(option.name)) for option in self.branch.options]
        if self.gate is not None:
            codes.append(f"{gate_of(self.gate.gate).cell_code}{self.gate.cell}")
        if self.cb:
            codes.append("cb")
        return "/".join((self.kind, *filter(None, codes)))


def _six(layer: Sequence[Any]) -> tuple[Any, Any, Any, Any, Any, dict[str, Any]]:
    kind, slots, dia, broadcasting, *rest = layer
    form, other = (*rest, None, None)[:2]
    if len(rest) > 2:
        raise ValueError
    return kind, slots, dia, broadcasting, form, dict(other or {})


@registry_cache(maxsize=4096)
def _canonical_options(kind: str, options: Options) -> Options:
    branch = branch_of(kind)
    said = dict(options)
    if len(said) != len(options):
        raise InputError(f"a layer's options are named once, but got {options!r}")
    found = []
    for option in branch.options:
        value = said.pop(option.name, None)
        if value is None and isinstance(option, NumberOption):
            raise InputError(
                f"`{option.name}` is missing; a layer of kind {kind} ({branch.title}) has it, for "
                f"example {option.name}={option.default}"
            )
        if value is not None:
            option.check(value)
            found.append((option.name, value))
    for name, value in said.items():
        owners = [
            f"kind {other.letter}"
            for other in registry().branches.values()
            if name in {option.name for option in other.options}
        ]
        raise InputError(
            f"`{name}` is {value!r} in a layer of kind {kind} ({branch.title}), which has no such "
            f"option; {' and '.join(owners) or 'no kind'} has it"
        )
    return tuple(found)


def _checked(kind: str, options: Options) -> Options:
    for name, value in options:
        # True would equal the cached 1.
        if type(value) not in (int, str):
            raise InputError(f"`{name}` is {value!r}; an option is a whole number or a text")
    return _canonical_options(kind, options)


def _check_cell(gate: Any, cell: Any) -> None:
    if not isinstance(gate, str):
        raise InputError(f"a gate is named by a text, but got {gate!r}")
    gate_of(gate)
    if type(cell) is not int or cell < 0:
        raise InputError(f"`{gate}` has cells numbered from 0, but got {cell!r}")


def gate_runs(num_layers: int, num_groups: int, code: str = "dia") -> tuple[int, ...]:
    """The cell of each layer if a stage is split into contiguous groups, longer ones first.

    Args:
        num_layers: number of layers to gate in the stage; > 0.
        num_groups: number of cells, from 1 to `num_layers`.
        code: code of the gate, for the message.

    Returns:
        One cell number per layer: 7 layers in 3 groups are (0, 0, 0, 1, 1, 2, 2).

    Raises:
        InputError: there are more groups than layers, or none.
    """
    if not 1 <= num_groups <= num_layers:
        nearest = f"the most that fits is /{code}{num_layers}" if num_groups else f"write /{code}1"
        raise InputError(
            f"`/{code}{num_groups}` stands on a stage of {num_layers} layers to gate, which has "
            f"from 1 to {num_layers} groups; {nearest}"
        )
    length, longer = divmod(num_layers, num_groups)
    runs = [length + (group < longer) for group in range(num_groups)]
    return tuple(group for group, run in enumerate(runs) for _ in range(run))


def with_stage_options(
    layers: Iterable[LayerChoice], cells: Sequence[GateCell | None], with_cb: int
) -> tuple[LayerChoice, ...]:
    """Put gates and context broadcasting on the layers of a stage that are not left out.

    Args:
        layers: their kinds and the options of their branches are kept.
        cells: one for each layer that is not left out; None for no gate.
        with_cb: number of the last of these layers that broadcast context.
    """
    numbered = iter(enumerate(cells, with_cb - len(cells)))
    found = []
    for layer in layers:
        if not layer.is_absent:
            position, cell = next(numbered)
            layer = replace(layer, gate=cell, cb=position >= 0)
        found.append(layer)
    return tuple(found)


def num_present(layers: Iterable[LayerChoice]) -> int:
    """Number of layers that are not left out."""
    return sum(not layer.is_absent for layer in layers)


def trimmed(layers: Iterable[LayerChoice]) -> tuple[LayerChoice, ...]:
    """The layers of a stage up to the last that is not left out: those after it are no layers."""
    kept = list(layers)
    while kept and kept[-1].is_absent:
        kept.pop()
    return tuple(kept)


def numbered_cells(layers: Sequence[LayerChoice]) -> tuple[LayerChoice, ...]:
    """The layers with each gate's cells renumbered by first use."""
    cell_of: dict[GateCell, int] = {}
    counts: dict[str, int] = {}
    for layer in layers:
        if layer.gate is not None and layer.gate not in cell_of:
            cell_of[layer.gate] = counts.get(layer.gate.gate, 0)
            counts[layer.gate.gate] = cell_of[layer.gate] + 1
    if all(raw.cell == cell for raw, cell in cell_of.items()):
        return tuple(layers)
    return tuple(
        layer
        if layer.gate is None
        else replace(layer, gate=GateCell(layer.gate.gate, cell_of[layer.gate]))
        for layer in layers
    )
