"""Compare a study's front with networks that a person would try by hand.

The networks are trained by the study for its front's seeds, by the recipe of the front's members
(from scratch, by the data's recipe for that). A difference is that of the front's most accurate
member within a baseline's MACs, paired by seed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from sharedattn.placement import NetworkSpec, num_present
from sharedattn.results.front.confirmation import Candidate
from sharedattn.results.records import Document, Study, TrialParameters, TrialRow, TrialState
from sharedattn.spaces.naive import NaiveKind
from sharedattn.units import format_fraction, format_quantity

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A network that a person would try by hand, with its trainings.

    Attributes:
        kind: how it was made.
        spec: the network.
        candidate: its complete runs, by replicate.
    """

    kind: NaiveKind
    spec: NetworkSpec
    candidate: Candidate

    @property
    def macs(self) -> int:
        """Multiply-accumulates per image."""
        return self.candidate.macs

    def is_placement_of(self, member: Candidate) -> bool:
        """Whether a member of the front is the same network, trained in another way."""
        return member.spec_key == self.candidate.spec_key

    @property
    def title(self) -> str:
        """What it is, for people."""
        blocks = sum(map(num_present, self.spec.placement.stages))
        width = dict(self.spec.backbone.keywords).get("embed_dim")
        return {
            NaiveKind.UNCUT: "the backbone uncut",
            NaiveKind.FIRST: f"its first {blocks} blocks",
            NaiveKind.EVEN: f"{blocks} of its blocks, spread evenly",
            NaiveKind.CHEAPEST: f"{self.spec.placement}",
            NaiveKind.NARROW: f"{width} channels, from scratch",
            NaiveKind.SHALLOW: f"its first {blocks} blocks, from scratch",
        }[self.kind].replace("first 1 blocks", "first block")

    @property
    def short_title(self) -> str:
        """What it is, in a chart's few letters."""
        blocks = sum(map(num_present, self.spec.placement.stages))
        width = dict(self.spec.backbone.keywords).get("embed_dim")
        return {
            NaiveKind.UNCUT: "uncut",
            NaiveKind.FIRST: f"first {blocks}",
            NaiveKind.EVEN: f"{blocks} spread",
            NaiveKind.CHEAPEST: f"{self.spec.placement}",
            NaiveKind.NARROW: f"{width} channels",
            NaiveKind.SHALLOW: f"first {blocks} anew",
        }[self.kind]


class Difference(NamedTuple):
    """By how much the front's best is more accurate than a baseline, within its MACs.

    Attributes:
        member: the front's most accurate member of at most the baseline's MACs.
        top1: mean difference of the accuracies, a fraction; negative if the baseline is better.
        half_width: half the width of the interval of 95 % around it, over seeds that both have
            (Student's t); None with fewer than two.
    """

    member: Candidate
    top1: float
    half_width: float | None

    def __str__(self) -> str:
        about = "" if self.half_width is None else f" ± {100 * self.half_width:.1f}"
        return f"{100 * self.top1:+.1f}{about} points"


def baselines_of(
    study: Study, rows: Iterable[TrialRow], parameters: Iterable[TrialParameters]
) -> tuple[Baseline, ...]:
    """The baselines that have a complete run.

    Args:
        study: their study.
        rows: its trials of that role.
        parameters: the same trials' parameters.

    Returns:
        Baselines by kind, then by ascending MACs, with runs of the front's seeds alone.
    """
    parameters_of = {p.id: p for p in parameters}
    runs: dict[tuple[NaiveKind, str], list[TrialRow]] = defaultdict(list)
    specs: dict[str, NetworkSpec] = {}
    for row in rows:
        if row.state is TrialState.COMPLETE and row.replicate < study.record.confirm_seeds:
            own = parameters_of[row.id]
            specs[row.spec_key] = NetworkSpec.from_json(own.spec_document)
            runs[NaiveKind(own.proposed["kind"]), row.spec_key].append(row)
    found = []
    for (kind, spec_key), of_one in runs.items():
        ordered = tuple(sorted(of_one, key=lambda row: row.replicate))
        candidate = Candidate(ordered[0].number, ordered)
        found.append(Baseline(kind=kind, spec=specs[spec_key], candidate=candidate))
    order = list(NaiveKind)
    return tuple(sorted(found, key=lambda b: (order.index(b.kind), b.macs)))


def difference(baseline: Baseline, members: Sequence[Candidate]) -> Difference | None:
    """Compare the front's best within a baseline's MACs with the baseline.

    Args:
        baseline: the baseline.
        members: the front's members.

    Returns:
        None if no member has at most the baseline's MACs.
    """
    best = _best_within(members, baseline.macs)
    return None if best is None else _paired(best, baseline)


def _best_within(candidates: Iterable[Candidate], macs: int) -> Candidate | None:
    """The most accurate candidate of at most so many MACs, of equals the cheapest."""
    within = [candidate for candidate in candidates if candidate.macs <= macs]
    return max(within, key=lambda c: (c.top1, -c.macs), default=None)


def _paired(best: Candidate, baseline: Baseline) -> Difference:
    """By how much a member is more accurate than a baseline, paired by seed."""
    ours, theirs = (
        {run.seed: top1 for run, top1 in zip(c.runs, c.top1s, strict=True)}
        for c in (best, baseline.candidate)
    )
    paired = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    half_width = None
    if len(paired) > 1:
        error = float(np.std(paired, ddof=1)) / math.sqrt(len(paired))
        half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(paired) - 1)) * error
    mean = math.fsum(paired) / len(paired) if paired else best.top1 - baseline.candidate.top1
    return Difference(best, mean, half_width)


