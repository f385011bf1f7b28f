"""Records of trials, of their attempts and of their rungs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from sharedattn.results.records.document import Document
from sharedattn.results.records.evaluation import EvaluationRecord
from sharedattn.results.records.spec import LatencySource, SpecRecord


class TrialState(StrEnum):
    """Where a trial stands; only COMPLETE ones have an evaluation."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"


class TrialRole(StrEnum):
    """Why a trial is run: to search, or to confirm a front member with another seed."""

    SEARCH = "search"
    CONFIRM = "confirm"


class AttemptOutcome(StrEnum):
    """How one attempt at a trial ended.

    LOST: its worker or its driver went away. PREEMPTED: the machine or its scheduler took the
    slot away, which is no fault of the trial.
    """

    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"
    LOST = "LOST"
    PREEMPTED = "PREEMPTED"


class TrialRow(NamedTuple):
    """One trial with its results, without the parameters: for fronts, reports and progress.

    A named tuple in the order of the query's columns: 50,000 of them are made at once.

    Attributes:
        id: the trial's row.
        number: its number within its study and role, from 0.
        role: search or confirm.
        replicate: r; the training seed is the study's seed + r.
        state: RUNNING, COMPLETE, PRUNED or FAILED.
        reused: whether its evaluation was there already, from this study or another.
        error: the line of a failed trial's traceback that says why, see `reason_of`.
        created_at: naive UTC.
        finished_at: naive UTC; None while RUNNING.
        spec_key: sha256 of the spec.
        placement: text.
        evaluation_key: of a COMPLETE trial, None of others, as are the fields that follow.
        fidelity_key: see `Fidelity.key`.
        seed: training seed.
        top1: fraction.
        loss: nats.
        wall_time_s: seconds of the evaluation.
        weights_sha256: None where no weights are kept.
        latency_source: how the latency is known; None where the study measures none.
        num_images: images that a COMPLETE trial was evaluated on; 0 where it was looked up.
        costs: of any trial, by the names of `sharedattn.objectives`: those that the database keeps
            and the study's own; without latency where the study measures none.
    """

    id: int
    number: int
    role: TrialRole
    replicate: int
    state: TrialState
    reused: bool
    error: str | None
    created_at: datetime
    finished_at: datetime | None
    spec_key: str
    placement: str
    evaluation_key: str | None
    fidelity_key: str | None
    seed: int | None
    top1: float | None
    loss: float | None
    wall_time_s: float | None
    weights_sha256: str | None
    latency_source: LatencySource | None
    num_images: int | None
    costs: Mapping[str, float]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return int(self.costs["macs"])


@dataclass(frozen=True, slots=True)
class TrialParameters:
    """One trial as a searcher needs it: what was proposed, what it came to, what it gave.

    Attributes:
        id: the trial's row.
        number: its number within its study and role.
        role: search or confirm.
        replicate: r of the training seed.
        state: where it stands.
        proposed: the searcher's parameters.
        repaired: the parameters of the placement that was evaluated, told back to the searcher.
        sampler_attributes: the searcher's own notes on this trial.
        spec_document: the spec as JSON.
        spec_key: sha256 of the spec.
        top1: of a COMPLETE trial, None of others.
        num_attempts: attempts begun, from 1.
        costs: as of `TrialRow`.
    """

    id: int
    number: int
    role: TrialRole
    replicate: int
    state: TrialState
    proposed: Document
    repaired: Document
    sampler_attributes: Document
    spec_document: Document
    spec_key: str
    top1: float | None
    num_attempts: int
    costs: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredTrial:
    """A search trial that came to its end at once, since shared weights gave its accuracy.

    Attributes:
        number: its number among the study's search trials.
        spec: the network.
        evaluation: what shared weights gave.
        proposed: the searcher's parameters; empty where the space was listed.
        repaired: the parameters of the placement, or None.
        sampler_attributes: the searcher's notes on the trial.
    """

    number: int
    spec: SpecRecord
    evaluation: EvaluationRecord
    proposed: Document = field(default_factory=dict)
    repaired: Document = field(default_factory=dict)
    sampler_attributes: Document = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at a trial.

    Attributes:
        number: from 1.
        finished_at: naive UTC; None while it runs.
        outcome: None while it runs.
        traceback: of a failed attempt, or what is known of a lost one.
    """

    number: int
    finished_at: datetime | None
    outcome: AttemptOutcome | None
    traceback: str | None


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """What a trial has come to after some epochs of training, as at a rung.

    Attributes:
        epoch: epochs trained; > 0.
        top1: accuracy, a fraction.
        loss: mean cross-entropy, nats.

    Raises:
        ValueError: a metric that is not finite or out of range, which is a failed trial.
    """

    epoch: int
    top1: float
    loss: float

    def __post_init__(self) -> None:
        if self.epoch < 1 or not math.isfinite(self.loss) or not 0 <= self.top1 <= 1:
            raise ValueError(
                f"`epoch` is from 1, `top1` from 0 to 1 and `loss` finite, but got "
                f"epoch={self.epoch}, top1={self.top1}, loss={self.loss}"
            )


class RungRow(NamedTuple):
    """What a search trial had come to at a rung, and what was decided there.

    Attributes:
        number: the search trial's number.
        metrics: at the rung.
        macs: multiply-accumulates of one image.
        goes_on: whether the trial was let on, or was stopped there.
    """

    number: int
    metrics: EpochMetrics
    macs: int
    goes_on: bool
