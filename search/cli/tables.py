"""Tables for terminals, with the numbers of the JSON documents."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import JustifyMethod, OverflowMethod, RenderableType
from rich.table import Table
from rich.text import Text

from sharedattn.costs.break_even import LessAttentionEconomics
from sharedattn.costs.model import Cost
from sharedattn.objectives import Objective, shown_costs
from sharedattn.papers import Row
from sharedattn.results.explanation.explanation import Effect, Estimate, Explanation
from sharedattn.results.explanation.lines import (
    by_price,
    interval,
    place,
    points,
    price_cells,
)
from sharedattn.results.front.baselines import Baseline, difference
from sharedattn.results.front.confirmation import Candidate, Front
from sharedattn.units import format_fraction, format_quantity

_RIGHT: JustifyMethod = "right"


def front_table(front: Front, objectives: Sequence[Objective]) -> Table:
    """A front's members, from the cheapest to the most expensive."""
    return members_table(front.members, objectives)


def members_table(
    members: Sequence[Candidate],
    objectives: Sequence[Objective],
    *,
    one_line: bool = False,
    overflow: OverflowMethod = "fold",
) -> Table:
    """A table of front members, in the given order.

    Args:
        members: the members.
        objectives: their study's objectives.
        one_line: whether to give each one line, cutting long placements.
        overflow: rich's method of cutting.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    known = {name for member in members for name in member.costs}
    costs = shown_costs(objectives, known)
    columns: tuple[tuple[str, JustifyMethod], ...] = (
        ("id", "right"),
        ("placement", "left"),
        (objectives[0].heading, "left"),
        *((cost.heading, _RIGHT) for cost in costs),
        ("seeds", "right"),
    )
    for name, justify in columns:
        # With one line each, only the placement's column may be narrower than its text.
        no_wrap = one_line and name != "placement"
        table.add_column(name, justify=justify, no_wrap=no_wrap, overflow=overflow)
    for member in members:
        table.add_row(
            str(member.number),
            # `Text`, since a plain string's brackets would be markup.
            Text(member.placement, no_wrap=one_line, overflow=overflow if one_line else None),
            format_fraction(member.top1, member.top1_standard_error),
            *(
                cost.unit.format(member.costs[cost.name]) if cost.name in member.costs else ""
                for cost in costs
            ),
            str(len(member.runs)),
        )
    return table


def baselines_table(
    baselines: Sequence[Baseline], members: Sequence[Candidate], quality: Objective
) -> Table:
    """Networks made by hand, with the front's best within the MACs of each.

    Args:
        baselines: the networks.
        members: the front's members.
        quality: the study's measured objective.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    columns: tuple[tuple[str, JustifyMethod], ...] = (
        ("by hand", "left"),
        (quality.heading, "left"),
        ("MACs", "right"),
        ("params", "right"),
        ("seeds", "right"),
        ("front, within its MACs", "left"),
    )
    for name, justify in columns:
        table.add_column(name, justify=justify, overflow="fold")
    for baseline in baselines:
        candidate, found = baseline.candidate, difference(baseline, members)
        table.add_row(
            Text(baseline.title),
            format_fraction(candidate.top1, candidate.top1_standard_error),
            format_quantity(candidate.macs),
            format_quantity(candidate.costs["params"]),
            str(len(candidate.runs)),
            "no member" if found is None else f"{found}, id {found.member.number}",
        )
    return table


def effects_table(explanation: Explanation, effects: Sequence[tuple[Effect, Estimate]]) -> Table:
    """What things are worth, with intervals, in the given order."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("worth", justify="right")
    table.add_column("interval", no_wrap=True)
    table.add_column("what", overflow="fold")
    for effect, found in effects:
        what = f"{place(explanation, effect.stage)}{effect.text}"
        table.add_row(points(found.mean), interval(found), Text(what))
    return table


def prices_table(explanation: Explanation) -> Table:
    """What the next point of accuracy costs, stage by stage, the cheapest first."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("paid in", "MACs a point", "interval", "such as"):
        table.add_column(name, overflow="fold")
    for price in by_price(explanation.prices):
        table.add_row(*map(Text, price_cells(explanation, price)))
    return table


def cost_table(cost: Cost) -> Table:
    """A table of a cost by stage and mechanism."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("part")
    table.add_column("params", justify="right")
    table.add_column("MACs", justify="right")
    for i, stage in enumerate(cost.stages):
        table.add_row(f"stage {i + 1}", f"{stage.params:,}", f"{stage.macs:,}")
    for name, part in cost.mechanisms.items():
        table.add_row(f"  {name}", f"{part.params:,}", f"{part.macs:,}", style="dim")
    table.add_row("network", f"{cost.params:,}", f"{cost.macs:,}", style="bold")
    return table


def checks_table(checks: Sequence[Mapping[str, Any]]) -> Table:
    """A table of an exported folder's checks."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "check", "expected", "found"):
        table.add_column(name, overflow="fold")
    for check in checks:
        style = None if check["ok"] else "red"
        found = "equal" if check["expected"] == check["found"] else str(check["found"])
        mark = "ok" if check["ok"] else "NO"
        # The texts come from a file that anyone may have written; do not read them as markup.
        texts = (mark, check["name"], str(check["expected"]), found)
        table.add_row(*(Text(text) for text in texts), style=style)
    return table


