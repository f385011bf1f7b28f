"""Draw a placement for a model card: columns of text, and a legend of their letters."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from sharedattn.mechanisms.interface import Branch, Gate, NumberOption
from sharedattn.mechanisms.registry import registry
from sharedattn.placement import LayerChoice, NetworkSpec

_WIDTH = 100  # characters per line


def placement_drawing(spec: NetworkSpec) -> str:
    """A placement as columns of text, with one line per stage and per mechanism in use."""
    lines: list[tuple[str, list[str]]] = []
    for number, stage in enumerate(spec.placement.stages, 1):
        lines.append((f"stage {number}", [layer.kind for layer in stage]))
        for name in dict.fromkeys(option.name for _, option in _number_options(stage)):
            values = [layer.option(name) for layer in stage]
            lines.append((f"  {name}", ["." if v is None else str(v) for v in values]))
        for gate in _gates(stage):
            found = [layer.cell_of(gate.name) for layer in stage]
            cells = ["." if cell is None else str(cell + 1) for cell in found]
            lines.append((f"  {gate.title}", cells))
        if any(layer.cb for layer in stage):
            lines.append(("  CB", ["x" if layer.cb else "." for layer in stage]))
    head = max(len(name) for name, _ in lines)
    cell = max(len(text) for _, cells in lines for text in cells)
    return "\n".join(
        f"{name:{head}}  {' '.join(f'{text:>{cell}}' for text in cells)}" for name, cells in lines
    )


def drawing_key(spec: NetworkSpec) -> str:
    """The key to the letters and lines of `placement_drawing`, as a paragraph of text."""
    layers = spec.placement.layers
    kinds = [f"{branch.letter} {branch.title}" for branch in _branches(layers)]
    lines = [
        f"{option.name}: {option.title or option.name} of {branch.title}"
        for branch, option in _number_options(layers)
    ]
    lines += [f"{gate.title}: layers of one number share a cell" for gate in _gates(layers)]
    if any(layer.cb for layer in layers):
        lines.append("CB: context broadcasting")
    return textwrap.fill("; ".join((", ".join(kinds), *lines)) + ".", width=_WIDTH)


def _branches(layers: Iterable[LayerChoice]) -> list[Branch]:
    """The kinds of some layers, each once, as they are registered."""
    used = {layer.kind for layer in layers}
    return [branch for letter, branch in registry().branches.items() if letter in used]


def _number_options(layers: Iterable[LayerChoice]) -> list[tuple[Branch, NumberOption]]:
    return [
        (branch, option)
        for branch in _branches(layers)
        for option in branch.options
        if isinstance(option, NumberOption)
    ]


def _gates(layers: Iterable[LayerChoice]) -> list[Gate]:
    """The gates of some layers, by rank."""
    used = {layer.gate.gate for layer in layers if layer.gate is not None}
    return [gate for gate in registry().gates_by_rank if gate.name in used]
