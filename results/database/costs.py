"""Costs of stored trials, from their columns or in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sharedattn.objectives import costs_of, parse_objectives
from sharedattn.placement import BackboneSpec, Placement
from sharedattn.results.database import models
from sharedattn.results.records import Study

COST_COLUMNS = {
    "macs": models.Spec.macs,
    "params": models.Spec.params,
    "attention_bytes": models.Spec.attention_bytes,
    "latency_ms": models.Latency.latency_ms,
}
"""Columns of costs, by the names of `sharedattn.objectives`."""


class StoredCosts:
    """Computes costs of one study's trials from their columns.

    Args:
        study: study that sets the objectives and the backbone.
    """

    def __init__(self, study: Study) -> None:
        objectives = parse_objectives(study.record.objectives)
        self._others = tuple(o for o in objectives[1:] if o.name not in COST_COLUMNS)
        if self._others:
            # Imported here: it builds networks, takes seconds to import, and is rarely needed.
            from sharedattn.costs.model import CostModel

            backbone = BackboneSpec.from_json(study.record.space["backbone"])
            self._model = CostModel(backbone)

    def of(
        self, values: Sequence[float | None], placement: Callable[[], Placement]
    ) -> dict[str, float]:
        """Costs by name, without those not measured.

        Args:
            values: values of `COST_COLUMNS`, in their order.
            placement: called only if a cost has no column.
        """
        costs = {n: v for n, v in zip(COST_COLUMNS, values, strict=True) if v is not None}
        if self._others:
            costs |= costs_of(self._model, placement(), self._others)
        return costs
