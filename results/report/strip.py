"""Draw a placement as a strip: one cell per layer, with a letter and a colour for its branch.

The number under the letter is the first number option of the layer's branch, such as memory slots.
A layer that is left out is a gap with a dashed line around it. A dot in the corner marks context
broadcasting. A band under the cells marks the cell of a gate, in
the gate's colour and with the cell's number in the stage.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape

from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import Branch, Colors, Gate, NumberOption
from sharedattn.mechanisms.registry import is_always_listed, registry
from sharedattn.placement import GateCell, LayerChoice, Placement

CELL, GAP, STAGE_GAP, BAND = 28, 2, 10, 10  # pixels

_LAYERS = re.compile(r"([A-Z])(\d{0,4})")
_CODE = re.compile(r"/([a-z]+)")
_MOST_LAYERS = 1000


@dataclass(frozen=True, slots=True)
class _Cell:
    """The drawing of one layer."""

    kind: str
    number: int | None = None
    gate: GateCell | None = None
    cb: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """The vocabulary of a page's strips.

    Attributes:
        branches: the branches that are always listed, then others in use, in the order of
            registration.
        gates: the gates in use.
        missing: letters of kinds, and `/code` of options and gates, in the placements that are not
            registered here.
    """

    branches: tuple[Branch, ...]
    gates: tuple[Gate, ...]
    missing: tuple[str, ...]


def placement_strip(text: str) -> Markup:
    """Inline SVG of a placement, with its text as the image's accessible name.

    A placement with a kind or gate that is not installed is drawn from its text, as letters only.
    """
    stages = _stages(text)
    parts: list[str] = []
    x = 0
    for stage in stages:
        for i, cell in enumerate(stage):
            joins = i > 0 and cell.gate is not None and stage[i - 1].gate == cell.gate
            parts.append(_drawn(x, cell, joins=joins))
            x += CELL + GAP
        x += STAGE_GAP - GAP
    has_gate = any(cell.gate is not None for stage in stages for cell in stage)
    width, height = max(x - STAGE_GAP, 0), CELL + (GAP + BAND) * has_gate
    return Markup(
        f'<svg class="strip" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><title>{escape(text)}</title>{"".join(parts)}</svg>'
    )


def parts_of(texts: Iterable[str]) -> Parts:
    """The vocabulary of some placements' strips.

    Args:
        texts: the placements.
    """
    known = registry()
    kinds = {letter for letter, branch in known.branches.items() if is_always_listed(branch)}
    gates = {name for name, gate in known.gates.items() if is_always_listed(gate)}
    missing: set[str] = set()
    for text in texts:
        try:
            layers = Placement.parse(text).layers
        except InputError:
            missing.update(_missing(text))
            kinds.update(cell.kind for stage in _stages(text) for cell in stage)
        else:
            kinds.update(layer.kind for layer in layers)
            gates.update(layer.gate.gate for layer in layers if layer.gate is not None)
    return Parts(
        branches=tuple(branch for letter, branch in known.branches.items() if letter in kinds),
        gates=tuple(gate for name, gate in known.gates.items() if name in gates),
        missing=tuple(sorted(missing, key=lambda what: (what.startswith("/"), what))),
    )


def number_option(branch: Branch) -> NumberOption | None:
    """The option whose value is shown under the letter, or None without a number option."""
    numbers = (option for option in branch.options if isinstance(option, NumberOption))
    return next(numbers, None)


def style_of(parts: Parts) -> str:
    """The CSS of the classes that the strips and their key use."""
    light, dark, rules = [], [], []
    for branch in parts.branches:
        light.append(_variables(branch.letter, branch.colors.fill, branch.colors.ink))
        dark.append(_dark_variables(branch.letter, branch.colors))
        rules.append(_rule(f"kind-{branch.letter}", branch.letter))
    for gate in parts.gates:
        light.append(_variables(f"gate-{gate.name}", gate.colors.fill, gate.colors.ink))
        dark.append(_dark_variables(f"gate-{gate.name}", gate.colors))
        rules.append(_rule(f"gate-{gate.name}", f"gate-{gate.name}"))
    return (
        ":root { " + " ".join(light) + " }\n"
        "@media (prefers-color-scheme: dark) {\n  :root { " + " ".join(filter(None, dark)) + " }\n"
        "}\n" + "\n".join(rules) + "\n"
    )


def _variables(name: str, fill: str, ink: str) -> str:
    return f"--{name}: {fill}; --on-{name}: {ink};"


def _dark_variables(name: str, colors: Colors) -> str:
    if (colors.dark_fill, colors.dark_ink) == (colors.fill, colors.ink):
        return ""
    return _variables(name, colors.dark_fill, colors.dark_ink)


def _rule(drawn: str, name: str) -> str:
    return (
        f".{drawn} {{ fill: var(--{name}); background: var(--{name}); }} "
        f".on-{name} {{ fill: var(--on-{name}); }}"
    )


def _stages(text: str) -> list[list[_Cell]]:
    try:
        placement = Placement.parse(text)
    except InputError:
        return [_cells_in(stage) for stage in text.split("|")]
    return [[_cell(layer) for layer in stage] for stage in placement.stages]


def _cell(layer: LayerChoice) -> _Cell:
    option = number_option(layer.branch)
    number = None if option is None else layer.option(option.name)
    return _Cell(layer.kind, number, layer.gate, layer.cb)


def _cells_in(stage: str) -> list[_Cell]:
    """The layers of a stage that cannot be parsed, as letters only."""
    return [
        _Cell(letter)
        for layers in re.sub(r"\s+", "", stage).split(",")
        for letter, count in _LAYERS.findall(layers.partition("/")[0])
        for _ in range(min(int(count or 1), _MOST_LAYERS))
    ]


def _missing(text: str) -> set[str]:
    """Letters and codes in a text that are not registered."""
    known = registry()
    codes = {"cb"}
    codes.update(c for b in known.branches.values() for o in b.options for c in o.codes)
    codes.update(c for gate in known.gates.values() for c in (gate.code, gate.cell_code))
    letters = {cell.kind for stage in text.split("|") for cell in _cells_in(stage)}
    said = {f"/{code}" for code in _CODE.findall(text) if code not in codes}
    return {letter for letter in letters if letter not in known.branches} | said


def _drawn(x: int, cell: _Cell, *, joins: bool) -> str:
    middle = x + CELL / 2
    branch = registry().branches.get(cell.kind)
    fill, ink = (f"kind-{cell.kind}", f"on-{cell.kind}") if branch else ("unknown", "on-unknown")
    if branch is not None and branch.is_absent:
        fill += " absent"
    parts = [
        f'<rect class="{fill}" x="{x}" y="0" width="{CELL}" height="{CELL}" rx="3"/>',
        f'<text class="{ink}" x="{middle}" y="{19 if cell.number is None else 14}">'
        f"{cell.kind}</text>",
    ]
    if cell.number is not None:
        parts.append(f'<text class="{ink} small" x="{middle}" y="24">{cell.number}</text>')
    if cell.cb:
        parts.append(f'<circle class="cb" cx="{x + CELL - 4.5}" cy="4.5" r="3.5"/>')
    if cell.gate is not None:
        name = f"gate-{cell.gate.gate}"
        start, top = x - GAP if joins else x, CELL + GAP
        parts.append(
            f'<rect class="{name}" x="{start}" y="{top}" width="{x + CELL - start}" '
            f'height="{BAND}"/>'
            f'<text class="on-{name} small" x="{middle}" y="{top + 8}">{cell.gate.cell + 1}</text>'
        )
    return "".join(parts)
