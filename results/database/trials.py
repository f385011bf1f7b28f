"""Read the trials of studies: their results, parameters, attempts and rungs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

from sqlalchemy import Row, func, select

from sharedattn.placement import NetworkSpec, Placement
from sharedattn.results.database import models
from sharedattn.results.database.bulk import gc_paused
from sharedattn.results.database.connections import Database
from sharedattn.results.database.costs import COST_COLUMNS, StoredCosts
from sharedattn.results.records import (
    FRONT_ROLES,
    Attempt,
    Document,
    EpochMetrics,
    RungRow,
    Study,
    TrialParameters,
    TrialRole,
    TrialRow,
    TrialState,
)

_TRIAL_COLUMNS = (
    models.Trial.id,
    models.Trial.number,
    models.Trial.role,
    models.Trial.replicate,
    models.Trial.state,
    models.Trial.reused,
    models.Trial.error,
    models.Trial.created_at,
    models.Trial.finished_at,
    models.Spec.key,
    models.Spec.placement,
    models.Evaluation.key,
    models.Evaluation.fidelity_key,
    models.Evaluation.seed,
    models.Evaluation.top1,
    models.Evaluation.loss,
    models.Evaluation.wall_time_s,
    models.Evaluation.weights_sha256,
    models.Latency.latency_source,
    models.Evaluation.num_images,
)
_PARAMETER_COLUMNS = (
    models.Trial.id,
    models.Trial.number,
    models.Trial.role,
    models.Trial.replicate,
    models.Trial.state,
    models.Trial.proposed,
    models.Trial.repaired,
    models.Trial.sampler_attributes,
    models.Spec.document,
    models.Spec.key,
    models.Evaluation.top1,
    select(func.count())
    .where(models.Attempt.trial_id == models.Trial.id)
    .correlate(models.Trial)
    .scalar_subquery(),
)
_NUM_COSTS = len(COST_COLUMNS)


class TrialQueries:
    """Reads trials; each method is one transaction.

    Args:
        database: the database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, study: Study, role: TrialRole | None = None) -> list[TrialRow]:
        """Trials with their results, in one query per role.

        Args:
            study: their study.
            role: role to read; defaults to `FRONT_ROLES`: search trials, then confirmations.

        Returns:
            Ordered by role and number.
        """
        with gc_paused():
            costs, rows = StoredCosts(study), self._rows(_TRIAL_COLUMNS, study, role)
            return [
                TrialRow(*_with_costs(row, costs, partial(Placement.parse, row.placement)))
                for row in rows
            ]

    def parameters(
        self,
        study: Study,
        role: TrialRole | None = None,
        states: Collection[TrialState] = tuple(TrialState),
    ) -> list[TrialParameters]:
        """Trials as a searcher needs them to resume: proposals, notes and values.

        Args:
            study: their study.
            role: role to read; defaults to `FRONT_ROLES`: search trials, then confirmations.
            states: states to read; RUNNING finds trials in flight when the driver was killed.

        Returns:
            Ordered by role and number.
        """
        with gc_paused():
            costs = StoredCosts(study)
            rows = self._rows(_PARAMETER_COLUMNS, study, role, states)
            return [
                TrialParameters(*_with_costs(row, costs, partial(_placement_in, row.document)))
                for row in rows
            ]

    def _rows(
        self,
        columns: Sequence[Any],
        study: Study,
        role: TrialRole | None,
        states: Collection[TrialState] = tuple(TrialState),
    ) -> list[Row[*tuple[Any, ...]]]:
        query = (
            select(*columns, *COST_COLUMNS.values())
            .select_from(models.Trial)
            .join(models.Spec, models.Spec.id == models.Trial.spec_id)
            .outerjoin(models.Evaluation, models.Evaluation.id == models.Trial.evaluation_id)
            .outerjoin(
                models.Latency,
                (models.Latency.study_id == models.Trial.study_id)
                & (models.Latency.spec_id == models.Trial.spec_id),
            )
            .where(models.Trial.study_id == study.id, models.Trial.state.in_(states))
            .order_by(models.Trial.number)
        )
        # One role at a time, since the index then gives the order.
        roles = FRONT_ROLES if role is None else (role,)
        return self._database.rows(*(query.where(models.Trial.role == each) for each in roles))

    def counts(self, study: Study, role: TrialRole) -> dict[TrialState, int]:
        """Number of trials by state, with every state present."""
        query = (
            select(models.Trial.state, func.count())
            .where(models.Trial.study_id == study.id, models.Trial.role == role)
            .group_by(models.Trial.state)
        )
        found = {state: count for state, count in self._database.rows(query)}
        return {state: found.get(state, 0) for state in TrialState}

    def attempts(self, trial_id: int) -> list[Attempt]:
        """The attempts of one trial, oldest first."""
        columns = [getattr(models.Attempt, field.name) for field in fields(Attempt)]
        query = select(*columns).where(models.Attempt.trial_id == trial_id)
        rows = self._database.rows(query.order_by(models.Attempt.number))
        return [Attempt(**row._mapping) for row in rows]

    def rung_reports(self, study: Study) -> list[RungRow]:
        """The search trials' metrics at their rungs, in the order of the decisions."""
        query = (
            select(
                models.Trial.number,
                models.Spec.macs,
                models.RungReport.goes_on,
                models.RungReport.epoch,
                models.RungReport.top1,
                models.RungReport.loss,
            )
            .select_from(models.RungReport)
            .join(models.Trial, models.Trial.id == models.RungReport.trial_id)
            .join(models.Spec, models.Spec.id == models.Trial.spec_id)
            .where(models.Trial.study_id == study.id, models.Trial.role == TrialRole.SEARCH)
            .order_by(models.RungReport.id)
        )
        with gc_paused():
            return [
                RungRow(number, EpochMetrics(*measured), macs, goes_on)
                for number, macs, goes_on, *measured in self._database.rows(query)
            ]


def _with_costs(
    row: Row[*tuple[Any, ...]], costs: StoredCosts, placement: Callable[[], Placement]
) -> tuple[Any, ...]:
    """A row whose last columns, those of `COST_COLUMNS`, are merged into one mapping."""
    return (*row[:-_NUM_COSTS], costs.of(row[-_NUM_COSTS:], placement))


def _placement_in(document: Document) -> Placement:
    return NetworkSpec.from_json(document).placement
