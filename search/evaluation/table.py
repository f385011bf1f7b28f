"""Reading accuracies from a table, which simulates a search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sharedattn.backbones import describe
from sharedattn.errors import InputError
from sharedattn.placement import Placement
from sharedattn.search.data_plan import Look
from sharedattn.search.evaluation.base import Evaluation, Setup, rungs_of
from sharedattn.search.evaluators.table import BenchEvaluator, TableEvaluator
from sharedattn.search.tables import SHIPPED, Part, PlacementBench
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space

if TYPE_CHECKING:
    from sharedattn.search.cluster.resources import Slots
    from sharedattn.search.config import SearchConfig

PARTS: tuple[Part, ...] = ("measured", "surrogate")


@dataclass(frozen=True)
class FromTable(Evaluation):
    """Looks up each placement in a table.

    Attributes:
        table: a JSON file that maps placements to top1, or to top1 after each epoch; or an .npz
            file of PlacementBench, the default being the shipped one.
        table_part: of PlacementBench, `measured` to choose among its measured placements, the
            default, or `surrogate` for predictions of the whole space.
    """

    name = "table"
    no_latency = "a table has no network to time"

    table: Path | None = None
    table_part: Part | None = None

    def __post_init__(self) -> None:
        if self.table is not None:
            object.__setattr__(self, "table", Path(self.table))

    def check(self, config: SearchConfig) -> None:
        if self.table is None and not SHIPPED.is_file():
            raise InputError(
                "--evaluator table requires --table FILE, since no benchmark is shipped with this "
                "version yet"
            )
        if self.table_part not in (None, *PARTS):
            raise InputError(f"--table-part is measured or surrogate, but got {self.table_part!r}")
        if self.table_part is not None and not self._is_bench:
            raise InputError(
                f"--table-part is of PlacementBench, an .npz file, but got --table {self.table}; "
                f"leave it out"
            )
        if self._is_bench and config.compute.executor == "ray":
            raise InputError(
                "--executor ray excludes PlacementBench, which simulates the slots; leave it out"
            )
        if config.baselines == "naive":
            raise InputError(
                "--evaluator table excludes --baselines naive, since it trains nothing; leave it "
                "out"
            )

    @property
    def _is_bench(self) -> bool:
        return self.table is None or self.table.suffix == ".npz"

    def prepare(self, config: SearchConfig, space: Space, slots: Slots, look: Look) -> Setup:
        if self._is_bench:
            return self._prepare_bench(config, space)
        assert self.table is not None
        table = TableEvaluator.load(self.table, describe(space.backbone))
        if not any(Placement.parse(text) in space for text in table.curves):
            raise InputError(
                f"{self.table} has no placement of {space.name}, only others such as "
                f"{next(iter(table.curves))!r}; give the table of that space"
            )
        return Setup(
            space=BudgetedSpace(space, config.budget),
            evaluator=replace(table, rungs=rungs_of(config, (), table.fidelity.epochs)),
            data_document={"name": self.table.stem},
        )

    def _prepare_bench(self, config: SearchConfig, space: Space) -> Setup:
        path, part = self.table or SHIPPED, self.table_part or "measured"
        bench = PlacementBench.load(path)
        if space.to_document() != bench.space_document:
            raise InputError(
                f"{path.name} is a table of the space {bench.space_document['name']}, but the "
                f"search is of {space.name}, or of another version of it; search that space, or "
                f"give another --table"
            )
        num_seeds = len(bench.seeds)
        if part == "measured" and config.confirm_seeds > num_seeds:
            raise InputError(
                f"`--confirm-seeds` is {config.confirm_seeds}, but {path.name} has {num_seeds} "
                f"seeds of each placement; give at most {num_seeds}, or --table-part surrogate"
            )
        among = map(Placement.parse, bench.texts(part)) if part == "measured" else None
        return Setup(
            space=BudgetedSpace(space, config.budget, among=among),
            evaluator=BenchEvaluator(
                bench,
                part,
                describe(space.backbone).image_size,
                rungs=rungs_of(config, (), bench.epochs),
            ),
            data_document={"name": f"{bench.about['task']}-{part}"},
        )
