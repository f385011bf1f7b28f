"""The section of a report that says what each part of a placement is worth."""

from __future__ import annotations

from dataclasses import dataclass

from sharedattn.mechanisms.registry import branch_of
from sharedattn.results.explanation.explanation import (
    LEVEL,
    Effect,
    Estimate,
    Explanation,
    Verdict,
)
from sharedattn.results.explanation.lines import (
    by_price,
    clear_effects,
    interaction_line,
    interval,
    model_line,
    place,
    points,
    price_cells,
    silent_lines,
)

_MOST_SHADE = 60  # percent of the colour in the strongest cell, so that its text stays legible


@dataclass(frozen=True, slots=True)
class HeatCell:
    """One kind in one layer.

    Attributes:
        text: what it is worth in points; empty where the data cannot say.
        style: name of the cell's look: gain, loss, little, open, unseen or none.
        shade: percent of the colour.
        title: the same in words.
        starts_stage: whether its layer is the first of a stage.
    """

    text: str
    style: str
    shade: int
    title: str
    starts_stage: bool


@dataclass(frozen=True, slots=True)
class Worth:
    """An explanation as the page shows it.

    Attributes:
        what: what is predicted, such as "accuracies after 6 epochs".
        model: what it is learned from.
        level: of its intervals, in percent.
        effects: rows of what, worth, interval.
        silent: why others have no figures.
        interactions: rows as of effects.
        interaction_note: how many were asked.
        prices: rows of where, MACs a point, interval, example.
        stages: number of layers of each stage in the heat strip.
        kinds: rows of the heat strip: the kind's letter, its title, and a cell for each layer;
            none if the data cannot say anything of any layer.
    """

    what: str
    model: str
    level: str
    effects: tuple[tuple[str, str, str], ...]
    silent: tuple[str, ...]
    interactions: tuple[tuple[str, str, str], ...]
    interaction_note: str
    prices: tuple[tuple[str, str, str, str], ...]
    stages: tuple[int, ...]
    kinds: tuple[tuple[str, str, tuple[HeatCell, ...]], ...]


def worth_of(explanation: Explanation) -> Worth:
    """An explanation as the page shows it."""
    depths = [
        1 + max((e.position or 0 for e in explanation.layers if e.stage == stage), default=-1)
        for stage in range(explanation.num_stages)
    ]
    interactions = [(e, e.top1) for e in explanation.interactions if e.top1 is not None]
    return Worth(
        what=explanation.what,
        model=model_line(explanation),
        level=f"{LEVEL:.0%}".replace("%", " %"),
        effects=_rows(explanation, clear_effects(explanation)),
        silent=tuple(silent_lines(explanation)),
        interactions=_rows(explanation, interactions),
        interaction_note=interaction_line(explanation),
        prices=tuple(price_cells(explanation, price) for price in by_price(explanation.prices)),
        stages=tuple(depths),
        kinds=_heat(explanation, depths),
    )


def _rows(
    explanation: Explanation, effects: list[tuple[Effect, Estimate]]
) -> tuple[tuple[str, str, str], ...]:
    return tuple(
        (f"{place(explanation, e.stage)}{e.text}", points(found.mean), interval(found))
        for e, found in effects
    )


def _heat(
    explanation: Explanation, depths: list[int]
) -> tuple[tuple[str, str, tuple[HeatCell, ...]], ...]:
    """A row of cells for each kind; none if no cell has a figure."""
    if not any(e.verdict in (Verdict.CLEAR, Verdict.NEGLIGIBLE) for e in explanation.layers):
        return ()
    of = {(e.letter, e.stage, e.position): e for e in explanation.layers}
    clear = [e.top1 for e in explanation.layers if e.verdict is Verdict.CLEAR]
    most = max((abs(found.mean) for found in clear if found is not None), default=1.0)
    titles = {
        e.letter: e.text.rpartition(" in layer ")[0]
        for e in explanation.layers
        if e.letter is not None
    }
    return tuple(
        (
            letter,
            titles[letter],
            tuple(
                _cell(of.get((letter, stage, position)), most, starts_stage=position == 0)
                for stage, depth in enumerate(depths)
                for position in range(depth)
            ),
        )
        for letter in sorted(titles, key=lambda letter: branch_of(letter).rank)
    )


def _cell(effect: Effect | None, most: float, *, starts_stage: bool) -> HeatCell:
    if effect is None:
        return HeatCell("", "none", 0, "not in this space", starts_stage)
    found = effect.top1
    if found is None:
        why = "never tried" if effect.verdict is Verdict.UNSEEN else "decided by the MACs"
        return HeatCell("", "unseen", 0, f"{effect.text}: {why}", starts_stage)
    title = f"{effect.text}: {points(found.mean)} ({interval(found)})"
    if effect.verdict is Verdict.OPEN:
        return HeatCell("", "open", 0, f"{title}: the data cannot say", starts_stage)
    if effect.verdict is Verdict.NEGLIGIBLE:
        return HeatCell("0", "little", 0, title, starts_stage)
    shade = max(8, round(_MOST_SHADE * abs(found.mean) / most))
    style = "gain" if found.mean > 0.0 else "loss"
    return HeatCell(points(found.mean), style, min(shade, _MOST_SHADE), title, starts_stage)
