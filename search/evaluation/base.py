"""The interface of evaluation methods.

A way of evaluating is one frozen dataclass. Its fields are the options that it takes, by the names
that the command line has for them: an option of another way of evaluating is refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, ClassVar

from sharedattn.data import DataConfig
from sharedattn.recipe import Recipe
from sharedattn.results.artifacts.checkpoints import CheckpointStore
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.results.records import Document
from sharedattn.search.data_plan import Look
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
    """An evaluation method's contribution to a search.

    Attributes:
        space: the placements inside the budget, on the backbone that is evaluated.
        evaluator: measures placements.
        data_document: description of the data for the database.
        data: the data of training and evaluation, or None if nothing is trained.
        recipe: the training recipe of placements, or None if nothing is trained.
        weights: store of weights, or None to keep none.
        checkpoints: store of unfinished trainings, or None to keep none.
        shared: trains and evaluates the supernet, or None without one.
        training_processes: number of processes that train the supernet together.
        fingerprint: the method's part of the study's fingerprint.
        earlier: the setup of an earlier version, for a study that it began; or None if this is
            the same.
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
    earlier: Setup | None = None


@dataclass(frozen=True)
class Evaluation(ABC):
    """A method of evaluating placements, with its options.

    Attributes:
        name: value of `--evaluator`, also used in fingerprints.
        refuses: options of the search as a whole that it excludes, with the reason, by field.
        least_seeds: the fewest seeds of a front member.
        no_latency: why latencies cannot be measured with it, or None if they can.
    """

    name: ClassVar[str]
    refuses: ClassVar[dict[str, str]] = {}
    least_seeds: ClassVar[int] = 1
    no_latency: ClassVar[str | None] = None

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Names of its fields."""
        return tuple(f.name for f in fields(cls))

    @property
    def starts_from_weights(self) -> bool:
        """Whether trained weights are given."""
        return False

    @property
    def processes_per_trial(self) -> int | None:
        """Processes that train a placement together, or None for one on each GPU."""
        return None

    def check(self, config: SearchConfig) -> None:  # noqa: B027 (most have nothing to check)
        """Check that the options are compatible, before looking at data or machine.

        Raises:
            InputError: they are not; the message names the option and what it requires.
        """

    @abstractmethod
    def prepare(self, config: SearchConfig, space: Space, slots: Slots, look: Look) -> Setup:
        """Check data, recipe and place for this way of evaluating, and begin nothing.

        Args:
            config: the search's configuration.
            space: the legal placements, as declared.
            slots: what trials run on.
            look: looks at the data's files.

        Raises:
            InputError: what is wrong, and what to do.
        """


def rungs_of(config: SearchConfig, own: tuple[int, ...], epochs: int) -> tuple[int, ...]:
    """Epochs at which trials report: the requested, the recipe's own, or the default rungs."""
    if config.early_stopping is None:
        return own
    return config.rungs or own or default_rungs(epochs)
