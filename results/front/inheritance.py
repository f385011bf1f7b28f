"""What shared weights said of placements, beside what those came to when they were trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from sharedattn.objectives import Objective, shown_costs
from sharedattn.results.front.confirmation import (
    Candidate,
    candidates,
    candidates_at,
    is_inherited,
    pareto_members,
    retrained_fidelity,
)
from sharedattn.results.front.confirmation import objective_values as values_of
from sharedattn.results.front.pareto import hypervolume
from sharedattn.results.records.records import Document, Fidelity, TrialRow


@dataclass(frozen=True, slots=True)
class Gap:
    """A placement by shared weights and by its own.

    Attributes:
        inherited: with the shared weights.
        trained: with weights of its own.
    """

    inherited: Candidate
    trained: Candidate

    @property
    def top1(self) -> float:
        """Trained minus inherited accuracy, a fraction."""
        return self.trained.top1 - self.inherited.top1


@dataclass(frozen=True, slots=True)
class Inheritance:
    """A search by shared weights: its front, and how far that was from the truth.

    Attributes:
        fidelity: of the shared weights.
        num_scored: placements that they have scored.
        front: of inherited accuracies, from the cheapest member to the dearest.
        hypervolume: of that front.
        fine_tuned: whether placements are trained by themselves from their share of the shared
            weights, or from scratch.
        gaps: of the placements that have been trained since, in the front's order.
        objectives: what is compared.
    """

    fidelity: Fidelity
    num_scored: int
    front: tuple[Candidate, ...]
    hypervolume: float
    fine_tuned: bool
    gaps: tuple[Gap, ...]
    objectives: tuple[Objective, ...]

    @property
    def mean_gap(self) -> float | None:
        """Mean of trained minus inherited accuracy; None: nothing has been trained yet."""
        return mean(gap.top1 for gap in self.gaps) if self.gaps else None

    @property
    def how_trained(self) -> str:
        """How placements are trained by themselves, in words."""
        return "fine-tuned from them" if self.fine_tuned else "trained from scratch"

    def __str__(self) -> str:
        text = (
            f"{self.num_scored:,} placements scored by shared weights; hypervolume of their "
            f"front {self.hypervolume:.4f}"
        )
        if self.mean_gap is None:
            return text
        return (
            f"{text}; {len(self.gaps)} {self.how_trained}, "
            f"{100 * self.mean_gap:+.1f} points on average"
        )

    def to_json(self) -> Document:
        """As `search --json` has it under `inherited`."""
        return {
            "fidelity": self.fidelity.to_json(),
            "scored": self.num_scored,
            "front": [
                {
                    "id": member.number,
                    "placement": member.placement,
                    "top1": member.top1,
                    **{
                        cost.name: member.costs[cost.name]
                        for cost in shown_costs(self.objectives, member.costs)
                    },
                }
                for member in self.front
            ],
            "hypervolume": self.hypervolume,
            "front_training": "fine-tune" if self.fine_tuned else "retrain",
            "retrained": [
                {
                    "id": gap.trained.number,
                    "placement": gap.trained.placement,
                    "inherited_top1": gap.inherited.top1,
                    "trained_top1": gap.trained.top1,
                    "seeds": len(gap.trained.runs),
                }
                for gap in self.gaps
            ],
            "mean_gap": self.mean_gap,
        }


def inheritance_of(
    rows: Sequence[TrialRow],
    objectives: Sequence[Objective],
    num_seeds: int,
    reference_point: Mapping[str, float],
    *,
    fine_tuned: bool,
) -> Inheritance | None:
    """What shared weights gave; None where the search trained its placements.

    Args:
        rows: trials of one study, of both roles.
        objectives: what is compared.
        num_seeds: K, trainings of a placement that count.
        reference_point: of the hypervolume.
        fine_tuned: as of `Inheritance`.
    """
    if not is_inherited(rows):
        return None
    pool = candidates(rows, num_seeds)
    front = pareto_members(pool, objectives)
    retrained = retrained_fidelity(rows)
    trained = [] if retrained is None else candidates_at(rows, retrained, num_seeds)
    by_number = {candidate.number: candidate for candidate in pool}
    gaps = [Gap(by_number[candidate.number], candidate) for candidate in trained]
    return Inheritance(
        fidelity=Fidelity.from_key(pool[0].runs[0].fidelity_key or ""),
        num_scored=len(pool),
        front=front,
        hypervolume=hypervolume(values_of(front, objectives), objectives, reference_point),
        fine_tuned=fine_tuned,
        gaps=tuple(sorted(gaps, key=lambda gap: (gap.trained.macs, gap.trained.number))),
        objectives=tuple(objectives),
    )
