"""Compare supernet scores of placements with their stand-alone accuracies."""

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
from sharedattn.results.records import Document, Fidelity, TrialRow


@dataclass(frozen=True, slots=True)
class Gap:
    """A placement's supernet score and its stand-alone accuracy.

    Attributes:
        inherited: the placement evaluated with shared weights.
        trained: the same placement trained separately.
    """

    inherited: Candidate
    trained: Candidate

    @property
    def top1(self) -> float:
        """Trained minus inherited accuracy, a fraction."""
        return self.trained.top1 - self.inherited.top1


@dataclass(frozen=True, slots=True)
class Inheritance:
    """The front of a supernet search, and its gap to stand-alone accuracies.

    Attributes:
        fidelity: the fidelity of the supernet scores.
        num_scored: number of placements that the supernet scored.
        front: the front of supernet scores, from the cheapest member to the most expensive.
        hypervolume: the hypervolume of that front.
        fine_tuned: whether separate trainings start from the supernet's weights, not from scratch.
        gaps: one for each placement trained since, in the front's order.
        objectives: the study's objectives.
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
        """Mean of trained minus inherited accuracy, or None before any training."""
        return mean(gap.top1 for gap in self.gaps) if self.gaps else None

    @property
    def how_trained(self) -> str:
        """How placements are trained separately, in words."""
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
        """The document under `inherited` in the output of `search --json`."""
        quality = self.objectives[0].name
        return {
            "fidelity": self.fidelity.to_json(),
            "scored": self.num_scored,
            "front": [
                {
                    "id": member.number,
                    "placement": member.placement,
                    quality: member.top1,
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
                    f"inherited_{quality}": gap.inherited.top1,
                    f"trained_{quality}": gap.trained.top1,
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
    """Compare scores and accuracies, or return None if the search trained its placements.

    Args:
        rows: trials of one study, of both roles.
        objectives: the study's objectives.
        num_seeds: K, the number of trainings per placement to count.
        reference_point: the hypervolume's reference point, by objective.
        fine_tuned: whether separate trainings start from the supernet's weights.
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