def papers_tables(rows: Sequence[Row]) -> Iterator[RenderableType]:
    """Tables of published figures beside ours, one per source, with explanations below."""
    styles = {"equal": "green", "explained": None, "unknown shape": "dim"}
    for (paper, source), group in itertools.groupby(
        rows, key=lambda row: (row.figure.paper, row.figure.source)
    ):
        yield Text(f"\n{paper}: {source}", style="bold")
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("model", "figure"):
            table.add_column(name, no_wrap=True)
        for name in ("printed", "ours", "difference"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("counted", ratio=1)
        table.add_column("status", no_wrap=True)
        notes: dict[tuple[str, str], int] = {}
        model = ""
        for row in group:
            key = (row.network, row.note)
            number = notes.setdefault(key, len(notes) + 1) if row.note else ""
            table.add_row(
                "" if row.figure.model == model else Text(row.figure.model),
                row.figure.metric,
                row.figure.printed,
                row.ours_text,
                row.difference_text,
                Text(row.convention),
                f"{row.status} {number}",
                style=styles[row.status],
            )
            model = row.figure.model
        yield table
        explanations = Table.grid(padding=(0, 1))
        explanations.add_column(justify="right")
        explanations.add_column(overflow="fold")
        for (network, note), number in notes.items():
            text = f"{network}: {note}" if network else note
            explanations.add_row(str(number), Text(text), style="dim")
        yield explanations


def analysis_table(document: Mapping[str, Any]) -> Table:
    """A table of an analysis by layer, with the random controls' mean and SD below each figure."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("layer", "choice", "entropy", "change with CB", "like before", "diagonality"):
        table.add_column(name)
    broadcasting = document["broadcasting"] or {"layers": []}
    change = {row["layer"]: row for row in broadcasting["layers"]}
    before = {pair["layers"][1]: pair for pair in document["similarity"]["consecutive"]}
    diagonality = {row["layer"]: row["figure"] for row in document["diagonality"]}
    for row in document["entropy"]:
        layer = row["layer"]
        figures = (
            row,
            change.get(layer),
            before.get(layer, {}).get("correlation"),
            diagonality.get(layer),
        )
        table.add_row(layer, Text(row["choice"]), *map(_figure_cell, figures))
    return table


def analysis_notes(document: Mapping[str, Any]) -> list[str]:
    """Notes under an analysis's table: the gates, and what is compared."""
    seeds = len(document["control"]["seeds"])
    gates = document["gates"]
    notes = [
        f"On {document['images']} validation images; with each figure its control, mean and SD "
        f"of {seeds} random initialisations."
    ]
    if document["entropy"]:
        notes[0] += " Like before: correlation with the attention maps of the layer before."
        if document["broadcasting"] is not None:
            notes[0] += " Change with CB: the same weights run with and without."
    else:
        notes.append("No layer attends, so there is no entropy and no similarity of maps.")
    if gates is not None:
        parts = [f"correlation of gates across layers {_figure_text(gates['mean'])}"]
        if len(gates["stages"]) > 1:
            parts += [
                f"of stage {stage['stage']} {_figure_text(stage['figure'])}"
                for stage in gates["stages"]
            ]
        for name in ("shared", "independent"):
            if gates[name] is not None:
                parts.append(f"of {name} units {_figure_text(gates[name])}")
        unshared = gates["mean"].get("unshared_control_mean")
        if unshared is not None:
            sd = gates["mean"]["unshared_control_sd"]
            parts.append(
                f"random networks with a unit a layer {_number_text(unshared)} ± "
                f"{_number_text(sd)}"
            )
        notes.append("; ".join(parts))
    undefined = sum(row["undefined"] for row in document["entropy"])
    if gates is not None:
        undefined += sum(pair["undefined"] for pair in gates["pairs"])
    if undefined:
        notes.append(f"{undefined} values are undefined and left out of their means")
    return notes


def _figure_cell(figure: Mapping[str, Any] | None) -> Text:
    if figure is None:
        return Text("-")
    return Text.assemble(_number_text(figure["value"]), "\n", (_control_text(figure), "dim"))


def _figure_text(figure: Mapping[str, Any]) -> str:
    return f"{_number_text(figure['value'])} (control {_control_text(figure)})"


def _control_text(figure: Mapping[str, Any]) -> str:
    return f"{_number_text(figure['control_mean'])} ± {_number_text(figure['control_sd'])}"


def _number_text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def economics_text(economics: LessAttentionEconomics) -> str:
    """Describe what a stage's less-attention layer saves or loses."""
    default = economics.default
    verb = "saves" if default.saved_macs >= 0 else "loses"
    share = abs(default.saved_macs) / economics.vanilla_macs
    where = "queries a window" if economics.num_windows > 1 else "tokens"
    text = (
        f"a less-attention layer (/{default.form}) {verb} "
        f"{format_quantity(abs(default.saved_macs))} MACs of the "
        f"{format_quantity(economics.vanilla_macs)} of a vanilla one ({share:.1%})"
    )
    if default.break_even_tokens is not None:
        text += (
            f"; it saves below N = {default.break_even_tokens} {where}, and here "
            f"N = {economics.num_queries}"
        )
    if not default.fits:
        text += "; its maps are too large to be built"
    best = economics.best
    if best.form != default.form:
        text += f". /{best.form} saves {format_quantity(best.saved_macs)}"
    if best.form != "reuse" and default.saved_macs <= 0:
        text += f", /reuse {format_quantity(economics.forms[-1].saved_macs)}"
    return (
        f"{text}. The paper's form of the layer would cost "
        f"{format_quantity(economics.paper_form_macs)}."
    )
