"""Reading accuracies from a table, which simulates a search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sharedattn.backbones import describe
from sharedattn.errors import InputError
from sharedattn.search.data_plan import Look
from sharedattn.search.evaluation.base import Evaluation, Setup, rungs_of
from sharedattn.search.evaluators.table import TableEvaluator
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space

if TYPE_CHECKING:
    from sharedattn.search.cluster.resources import Slots
    from sharedattn.search.config import SearchConfig


@dataclass(frozen=True)
class FromTable(Evaluation):
    """Looks up each placement in a table.

    Attributes:
        table: a JSON file that maps placements to top1, or to top1 after each epoch.
    """

    name = "table"
    no_latency = "a table has no network to time"

    table: Path | None = None

    def __post_init__(self) -> None:
        if self.table is not None:
            object.__setattr__(self, "table", Path(self.table))

    def check(self, config: SearchConfig) -> None:
        if self.table is None:
            raise InputError("--evaluator table requires --table FILE")
        if config.baselines == "naive":
            raise InputError(
                "--evaluator table excludes --baselines naive, since it trains nothing; leave it "
                "out"
            )

    def prepare(self, config: SearchConfig, space: Space, slots: Slots, look: Look) -> Setup:
        assert self.table is not None
        table = TableEvaluator.load(self.table, describe(space.backbone))
        return Setup(
            space=BudgetedSpace(space, config.budget),
            evaluator=replace(table, rungs=rungs_of(config, (), table.fidelity.epochs)),
            data_document={"name": self.table.stem},
        )
