"""Output shared by several commands: plans, progress, fronts, failures."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable

from rich.console import Console

from sharedattn.objectives import Objective
from sharedattn.results.explanation.explanation import LEVEL, Explanation
from sharedattn.results.explanation.lines import (
    clear_effects,
    interaction_line,
    model_line,
    silent_lines,
)
from sharedattn.results.front.ranking import epochs_text
from sharedattn.results.front.start import start_warnings
from sharedattn.results.front.summary import StudySummary, comparison_lines, start_lines
from sharedattn.results.records import Document, Start, StudyRecord
from sharedattn.search.cli.tables import (
    baselines_table,
    effects_table,
    front_table,
    members_table,
    prices_table,
)
from sharedattn.search.plan_text import budget_lines, plan_lines

SCAN_LINE_EVERY_S = 5.0


def progress_console() -> Console:
    """The console for progress and errors, also with --json."""
    return Console(stderr=True, soft_wrap=True)


def print_plan(plan: Document, errors: Console) -> None:
    lines = budget_lines(plan.get("budget", ()))
    if plan["data"] is not None:
        lines = [*plan_lines(plan["data"], plan["cost"], plan.get("weights")), *lines]
    if prior := plan.get("prior"):
        lines.append(f"prior   begins with {prior['accuracies']} accuracies of {prior['study']}")
    for line in lines:
        # Keep log lines whole, so that they can be searched.
        folded = (
            textwrap.wrap(line, errors.width, subsequent_indent=" " * 8)
            if errors.is_terminal
            else [line]
        )
        for part in folded:
            errors.print(part, highlight=False, markup=False)


def scan_display(errors: Console) -> Callable[[int, int], None]:
    """Make a callback that reports from time to time how many files of a folder were scanned."""
    said_at = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= SCAN_LINE_EVERY_S:
            said_at = time.monotonic()
            errors.print(f"looking at every image once: {done:,} of {total:,}", highlight=False)

    return say


def print_start(start: Start, study: StudyRecord, errors: Console) -> None:
    errors.print(f"start   {start}", markup=False, highlight=False)
    for warning in start_warnings(study, start):
        errors.print(f"        warning: {warning}", style="yellow", markup=False)


def print_failures(summary: StudySummary, console: Console) -> None:
    """Print why trials failed, as an error if none is complete."""
    is_error = bool(summary.failures) and not summary.candidates
    for line in summary.failure_lines:
        console.print(
            f"{'sharedattn: no trial is complete, ' if is_error else ''}{line}",
            style="red" if is_error else "yellow",
            markup=False,
            highlight=False,
        )


def print_front(summary: StudySummary, console: Console) -> None:
    for line in start_lines(summary):
        console.print(line, markup=False)
    if not summary.front.members:
        console.print("no trial is complete")
        return
    console.print(front_table(summary.front, summary.objectives))
    reference = ", ".join(
        f"{name} {summary.study.record.reference_point[name]:g}"
        for name in summary.study.record.objectives
    )
    confirmed = "confirmed" if summary.front.is_confirmed else "not confirmed"
    console.print(f"{confirmed}; hypervolume {summary.hypervolume:.4f} of the box to {reference}")
    if summary.latency_text is not None:
        console.print(f"latency: {summary.latency_text}")
    if summary.stopping is not None:
        console.print(str(summary.stopping))
    if summary.inheritance is not None:
        console.print(str(summary.inheritance))
    if summary.ranking is not None:
        console.print(f"the front of the trials, of {epochs_text(summary.ranking.trial_epochs)}:")
        console.print(members_table(summary.ranking.trial_front, summary.objectives))
        console.print(str(summary.ranking), markup=False)
    if summary.baselines:
        console.print("\nwhat one would try by hand, trained for as many seeds:")
        console.print(
            baselines_table(summary.baselines, summary.front.members, summary.objectives[0])
        )
        for line in comparison_lines(summary):
            console.print(line, markup=False)
    for warning in summary.warnings:
        console.print(f"warning: {warning}", style="yellow")


def print_explanation(explanation: Explanation, quality: Objective, console: Console) -> None:
    console.print(f"learned from {model_line(explanation)}", markup=False)
    console.print(
        f"\nat equal MACs, in points of {quality.label}, with {LEVEL:.0%} credible intervals:",
        markup=False,
    )
    clear = clear_effects(explanation)
    if clear:
        console.print(effects_table(explanation, clear))
    for line in silent_lines(explanation):
        console.print(line, markup=False)
    console.print(f"\n{interaction_line(explanation)}", markup=False)
    if explanation.interactions:
        found = [(one, one.top1) for one in explanation.interactions if one.top1 is not None]
        console.print(effects_table(explanation, found))
    if explanation.prices:
        console.print(f"\nthe next point of {quality.label} from the front, by one edit:")
        console.print(prices_table(explanation))
