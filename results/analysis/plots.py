"""Plots of an analysis as SVG files, the network in colour and its control in grey."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from sharedattn.results.analysis import Analysis, Figure
from sharedattn.results.analysis.document import groups_of, matrices
from sharedattn.results.analysis.measuring import (
    Layer,
    comparable_pairs,
    consecutive_pairs,
    gate_pairs,
)

# The palette of Okabe and Ito, safe for colour-blind readers.
_NETWORK, _TRAINED, _CONTROL = "#0072B2", "#D55E00", "#777777"
_MAX_ANNOTATED = 8  # largest matrix, in layers, with its entries written out
_MAX_CHOICES = 12  # most layers whose choices are written below the axis
PLOT_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.hashsalt": "sharedattn",  # makes equal figures give equal files
}
"""Settings of matplotlib for every figure of the project."""


def write_plots(folder: Path, analysis: Analysis) -> list[str]:
    """Draw every plot for which the analysis has figures.

    Args:
        folder: existing output folder.
        analysis: the analysis.

    Returns:
        Names of the .svg files.
    """
    written = []
    with matplotlib.rc_context(PLOT_STYLE):
        for name, draw in _PLOTS.items():
            canvas = draw(analysis)
            if canvas is not None:
                canvas.savefig(folder / f"{name}.svg", metadata={"Date": None})
                written.append(f"{name}.svg")
    return written


def _entropy(analysis: Analysis) -> Canvas | None:
    layers = [layer for layer in analysis.layers if layer.maps is not None]
    if not layers:
        return None
    num_plots = 1 if analysis.counterpart is None else 2
    canvas = _canvas(max(4.2, 1.6 + 0.45 * len(layers)) * num_plots, 3.4)
    entropy, *others = canvas.subplots(1, num_plots, squeeze=False)[0]
    _figures(entropy, layers, [analysis.figures["entropy", x.position] for x in layers])
    entropy.set_title("Entropy of attention rows: 0 one-hot, 1 uniform")
    entropy.set_ylabel("entropy / ln(keys)")
    for change in others:
        _draw_change(change, analysis, layers)
    _legend(canvas, (others or [entropy])[0])
    return canvas


def _draw_change(change: Axes, analysis: Analysis, layers: Sequence[Layer]) -> None:
    changes = [analysis.broadcasting_change[layer.position] for layer in layers]
    _figures(change, layers, changes)
    if analysis.trained_change is not None:
        trained = [analysis.trained_change[layer.position] for layer in layers]
        change.plot(
            _values(trained), "s", color=_TRAINED, label="against a network trained the other way"
        )
    change.axhline(0, color="black", linewidth=0.6)
    change.set_title("Change with CB, same weights both ways")
    change.set_ylabel("entropy with CB less without")


def _diagonality(analysis: Analysis) -> Canvas | None:
    layers = [x for x in analysis.layers if ("diagonality", x.position) in analysis.figures]
    if not layers:
        return None
    canvas = _canvas(max(4.2, 1.6 + 0.45 * len(layers)), 3.2)
    axes = canvas.subplots()
    _figures(axes, layers, [analysis.figures["diagonality", x.position] for x in layers])
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_title("Diagonality: 0 uniform, below 0 diagonal")
    axes.set_ylabel("diagonality term")
    _legend(canvas, axes)
    return canvas


def _saturation(analysis: Analysis) -> Canvas | None:
    pairs = list(consecutive_pairs(analysis.layers))
    if not pairs:
        return None
    canvas = _canvas(max(4.2, 1.6 + 0.6 * len(pairs)) * 2, 3.4)
    both = canvas.subplots(1, 2)
    for axes, measure in zip(both, ("cosine", "correlation"), strict=True):
        figures = [analysis.figures[measure, one.position, other.position] for one, other in pairs]
        _figures(axes, [other for _, other in pairs], figures)
        axes.set_title(f"Similarity to the layer before: {measure}")
        axes.set_ylabel(f"{measure} of attention maps")
        axes.set_ylim(min(0.0, *axes.get_ylim()), 1.05)
    _legend(canvas, both[0])
    return canvas


def _similarity(analysis: Analysis) -> Canvas | None:
    groups = groups_of(comparable_pairs(analysis.layers))
    if not groups:
        return None
    measures = ("cosine", "correlation")
    side = max(2.4, 0.9 + 0.24 * max(map(len, groups)))
    canvas = _canvas(2 * len(measures) * side + 1, len(groups) * side + 0.5)
    grid = canvas.subplots(len(groups), 2 * len(measures), squeeze=False)
    for row, group in zip(grid, groups, strict=True):
        for i, measure in enumerate(measures):
            found = matrices(analysis.figures, measure, group)
            for axes, which in zip(row[2 * i : 2 * i + 2], ("value", "control_mean"), strict=True):
                _matrix(axes, group, found[which])
                who = "network" if which == "value" else "control"
                axes.set_title(f"{measure}, {who}")
    _scale(canvas, grid, "similarity of attention maps")
    return canvas


def _gates(analysis: Analysis) -> Canvas | None:
    pairs = list(gate_pairs(analysis.layers))
    if not pairs:
        return None
    stages = sorted({one.stage for one, _ in pairs})
    controls = ["control_mean"] + ["unshared"] * (analysis.unshared_gates is not None)
    titles = {
        "value": "network",
        "control_mean": "control, same units",
        "unshared": "control, a unit each",
    }
    side = 2.9
    canvas = _canvas((1 + len(controls)) * side + 1, len(stages) * side + 0.5)
    grid = canvas.subplots(len(stages), 1 + len(controls), squeeze=False)
    for row, stage in zip(grid, stages, strict=True):
        group = [x for x in analysis.layers if x.stage == stage and x.choice.gate is not None]
        found = matrices(analysis.figures, "gates", group)
        if analysis.unshared_gates is not None:
            alone = matrices(analysis.unshared_gates, "gates", group)
            found["unshared"] = alone["control_mean"]
        for axes, which in zip(row, ["value", *controls], strict=True):
            _matrix(axes, group, found[which])
            axes.set_title(f"Gates of stage {stage + 1}: {titles[which]}")
    _scale(canvas, grid, "Pearson correlation over channels")
    return canvas


_PLOTS: dict[str, Callable[[Analysis], Canvas | None]] = {
    "entropy": _entropy,
    "similarity": _similarity,
    "saturation": _saturation,
    "diagonality": _diagonality,
    "gates": _gates,
}


def _canvas(width: float, height: float) -> Canvas:
    return Canvas(figsize=(width, height), layout="constrained")


def _values(values: Sequence[float | None]) -> list[float]:
    """Values for matplotlib, with NaN for a gap where a figure is undefined."""
    return [np.nan if value is None else value for value in values]


def _figures(axes: Axes, layers: Sequence[Layer], figures: Sequence[Figure]) -> None:
    """Plot figures by layer: a line for the network, bars for the control's mean and SD."""
    x = np.arange(len(layers))
    mean = np.array(_values([figure.control_mean for figure in figures]))
    sd = np.array(_values([figure.control_sd for figure in figures]))
    axes.errorbar(
        x, mean, yerr=sd, fmt="_", color=_CONTROL, capsize=4, label="random control, mean and SD"
    )
    value = _values([figure.value for figure in figures])
    axes.plot(x, value, "o-", color=_NETWORK, markersize=5, label="network")
    axes.margins(y=0.15)
    axes.set_xlim(-0.6, len(layers) - 0.4)
    _name_layers(axes, layers)


