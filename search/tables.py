"""Tables for people at a terminal; the same numbers as in the JSON documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from results.front import Front
from results.quantities import format_fraction, format_quantity
from sharedattn.cost import Cost


def front_table(front: Front) -> Table:
    """The members of a front, from the cheapest to the dearest."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, justify in (
        ("id", "right"),
        ("placement", "left"),
        ("top1", "left"),
        ("MACs", "right"),
        ("params", "right"),
        ("seeds", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for member in front.members:
        table.add_row(
            str(member.number),
            Text(member.placement),  # as a plain text its brackets would be markup
            format_fraction(member.top1, member.top1_standard_error),
            format_quantity(member.macs),
            format_quantity(member.params),
            str(len(member.runs)),
        )
    return table


def cost_table(cost: Cost) -> Table:
    """A cost, stage by stage and mechanism by mechanism."""
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
    """The checks of an exported folder."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "check", "expected", "found"):
        table.add_column(name, overflow="fold")
    for check in checks:
        style = None if check["ok"] else "red"
        found = "equal" if check["expected"] == check["found"] else str(check["found"])
        mark = "ok" if check["ok"] else "NO"
        # Texts of a file that anybody may have written, so none of them is markup.
        texts = (mark, check["name"], str(check["expected"]), found)
        table.add_row(*(Text(text) for text in texts), style=style)
    return table
