"""How well a search's trials rank placements that were trained for longer afterwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from sharedattn.objectives import Objective
from sharedattn.results.front.confirmation import (
    Candidate,
    candidates,
    pareto_members,
    retrained_fidelity,
    search_fidelity,
)
from sharedattn.results.records import Document, TrialRole, TrialRow, TrialState

CONFIDENCE = 0.95
NUM_RESAMPLES = 1000
LEAST_PLACEMENTS = 3
"""Fewest placements whose order says anything."""


@dataclass(frozen=True, slots=True)
class Longer:
    """A placement of a search trial that was trained for longer.

    Attributes:
        trial: its search trial.
        top1s: accuracies of the longer trainings, by replicate.
    """

    trial: Candidate
    top1s: tuple[float, ...]

    @property
    def top1(self) -> float:
        """Mean accuracy of the longer trainings, a fraction."""
        return math.fsum(self.top1s) / len(self.top1s)


@dataclass(frozen=True)
class Ranking:
    """The order of trials beside that of longer trainings of the same placements.

    Attributes:
        trial_epochs: epochs of a trial.
        final_epochs: epochs of a longer training.
        trial_front: the front of the trials alone, each of one run.
        placements: the placements with both, by ascending MACs.
    """

    trial_epochs: int
    final_epochs: int
    trial_front: tuple[Candidate, ...]
    placements: tuple[Longer, ...]

    @cached_property
    def tau(self) -> float | None:
        """Kendall's tau-b of trials with longer trainings; None for fewer than three."""
        return self._tau([one.trial.top1 for one in self.placements])

    @cached_property
    def macs_tau(self) -> float | None:
        """Kendall's tau-b of MACs with longer trainings: what needs no trial."""
        return self._tau([one.trial.macs for one in self.placements])

    @cached_property
    def params_tau(self) -> float | None:
        """As `macs_tau`, of params."""
        return self._tau([one.trial.costs["params"] for one in self.placements])

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The interval of 95 % of `tau`, by resampling placements; None as for `tau`."""
        if self.tau is None:
            return None
        generator = np.random.default_rng(0)
        short = np.array([one.trial.top1 for one in self.placements])
        final = np.array([one.top1 for one in self.placements])
        found = []
        for _ in range(NUM_RESAMPLES):
            drawn = generator.integers(len(short), size=len(short))
            value = _kendall(short[drawn], final[drawn])
            if value is not None:
                found.append(value)
        tail = 100 * (1 - CONFIDENCE) / 2
        low, high = np.percentile(found, [tail, 100 - tail]) if found else (-1.0, 1.0)
        return float(low), float(high)

    @property
    def warnings(self) -> list[str]:
        """That trials rank no better than a cost that needs none, if so."""
        if self.tau is None:
            return []
        known = {"MACs": self.macs_tau, "params": self.params_tau}
        better = [
            f"{name} ({tau:.2f})"
            for name, tau in known.items()
            if tau is not None and tau >= self.tau
        ]
        if not better:
            return []
        return [
            f"trials of {epochs_text(self.trial_epochs)} rank {len(self.placements)} placements "
            f"(tau {self.tau:.2f}) no better than {' and '.join(better)}: train trials for longer "
            f"(--epochs)"
        ]

    def __str__(self) -> str:
        text = (
            f"{len(self.placements)} placements trained for {epochs_text(self.final_epochs)} as "
            f"well as for {epochs_text(self.trial_epochs)}"
        )
        if self.tau is None or self.interval is None:
            return f"{text}; too few to compare their orders"
        low, high = self.interval
        return (
            f"{text}; trials rank them with Kendall's tau {self.tau:.2f} (95 % {low:.2f} to "
            f"{high:.2f}), MACs with {_shown(self.macs_tau)}, params with "
            f"{_shown(self.params_tau)}"
        )

    def to_json(self, quality: str) -> Document:
        """The document under `ranking` in the output of `search --json`.

        Args:
            quality: name of the study's measured objective.
        """
        return {
            "trial_epochs": self.trial_epochs,
            "final_epochs": self.final_epochs,
            "tau": self.tau,
            "interval": None if self.interval is None else list(self.interval),
            "macs_tau": self.macs_tau,
            "params_tau": self.params_tau,
            "trial_front": [
                {"id": c.number, "placement": c.placement, quality: c.top1, "macs": c.macs}
                for c in self.trial_front
            ],
            "placements": [
                {
                    "id": one.trial.number,
                    "placement": one.trial.placement,
                    "macs": one.trial.macs,
                    f"trial_{quality}": one.trial.top1,
                    quality: one.top1,
                    "seeds": len(one.top1s),
                }
                for one in self.placements
            ],
        }

    def _tau(self, figures: Sequence[float]) -> float | None:
        if len(self.placements) < LEAST_PLACEMENTS:
            return None
        return _kendall(np.array(figures), np.array([one.top1 for one in self.placements]))


def ranking_of(rows: Sequence[TrialRow], objectives: Sequence[Objective]) -> Ranking | None:
    """Compare trials with longer trainings, or return None before any has ended.

    Args:
        rows: the search and confirm trials of a study whose front is trained for longer.
        objectives: the study's objectives.
    """
    short, final = search_fidelity(rows), retrained_fidelity(rows)
    if short is None or final is None:
        return None
    trials = candidates(rows, 1)
    longer: dict[str, dict[int, float]] = {}
    for row in rows:
        if (
            row.role is TrialRole.CONFIRM
            and row.state is TrialState.COMPLETE
            and row.fidelity_key == final.key
            and row.top1 is not None
        ):
            longer.setdefault(row.spec_key, {})[row.replicate] = row.top1
    placements = [
        Longer(trial, tuple(top1 for _, top1 in sorted(longer[trial.spec_key].items())))
        for trial in trials
        if trial.spec_key in longer
    ]
    return Ranking(
        trial_epochs=short.epochs,
        final_epochs=final.epochs,
        trial_front=pareto_members(trials, objectives),
        placements=tuple(sorted(placements, key=lambda one: (one.trial.macs, one.trial.number))),
    )


def _kendall(first: np.ndarray, second: np.ndarray) -> float | None:
    """Kendall's tau-b, or None where all values of one side are equal."""
    value = float(stats.kendalltau(first, second).statistic)
    return None if math.isnan(value) else value


def epochs_text(epochs: int) -> str:
    """A number of epochs in words: `1 epoch`, `4 epochs`."""
    return f"{epochs} epoch{'s' if epochs != 1 else ''}"


def _shown(tau: float | None) -> str:
    return "none" if tau is None else f"{tau:.2f}"
