"""Records of trials, their attempts and their rungs."""

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
    """State of a trial; only COMPLETE ones have an evaluation."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"


class TrialRole(StrEnum):
    """Purpose of a trial.

    SEARCH: to try a placement. CONFIRM: to train a member of the front with another seed.
    BASELINE: to train a network that a person would try by hand, for comparison.
    """

    SEARCH = "search"
    CONFIRM = "confirm"
    BASELINE = "baseline"


FRONT_ROLES = (TrialRole.SEARCH, TrialRole.CONFIRM)
"""The roles of the trials that a front is computed from."""


class AttemptOutcome(StrEnum):
    """How an attempt of a trial ended.

    LOST: its worker or driver died. PREEMPTED: the machine or its scheduler took the slot away,
    which is not the trial's fault.
    """

    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"
    LOST = "LOST"
    PREEMPTED = "PREEMPTED"


class TrialRow(NamedTuple):
    """A trial with its results but without parameters, for fronts, reports and progress.

    A named tuple in the order of the query's columns, since 50,000 of them are created at once.

    Attributes:
        id: id of the trial's row.
        number: number within its study and role, from 0.
        role: its purpose.
        replicate: r; the training seed is the study's seed + r.
        state: RUNNING, COMPLETE, PRUNED or FAILED.
        reused: whether its evaluation existed already, in this study or another.
        error: the line of a failed trial's traceback that gives the reason; see `reason_of`.
        created_at: naive UTC.
        finished_at: naive UTC, or None while RUNNING.
        spec_key: sha256 of the spec.
        placement: the placement's text.
        evaluation_key: key of a COMPLETE trial's evaluation, else None, as in the next fields.
        fidelity_key: see `Fidelity.key`.
        seed: training seed.
        top1: the quality of the task, a fraction: accuracy of a classifier, else its own.
        loss: mean cross-entropy, nats.
        wall_time_s: seconds of the evaluation.
        weights_sha256: hash of the weights' file, or None if none are kept.
        latency_source: source of the latency, or None if the study measures none.
        num_images: number of images that a COMPLETE trial was evaluated on, 0 for a table.
        costs: costs by the names of `sharedattn.objectives`, in any state: those of the database
            and the study's own, without latency if the study measures none.
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
        """Multiply-accumulates per image."""
        return int(self.costs["macs"])


@dataclass(frozen=True, slots=True)
class TrialParameters:
    """A trial as a searcher needs it: its parameters, state and values.

    Attributes:
        id: id of the trial's row.
        number: number within its study and role.
        role: its purpose.
        replicate: r of the training seed.
        state: its state.
        proposed: the searcher's parameters.
        repaired: parameters of the evaluated placement, told to the searcher.
        sampler_attributes: the searcher's notes on this trial.
        spec_document: the spec as JSON.
        spec_key: sha256 of the spec.
        top1: accuracy of a COMPLETE trial, else None.
        num_attempts: number of attempts begun, at least 1.
        costs: as in `TrialRow`.
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
    """A search trial scored with shared weights, and so complete from the start.

    Attributes:
        number: number among the study's search trials.
        spec: the network.
        evaluation: its accuracy with shared weights.
        proposed: the searcher's parameters, or empty if the whole space was listed.
        repaired: the placement's parameters, or None.
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
    """One attempt of a trial.

    Attributes:
        number: number of the attempt, from 1.
        finished_at: naive UTC, or None while it runs.
        outcome: how it ended, or None while it runs.
        traceback: traceback of a failed attempt, or what is known of a lost one.
    """

    number: int
    finished_at: datetime | None
    outcome: AttemptOutcome | None
    traceback: str | None


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """A trial's metrics after some epochs of training, such as at a rung.

    Attributes:
        epoch: epochs trained; > 0.
        top1: the quality of the task, a fraction: accuracy of a classifier, else its own.
        loss: mean cross-entropy, nats.

    Raises:
        ValueError: a metric is not finite or out of range; the trial failed.
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
    """A search trial's metrics at a rung, and the decision there.

    Attributes:
        number: the search trial's number.
        metrics: its metrics at the rung.
        macs: multiply-accumulates per image.
        goes_on: whether the trial continued or was stopped.
    """

    number: int
    metrics: EpochMetrics
    macs: int
    goes_on: bool
