"""Plot of a study's front: accuracy against its first cost."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

from sharedattn.results.front.summary import StudySummary

_FRONT, _OTHERS, _START = "#0072B2", "#999999", "#D55E00"


class FrontFigure(Figure):
    """A figure that notebooks show even without matplotlib's own display."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=120)
        return file.getvalue()


def plot_front(summary: StudySummary) -> Figure:
    """Plot a study's front over all its placements.

    Args:
        summary: the study.

    Returns:
        A figure with one axes: the objectives' first cost on the x axis, the quality on the y
        axis, and error bars (standard error) for members with several seeds.
    """
    quality, cost = summary.objectives[:2]
    figure = FrontFigure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    members = summary.front.members
    numbers = {member.number for member in members}
    others = [c for c in summary.candidates if c.number not in numbers and cost.name in c.costs]
    axes.scatter(
        [one.costs[cost.name] for one in others],
        [one.top1 for one in others],
        s=14,
        color=_OTHERS,
        label="other placements",
    )
    axes.errorbar(
        [one.costs[cost.name] for one in members],
        [one.top1 for one in members],
        yerr=[one.top1_standard_error or 0.0 for one in members],
        fmt="o-",
        markersize=5,
        linewidth=1.2,
        color=_FRONT,
        label="front",
    )
    start = None if summary.start is None else summary.start.summary(quality.name)
    if start is not None and cost.name in start:
        axes.scatter(
            start[cost.name], start[quality.name], s=40, marker="s", color=_START, label="start"
        )
    axes.set_xlabel(cost.label)
    axes.set_ylabel(quality.heading)
    axes.set_title(summary.study.record.name, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    return figure
