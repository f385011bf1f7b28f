"""An explanation in words, for the terminal and the report."""

from __future__ import annotations

from collections.abc import Sequence

from sharedattn.results.explanation.explanation import (
    NEGLIGIBLE,
    Effect,
    Estimate,
    Explanation,
    Price,
    Verdict,
)
from sharedattn.units import format_quantity


def points(value: float) -> str:
    """A difference of accuracy in points with its sign: `+1.2`."""
    return f"{100.0 * value:+.1f}"


def interval(found: Estimate) -> str:
    """The credible interval of a difference of accuracy, in points: `-0.3 to +2.1`."""
    return f"{points(found.low)} to {points(found.high)}"


def place(explanation: Explanation, stage: int) -> str:
    """A stage before what is said of it: `stage 2: `; nothing if there is one alone."""
    return f"stage {stage + 1}: " if explanation.num_stages > 1 else ""


def model_line(explanation: Explanation) -> str:
    """What the explanation is learned from, and how well that predicts."""
    trainings, placements = explanation.num_trainings, explanation.num_placements
    again = "" if trainings == placements else f", {trainings} trainings"
    predicts = (
        "placements left out in turn are predicted to"
        if explanation.left_out_error < explanation.spread
        else "but placements left out in turn are predicted no better than by the mean: to"
    )
    return (
        f"{placements} placements{again}: {explanation.what}; one training's noise is about "
        f"{100.0 * explanation.noise:.1f} points; {predicts} "
        f"{100.0 * explanation.left_out_error:.1f} points, of a spread of "
        f"{100.0 * explanation.spread:.1f}"
    )


def clear_effects(explanation: Explanation) -> list[tuple[Effect, Estimate]]:
    """The effects of which something can be said, the most useful first."""
    found = [
        (effect, effect.top1)
        for effect in explanation.effects
        if effect.verdict is Verdict.CLEAR and effect.top1 is not None
    ]
    return sorted(found, key=lambda pair: -pair[1].mean)


def silent_lines(explanation: Explanation) -> list[str]:
    """One line for each reason to give no figures, with the effects that have it."""
    reasons = {
        Verdict.NEGLIGIBLE: f"within {100.0 * NEGLIGIBLE:g} points of nothing",
        Verdict.OPEN: "the data cannot say",
        Verdict.UNSEEN: "never varied among the trials",
        Verdict.TIED: "hardly any members of equal MACs differ in it",
    }
    lines = []
    for verdict, reason in reasons.items():
        found = [
            f"{place(explanation, effect.stage)}{effect.text}"
            for effect in explanation.effects
            if effect.verdict is verdict
        ]
        if found:
            lines.append(f"{reason}: {'; '.join(found)}")
    return lines


def interaction_line(explanation: Explanation) -> str:
    """How many interactions were asked, and how many stand out."""
    asked, found = explanation.num_interactions, len(explanation.interactions)
    if not asked:
        return "no two parts varied together, so that no interaction could be asked"
    return (
        f"of {asked} interactions asked, {found or 'none'} stand{'s' if found <= 1 else ''} out; "
        f"intervals hold for all {asked} at once"
    )


def price_cells(explanation: Explanation, price: Price) -> tuple[str, str, str, str]:
    """A price in words: where to pay, MACs for a point, their interval, an example.

    Of a gain that is not clear, the second says that the data cannot say, and the third is empty.
    """
    where = f"stage {price.stage + 1}" if explanation.num_stages > 1 else "any layer"
    found, example = price.macs_per_point, f"{price.example[0]} to {price.example[1]}"
    if found is None:
        return where, "the data cannot say", "", example
    return (
        where,
        format_quantity(found.mean),
        f"{format_quantity(found.low)} to {format_quantity(found.high)}",
        example,
    )


def by_price(prices: Sequence[Price]) -> list[Price]:
    """Prices from the lowest; those that the data cannot say last."""

    def rank(price: Price) -> tuple[bool, float]:
        found = price.macs_per_point
        return found is None, 0.0 if found is None else found.mean

    return sorted(prices, key=rank)
