"""A user-defined evaluator: a function from a network, or from a placement, to metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sharedattn.backbones import describe
from sharedattn.errors import InputError
from sharedattn.search.data_plan import Look
from sharedattn.search.evaluation.base import Evaluation, Setup
from sharedattn.search.evaluators.base import Evaluator
from sharedattn.search.evaluators.function import FunctionEvaluator
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space

if TYPE_CHECKING:
    from sharedattn.search.cluster.resources import Slots
    from sharedattn.search.config import SearchConfig


@dataclass(frozen=True)
class FromCallable(Evaluation):
    """Calls a function for each placement.

    Attributes:
        function: takes the built network, or the placement if its parameter is named
            `placement`; returns metrics by name, including `top1`. An `Evaluator` is also allowed.
    """

    name: ClassVar[str] = "callable"

    function: Callable[..., Any] | Evaluator | None = None

    def check(self, config: SearchConfig) -> None:
        if self.function is None:
            raise InputError("`evaluator` is None; give a callable")
        if isinstance(self.function, Evaluator):
            return
        # Raises if it does not take one argument or cannot be identified.
        FunctionEvaluator.of(self.function, image_size=1)
        if config.early_stopping is not None:
            raise InputError(
                "`early_stopping` requires an evaluator that reports at rungs, and a function "
                "does not; leave it out"
            )

    def prepare(self, config: SearchConfig, space: Space, slots: Slots, look: Look) -> Setup:
        function = self.function
        assert function is not None
        evaluator = (
            function
            if isinstance(function, Evaluator)
            else FunctionEvaluator.of(
                function, image_size=describe(space.backbone).image_size, device=slots.device
            )
        )
        name = getattr(function, "__name__", type(function).__name__).strip("<>")
        return Setup(
            space=BudgetedSpace(space, config.budget),
            evaluator=evaluator,
            data_document={"name": name},
        )
