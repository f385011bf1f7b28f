"""What every way of evaluating has in common.

A way of evaluating is one frozen dataclass. Its fields are the options that it takes, under the
names that `SearchConfig` has for them: an option that no field of it bears is refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sharedattn.data import DataConfig
from sharedattn.recipe import Recipe
from sharedattn.results.artifacts.checkpoints import CheckpointStore
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.results.records import Document
from sharedattn.search.evaluators.base import Evaluator
from sharedattn.search.evaluators.supernet import SupernetEvaluator
from sharedattn.search.pruners import default_rungs
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space

if TYPE_CHECKING:
    from sharedattn.search.cluster.resources import Slots
    from sharedattn.search.config import SearchConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a way of evaluating contributes to a search.

    Attributes:
        space: the placements inside the budget, on the backbone that is evaluated.
        evaluator: measures placements.
        data_document: what the database says of the data.
        data: the data of training and evaluation; None: nothing is trained.
        recipe: how placements are trained; None: nothing is trained.
        weights: where weights are kept; None: none are.
        checkpoints: where unfinished trainings are kept; None: none are.
        shared: trains and asks the supernet; None: there is none.
        training_processes: processes that train the supernet together.
        fingerprint: what this way of evaluating adds to the study's fingerprint.
    """

    space: BudgetedSpace
    evaluator: Evaluator
    data_document: Document
    data: DataConfig | None = None
    recipe: Recipe | None = None
    weights: WeightsStore | None = None
    checkpoints: CheckpointStore | None = None
    shared: SupernetEvaluator | None = None
    training_processes: int = 1
    fingerprint: Document = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation(ABC):
    """One way of evaluating placements, with its options.

    Attributes:
        name: of `--evaluator`, and in fingerprints.
        refuses: why options that belong to the search as a whole do not go with it, by field.
        least_seeds: the fewest seeds of a front member.
        no_latency: why latencies cannot be measured beside it; None: they can.
    """

    name: ClassVar[str]
    refuses: ClassVar[dict[str, str]] = {}
    least_seeds: ClassVar[int] = 1
    no_latency: ClassVar[str | None] = None

    @classmethod
    def of(cls, config: SearchConfig) -> Self:
        """The evaluation that a search's options describe."""
        return cls(**{name: getattr(config, name) for name in cls.options()})

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Names of its fields, which are fields of `SearchConfig`."""
        return tuple(f.name for f in fields(cls))

    def as_options(self) -> dict[str, Any]:
        """The fields of `SearchConfig` that describe it; the inverse of `of`."""
        return {"evaluator": self.name, **{n: getattr(self, n) for n in self.options()}}

    def check(self, config: SearchConfig) -> None:  # noqa: B027 (most have nothing to check)
        """Refuse options that do not go together, before data or machine are looked at.

        Raises:
            InputError: the option, and what it requires.
        """

    @abstractmethod
    def prepare(
        self,
        config: SearchConfig,
        space: Space,
        slots: Slots,
        *,
        on_scan: Callable[[int, int], None] | None = None,
        remember: bool = True,
    ) -> Setup:
        """Check data, recipe and place for this way of evaluating, and begin nothing.

        Args:
            config: what is asked for.
            space: the legal placements, as declared.
            slots: what trials run on.
            on_scan: as of `sharedattn.search.run.prepare`, as is `remember`.
            remember: whether looks at the data's files are written down.

        Raises:
            InputError: what is wrong, and what to do.
        """


def rungs_of(config: SearchConfig, own: tuple[int, ...], epochs: int) -> tuple[int, ...]:
    """Epochs at which trials report: those asked for, else the recipe's own, else the rule's."""
    if config.early_stopping is None:
        return own
    return config.rungs or own or default_rungs(epochs)
