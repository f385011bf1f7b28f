"""A placement drawn as a strip: one cell a layer, its kind by letter and colour.

A number under the letter is the memory slots of an external layer, a dot in the corner context
broadcasting, a band under the cells the DIA unit that gates them, with its number in the stage.
"""

from __future__ import annotations

from markupsafe import Markup, escape

from sharedattn.placement import LayerChoice, Placement

CELL, GAP, STAGE_GAP, BAND = 28, 2, 10, 10  # pixels
KIND_NAMES = {"V": "vanilla", "L": "less", "E": "external", "N": "none"}


def placement_strip(text: str) -> Markup:
    """Inline SVG of a placement; its text is the image's name for those who cannot see it."""
    placement = Placement.parse(text)
    parts: list[str] = []
    x = 0
    for stage in placement.stages:
        for i, layer in enumerate(stage):
            joins = i > 0 and layer.dia is not None and stage[i - 1].dia == layer.dia
            parts.append(_cell(x, layer, joins=joins))
            x += CELL + GAP
        x += STAGE_GAP - GAP
    has_dia = any(layer.dia is not None for layer in placement.layers)
    width, height = x - STAGE_GAP, CELL + (GAP + BAND) * has_dia
    return Markup(
        f'<svg class="strip" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><title>{escape(text)}</title>{"".join(parts)}</svg>'
    )


def _cell(x: int, layer: LayerChoice, *, joins: bool) -> str:
    kind, middle = layer.kind.value, x + CELL / 2
    parts = [
        f'<rect class="kind-{kind}" x="{x}" y="0" width="{CELL}" height="{CELL}" rx="3"/>',
        f'<text class="on-{kind}" x="{middle}" y="{14 if layer.slots else 19}">{kind}</text>',
    ]
    if layer.slots:
        parts.append(f'<text class="on-{kind} small" x="{middle}" y="24">{layer.slots}</text>')
    if layer.cb:
        parts.append(f'<circle class="cb" cx="{x + CELL - 4.5}" cy="4.5" r="3.5"/>')
    if layer.dia is not None:
        start = x - GAP if joins else x
        top = CELL + GAP
        parts.append(
            f'<rect class="dia" x="{start}" y="{top}" width="{x + CELL - start}" '
            f'height="{BAND}"/>'
            f'<text class="on-dia small" x="{middle}" y="{top + 8}">{layer.dia + 1}</text>'
        )
    return "".join(parts)
