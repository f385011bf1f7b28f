"""Frozen records that are written to and read from the database, without a session.

The ORM classes in `sharedattn.results.database.models` stay inside the store; everything
else sees these.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from sharedattn.errors import InputError
from sharedattn.hashing import canonical_json, document_key
from sharedattn.placement import NetworkSpec

Document = dict[str, Any]


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


class LatencySource(StrEnum):
    """How a latency is known; what was summed from a table is of earlier versions."""

    TABLE = "table"
    NETWORK = "network"


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


def fine_tuning_key(recipe_key: str, starts_from: str) -> str:
    """Names a training that starts from weights that are there, in the place of its recipe.

    Args:
        recipe_key: of the recipe that it follows.
        starts_from: sha256 of the weights.
    """
    return document_key({"recipe": recipe_key, "starts_from": starts_from})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How faithfully an evaluation measures a placement; a front is drawn among equals only.

    Attributes:
        epochs: passes over the training data; > 0.
        image_size: pixels on a side.
        weights: trained for this placement alone, or inherited from a shared network.
    """

    epochs: int
    image_size: int
    weights: Literal["trained", "inherited"] = "trained"

    def __post_init__(self) -> None:
        if (
            type(self.epochs) is not int
            or type(self.image_size) is not int
            or self.epochs < 1
            or self.image_size < 1
            or self.weights not in ("trained", "inherited")
        ):
            raise InputError(
                f"`fidelity` has `epochs` and `image_size`, whole numbers from 1, and `weights`, "
                f"trained or inherited, but got {self}"
            )

    def to_json(self) -> Document:
        """Every field by name, and the share of the training data that keys have: all of it."""
        return {**asdict(self), "data_fraction": 1.0}

    @classmethod
    def from_json(cls, document: Document) -> Fidelity:
        """The inverse of `to_json`.

        Raises:
            InputError: a field out of its range, or a share of the training data.
            TypeError: missing fields, or others.
        """
        fields = dict(document)
        if fields.pop("data_fraction", 1.0) != 1.0:
            raise InputError(
                f"`fidelity` is of {document['data_fraction']} of the training data, and only "
                f"evaluations of all of it are read"
            )
        return cls(**fields)

    @property
    def key(self) -> str:
        """The canonical JSON itself: short enough to be read in the database."""
        return canonical_json(self.to_json())

    @classmethod
    @lru_cache(maxsize=256)
    def from_key(cls, key: str) -> Fidelity:
        """The inverse of `key`; cached, since a study of 50,000 trials has a handful."""
        return cls.from_json(json.loads(key))

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Sorts from the cheapest fidelity to the most faithful one."""
        return (self.weights == "trained", self.image_size, self.epochs)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationIdentity:
    """What makes two evaluations the same one, in whichever study.

    Attributes:
        spec_key: sha256 of the network spec.
        recipe_key: sha256 of the training recipe.
        data_fingerprint: sha256 over data, split and evaluation transform.
        fidelity: epochs, image size, provenance of weights.
        seed: the training seed itself, not the replicate's number.
    """

    spec_key: str
    recipe_key: str
    data_fingerprint: str
    fidelity: Fidelity
    seed: int

    @property
    def key(self) -> str:
        """sha256 in hexadecimal: unique in the database, and the name of the weights' file."""
        return document_key({**asdict(self), "fidelity": self.fidelity.to_json()})


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRecord:
    """A complete evaluation.

    Attributes:
        identity: what was evaluated.
        split: name of the split that the metrics are measured on.
        top1: accuracy, a fraction.
        loss: mean cross-entropy, nats.
        num_images: images in the split.
        learning_curve: one document per epoch.
        wall_time_s: seconds of training and evaluation.
        device: such as "cpu".
        threads: torch threads of the worker.
        versions: versions of the libraries, by name.
        weights_sha256: sha256 of the stored weights' file, or None if none are kept.

    Raises:
        ValueError: a metric that is not finite or out of range, which is a failed trial and no
            evaluation.
    """

    identity: EvaluationIdentity
    split: str
    top1: float
    loss: float
    num_images: int
    wall_time_s: float
    device: str
    threads: int
    versions: Mapping[str, str]
    learning_curve: Sequence[Mapping[str, Any]] = ()
    weights_sha256: str | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.top1 <= 1 and math.isfinite(self.loss)):
            raise ValueError(
                f"`top1` is from 0 to 1 and `loss` finite, but got top1={self.top1}, "
                f"loss={self.loss}; record the trial as failed"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvaluation:
    """An evaluation in the database.

    Attributes:
        id: its row.
        record: what was measured.
        created_at: naive UTC.
    """

    id: int
    record: EvaluationRecord
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecRecord:
    """A network spec with its closed-form figures.

    Attributes:
        key: sha256, the spec's own.
        text: `backbone(...)@size: placement`.
        placement: the placement's text alone.
        document: the spec as JSON.
        params: parameters.
        macs: multiply-accumulates of one image.
        attention_bytes: live attention memory of one image, float32.
    """

    key: str
    text: str
    placement: str
    document: Document
    params: int
    macs: int
    attention_bytes: int

    @classmethod
    def of(cls, spec: NetworkSpec, *, params: int, macs: int, attention_bytes: int) -> SpecRecord:
        """The record of a resolved spec and of its cost."""
        return cls(
            key=spec.key,
            text=str(spec),
            placement=str(spec.placement),
            document=spec.to_json(),
            params=params,
            macs=macs,
            attention_bytes=attention_bytes,
        )


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
class LatencyRecord:
    """How long a forward of a network takes, and how that is known.

    Attributes:
        latency_ms: milliseconds of one forward of a batch.
        latency_source: measured on the whole network, or, by earlier versions, summed from a
            table of parts.
        repeats: timed calls that the median is of.
        device: the device's name, with its threads where it is a CPU.
        batch_size: images of the batch.
        peak_bytes: peak memory on a CUDA device, or None where it was not counted.

    Raises:
        ValueError: no time at all, or none that is finite.
    """

    latency_ms: float
    latency_source: LatencySource
    repeats: int
    device: str
    batch_size: int
    peak_bytes: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.latency_ms) and self.latency_ms > 0):
            raise ValueError(f"`latency_ms`={self.latency_ms} is not a finite number above 0")

    def to_json(self) -> Document:
        """A plain dictionary of every field."""
        return {**asdict(self), "latency_source": self.latency_source.value}

    @classmethod
    def from_json(cls, document: Document) -> LatencyRecord:
        """The inverse of `to_json`.

        Raises:
            TypeError: missing fields, or others.
            ValueError: an unknown source, or no time.
        """
        record = cls(**document)
        return replace(record, latency_source=LatencySource(record.latency_source))

    def __str__(self) -> str:
        how = (
            "summed from its parts"
            if self.latency_source is LatencySource.TABLE
            else f"median of {self.repeats} forwards"
        )
        return f"{self.latency_ms:.3g} ms, {how}, batch of {self.batch_size}, {self.device}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """A study as it is first written.

    Attributes:
        name: unique in the database.
        fingerprint_document: every choice that makes this study this study; a study of the same
            name with another document is refused.
        space: the space's document.
        data: the data's document (name, version, splits, fingerprint).
        recipe: the training recipe's document.
        objectives: names, in order.
        searcher: the searcher's name.
        seed: the study's seed.
        reference_point: of the hypervolume, by objective, fixed before the first trial.
        provenance: command line, versions and machine of the first run.
        num_trials: search trials asked for, a total; may change from run to run.
        confirm_seeds: seeds per front member, a total; may change from run to run.
        weights_dir: the weights folder that its first run named, or None if unknown.
        latency: where latencies are measured: `source`, `where`, `setting` and `backbone`; None:
            there are none.
    """

    name: str
    fingerprint_document: Document
    space: Document
    data: Document
    recipe: Document
    objectives: tuple[str, ...]
    searcher: str
    seed: int
    reference_point: Mapping[str, float]
    provenance: Document
    num_trials: int
    confirm_seeds: int
    weights_dir: str | None = None
    latency: Document | None = None

    @property
    def fingerprint(self) -> str:
        """sha256 of the fingerprint document, in hexadecimal."""
        return document_key(self.fingerprint_document)

    @property
    def fine_tunes(self) -> bool:
        """Whether placements are trained from their share of a supernet's weights."""
        return "starts_from" in self.fingerprint_document


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study in the database.

    Attributes:
        id: its row.
        record: what it was made of, with the current totals.
        created_at: naive UTC.
        finished_at: naive UTC, or None while trials or confirmations are missing.
    """

    id: int
    record: StudyRecord
    created_at: datetime
    finished_at: datetime | None


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
class Attempt:
    """One attempt at a trial.

    Attributes:
        number: from 1.
        started_at: naive UTC.
        finished_at: naive UTC; None while it runs.
        outcome: None while it runs.
        traceback: of a failed attempt, or what is known of a lost one.
    """

    number: int
    started_at: datetime
    finished_at: datetime | None
    outcome: AttemptOutcome | None
    traceback: str | None


@dataclass(frozen=True, slots=True)
class RungReport:
    """What a trial had come to at a rung, and what was decided there.

    Attributes:
        epoch: the rung, epochs trained; > 0.
        top1: accuracy at that epoch, a fraction.
        loss: mean cross-entropy at that epoch, nats.
        goes_on: whether the trial was let on, or was stopped there.

    Raises:
        ValueError: a metric that is not finite or out of range.
    """

    epoch: int
    top1: float
    loss: float
    goes_on: bool

    def __post_init__(self) -> None:
        if self.epoch < 1 or not math.isfinite(self.loss) or not 0 <= self.top1 <= 1:
            raise ValueError(
                "a rung needs an `epoch` >= 1, a `top1` from 0 to 1 and a finite `loss`, but got "
                f" epoch={self.epoch}, top1={self.top1}, loss={self.loss}; record the trial "
                "as failed"
            )


class RungRow(NamedTuple):
    """One rung report with its trial's costs, as early stopping needs them to go on.

    Attributes:
        number: the search trial's number.
        epoch: the rung.
        top1: fraction, at that epoch.
        loss: nats, at that epoch.
        macs: multiply-accumulates of one image.
        params: parameters.
        goes_on: what was decided.
    """

    number: int
    epoch: int
    top1: float
    loss: float
    macs: int
    params: int
    goes_on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontSnapshot:
    """The front as it stood after a number of complete search trials.

    Attributes:
        num_complete: complete search trials at that time.
        members: trial numbers of the front's members.
        hypervolume: of that front, a fraction of the box.
    """

    num_complete: int
    members: tuple[int, ...]
    hypervolume: float
