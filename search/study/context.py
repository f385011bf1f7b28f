"""Shared state of a study's loop: the study, its database, its space, its costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sharedattn.backbones import resolve
from sharedattn.costs.model import CostModel
from sharedattn.objectives import Objective, costs_of
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement, ResolvedSpec
from sharedattn.results.database.store import Store
from sharedattn.results.database.writing import StudyWriter
from sharedattn.results.front.confirmation import Front, study_front
from sharedattn.results.records import SpecRecord, Study, TrialParameters, TrialRow
from sharedattn.search.evaluators import Evaluator
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.naive import NaiveKind, NaiveNetwork


@dataclass(kw_only=True)
class StudyContext:
    """A study with write access to it, and the costs of its placements.

    Attributes:
        store: the database.
        driver: the study's writer.
        study: the study.
        space: the legal placements inside the budget.
        objectives: the objectives to optimise.
        evaluator: measures placements, and identifies evaluations.
        notes: the searcher's notes on the study, by key, as stored.
        latency_ms: known latencies of placements; milliseconds.
    """

    store: Store
    driver: StudyWriter
    study: Study
    space: BudgetedSpace
    objectives: tuple[Objective, ...]
    evaluator: Evaluator
    notes: dict[str, Any] = field(init=False)
    latency_ms: dict[Placement, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.notes = self.store.searcher_attributes(self.study)

    @cached_property
    def backbone(self) -> BackboneSpec:
        """The backbone of all placements."""
        return self.space.space.backbone

    @cached_property
    def costs(self) -> CostModel:
        """The cost model of placements."""
        return CostModel(self.backbone)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.record.name

    def front(self, rows: Sequence[TrialRow]) -> Front:
        """The front of the study's trials, as it stands."""
        record = self.study.record
        return study_front(rows, self.objectives, record.confirm_seeds, retrains=record.retrains)

    def resolved(self, placement: Placement) -> ResolvedSpec:
        """The network of a placement."""
        return resolve(NetworkSpec(self.backbone, placement))

    def spec_record(self, spec: ResolvedSpec, placement: Placement) -> SpecRecord:
        """What the database keeps of a placement's network.

        Args:
            spec: the network.
            placement: the placement as it was proposed.
        """
        return _spec_record(self.costs, spec, placement)

    def spec_record_elsewhere(self, spec: ResolvedSpec) -> SpecRecord:
        """What the database keeps of a network over another backbone than the study's."""
        return _spec_record(CostModel(spec.backbone), spec, spec.placement)

    def costs_of(self, placement: Placement) -> dict[str, float]:
        """The costs of a placement that are objectives of the study, by name."""
        costs = costs_of(self.costs, placement, self.objectives)
        if placement in self.latency_ms:
            costs["latency_ms"] = self.latency_ms[placement]
        return costs

    def values(self, top1: float, costs: Mapping[str, float]) -> tuple[float, ...]:
        """A trial's values in the order of the objectives.

        Args:
            top1: the quality, a fraction.
            costs: costs by name.
        """
        return (top1, *(float(costs[objective.name]) for objective in self.objectives[1:]))


def _spec_record(costs: CostModel, spec: ResolvedSpec, placement: Placement) -> SpecRecord:
    cost = costs.cost(placement)
    return SpecRecord.of(
        spec, params=cost.params, macs=cost.macs, attention_bytes=cost.attention_bytes
    )


@dataclass(frozen=True, slots=True)
class Visibility:
    """Determines which earlier results a trial's proposal may use.

    With one slot, trial i uses all before it. With `deterministic` on W slots it uses the results
    of trials up to i - 2W and treats later ones as running: two rounds of slack keep every slot
    busy, and the order of completion has no effect. Otherwise it uses whatever has finished.

    Attributes:
        waits: whether a trial waits until the trials that it may use have ended.
        lag: trial i uses trials up to i - `lag`.
    """

    waits: bool
    lag: int

    @classmethod
    def of(cls, *, deterministic: bool, num_slots: int) -> Visibility:
        """The visibility of a search on `num_slots` slots."""
        return cls(
            waits=deterministic or num_slots == 1,
            lag=2 * num_slots if deterministic and num_slots > 1 else 1,
        )


def placement_of(row: TrialParameters) -> Placement:
    """The placement of a stored trial."""
    return NetworkSpec.from_json(row.spec_document).placement


def naive_network_of(row: TrialParameters) -> NaiveNetwork:
    """The network of a stored baseline."""
    spec = resolve(NetworkSpec.from_json(row.spec_document))
    return NaiveNetwork(kind=NaiveKind(row.proposed["kind"]), spec=spec)