def _legend(canvas: Canvas, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def _name_layers(axes: Axes, layers: Sequence[Layer]) -> None:
    if len(layers) <= _MAX_CHOICES:
        axes.set_xticks(range(len(layers)), [f"{x.label}\n{_choice(x)}" for x in layers])
    else:
        axes.set_xticks(range(len(layers)), [x.label for x in layers], rotation=90, fontsize=7)
    axes.set_xlabel("layer")


def _choice(layer: Layer) -> str:
    return str(layer.choice).replace("/", "\n")


def _matrix(axes: Axes, group: Sequence[Layer], matrix: list[list[float | None]]) -> None:
    """Draw values between -1 and 1, undefined ones in white."""
    values = np.array([_values(row) for row in matrix])
    axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
    labels = [f"{x.label} {x.choice.kind}" for x in group]
    axes.set_xticks(range(len(group)), labels, rotation=90)
    axes.set_yticks(range(len(group)), labels)
    axes.spines[:].set_visible(False)
    if len(group) > _MAX_ANNOTATED:
        axes.tick_params(labelsize=6)
        return
    for i, j in np.ndindex(values.shape):
        if not np.isnan(values[i, j]):
            colour = "white" if abs(values[i, j]) > 0.6 else "black"
            axes.text(
                j,
                i,
                f"{values[i, j]:.2f}".replace("-0.00", "0.00"),
                ha="center",
                va="center",
                color=colour,
                fontsize=7,
            )


def _scale(canvas: Canvas, grid: Any, label: str) -> None:
    canvas.colorbar(grid[0, 0].images[0], ax=list(grid.flat), label=label, shrink=0.8)