def best_by_hand(baselines: Sequence[Baseline]) -> tuple[Baseline, ...]:
    """The baselines that no other beats at no more MACs, without the uncut backbone."""
    cut = [b for b in baselines if b.kind is not NaiveKind.UNCUT]
    found: list[Baseline] = []
    for one in sorted(cut, key=lambda b: (b.macs, -b.candidate.top1)):
        if not found or one.candidate.top1 > found[-1].candidate.top1:
            found.append(one)
    return tuple(found)


def in_budget(
    baselines: Sequence[Baseline], members: Sequence[Candidate], max_macs: int | None
) -> tuple[Baseline, Difference] | None:
    """Compare the front's best inside a budget with the best made by hand inside it.

    Both may have fewer MACs than the budget.

    Args:
        baselines: result of `baselines_of`.
        members: the front's members.
        max_macs: the budget, or None without one.

    Returns:
        The best made by hand, the uncut backbone aside, and the difference; None without a budget,
        or if either side has none inside it.
    """
    if max_macs is None:
        return None
    inside = [one for one in best_by_hand(baselines) if one.macs <= max_macs]
    ours = _best_within(members, max_macs)
    # The dearest of those that no other beats is the most accurate.
    return (inside[-1], _paired(ours, inside[-1])) if inside and ours is not None else None


def baseline_lines(
    baselines: Sequence[Baseline], members: Sequence[Candidate], max_macs: int | None = None
) -> list[str]:
    """Sentences that compare a front with the best networks made by hand, the cheapest first.

    Args:
        baselines: result of `baselines_of`.
        members: the front's members.
        max_macs: the study's budget; its sentence comes last.
    """
    lines = []
    uncut = [b for b in baselines if b.kind is NaiveKind.UNCUT]
    for one in (*best_by_hand(baselines), *uncut):
        at = f"at {format_quantity(one.macs)} MACs"
        top1 = format_fraction(one.candidate.top1, one.candidate.top1_standard_error)
        found = difference(one, members)
        if found is None:
            lines.append(f"{at}: the front has no member, {one.title} reached {top1}")
            continue
        member = found.member
        same = (
            ", the same placement, trained in another way" if one.is_placement_of(member) else ""
        )
        lines.append(
            f"{at}: {found} over {one.title} ({top1}), by id {member.number} with "
            f"{format_quantity(member.macs)} MACs{same}"
        )
    inside = in_budget(baselines, members, max_macs)
    if max_macs is not None and inside is not None:
        one, found = inside
        top1 = format_fraction(one.candidate.top1, one.candidate.top1_standard_error)
        lines.append(
            f"inside the budget of {format_quantity(max_macs)} MACs: {found} between the front's "
            f"best, id {found.member.number} with {format_quantity(found.member.macs)}, and the "
            f"best made by hand, {one.title} with {format_quantity(one.macs)} ({top1})"
        )
    return lines


def baseline_warnings(
    baselines: Sequence[Baseline], members: Sequence[Candidate], max_macs: int | None = None
) -> list[str]:
    """Warn of networks made by hand that are better than the front by more than the interval.

    Args:
        baselines: result of `baselines_of`.
        members: the front's members.
        max_macs: the study's budget.
    """
    compared = [
        (one, found, "within its MACs")
        for one in best_by_hand(baselines)
        if (found := difference(one, members)) is not None
    ]
    inside = in_budget(baselines, members, max_macs)
    if inside is not None and inside not in [(one, found) for one, found, _ in compared]:
        compared.append((*inside, "inside the budget"))
    return [
        f"a network made by hand is better than the front's best {where}: {one.title} reached "
        f"{format_fraction(one.candidate.top1, one.candidate.top1_standard_error)} at "
        f"{format_quantity(one.macs)} MACs, id {found.member.number} differs by {found}; "
        f"train it by sharedattn train, or search for longer"
        for one, found, where in compared
        if found.half_width is not None and found.top1 + found.half_width < 0
    ]


def in_budget_document(
    baselines: Sequence[Baseline], members: Sequence[Candidate], max_macs: int | None
) -> Document | None:
    """`in_budget` in the JSON of a front; None without a budget, or if a side has none inside it.

    Args:
        baselines: result of `baselines_of`.
        members: the front's members.
        max_macs: the study's budget.
    """
    found = in_budget(baselines, members, max_macs)
    if found is None:
        return None
    by_hand, compared = found
    return {
        "max_macs": max_macs,
        "network": str(by_hand.spec),
        "front_id": compared.member.number,
        "front_difference": compared.top1,
        "front_difference_half_width": compared.half_width,
    }


def baseline_document(baseline: Baseline, members: Sequence[Candidate], quality: str) -> Document:
    """An entry of `baselines` in the JSON of a front.

    Args:
        baseline: the baseline.
        members: the front's members.
        quality: name of the study's measured objective.
    """
    candidate, found = baseline.candidate, difference(baseline, members)
    return {
        "kind": baseline.kind.value,
        "title": baseline.title,
        "network": str(baseline.spec),
        quality: candidate.top1,
        f"{quality}_standard_error": candidate.top1_standard_error,
        "macs": candidate.macs,
        "params": int(candidate.costs["params"]),
        "seeds": len(candidate.runs),
        "front_id": None if found is None else found.member.number,
        "front_difference": None if found is None else found.top1,
        "front_difference_half_width": None if found is None else found.half_width,
    }
