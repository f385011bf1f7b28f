"""Describe every objective that a search compares, in one registry.

Fronts, hypervolumes, bounds, tables, reports and documents ask this registry; a new objective is
one more entry, made by `register`. Accuracy (`top1`) is the one objective that is averaged over
seeds; all the others are costs of a placement, known in closed form or measured.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from sharedattn.errors import InputError
from sharedattn.units import BYTES, COUNT, FRACTION, MILLISECONDS, Unit

if TYPE_CHECKING:
    from sharedattn.costs.model import CostModel
    from sharedattn.placement import LayerChoice, Placement

ACCURACY = "top1"


class Direction(StrEnum):
    """Whether more or less of an objective is better."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"


class StageRule(Protocol):
    """A bound on one stage's layers, read in order, so that a space can count what keeps it."""

    @property
    def start(self) -> Hashable:
        """The state before the first layer."""

    def step(self, state: Hashable, position: int, choice: LayerChoice) -> Hashable | None:
        """The state after the layer at `position`; None: no continuation is within the bound."""

    def accepts(self, state: Hashable) -> bool:
        """Whether layers that end in `state` are within the bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One axis of a search.

    How a bound on it is kept follows from the fields. Where `adds_up`, a space counts its members
    within the bound by their sums over layers; where there is a `stage_rule`, by leaving out
    layers; both exactly. Any other cost is checked after a placement was drawn.

    Attributes:
        name: as in the database, in every document and on the command line.
        label: title of an axis, with the unit.
        heading: of a column in tables.
        unit: how values are read and written.
        value_of: the cost of a placement in closed form; None: it is measured.
        direction: whether more or less is better.
        ideal: the value that nothing exceeds; one corner of the hypervolume's box.
        adds_up: whether it is a sum over layers that a space counts with: MACs and params alone.
        stage_rule: the rule of one stage under a bound, from costs, the stage's index and the
            bound; None: there is none.
        always_shown: whether tables and documents have it in every study that knows it, rather
            than in those alone that have it as an objective.
    """

    name: str
    label: str
    heading: str
    unit: Unit
    value_of: Callable[[CostModel, Placement], float] | None = None
    direction: Direction = Direction.MINIMIZE
    ideal: float = 0.0
    adds_up: bool = False
    stage_rule: Callable[[CostModel, int, float], StageRule] | None = None
    always_shown: bool = False

    @property
    def is_counted(self) -> bool:
        """Whether a space counts its members within a bound on it, exactly."""
        return self.adds_up or self.stage_rule is not None


def _macs(costs: CostModel, placement: Placement) -> int:
    return costs.totals(placement).macs


def _params(costs: CostModel, placement: Placement) -> int:
    return costs.totals(placement).params


def _attention_bytes(costs: CostModel, placement: Placement) -> int:
    return costs.attention_bytes(placement)


def _attention_rule(costs: CostModel, stage: int, bound: float) -> StageRule:
    # Imported here: the command line names objectives before it loads what builds networks.
    from sharedattn.costs.attention_memory import AttentionMemoryRule

    return AttentionMemoryRule(costs, stage, bound)


OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective(
            name=ACCURACY,
            label="top-1",
            heading="top1",
            unit=FRACTION,
            direction=Direction.MAXIMIZE,
            ideal=1.0,
        ),
        Objective(
            name="macs",
            label="MACs",
            heading="MACs",
            unit=COUNT,
            value_of=_macs,
            adds_up=True,
            always_shown=True,
        ),
        Objective(
            name="params",
            label="parameters",
            heading="params",
            unit=COUNT,
            value_of=_params,
            adds_up=True,
            always_shown=True,
        ),
        Objective(
            name="latency_ms",
            label="latency (ms)",
            heading="latency",
            unit=MILLISECONDS,
            always_shown=True,
        ),
        Objective(
            name="attention_bytes",
            label="attention memory (bytes)",
            heading="attention",
            unit=BYTES,
            value_of=_attention_bytes,
            stage_rule=_attention_rule,
        ),
    )
}
"""By name, accuracy first."""


def register(objective: Objective) -> None:
    """Add a cost to those that searches may compare and bound.

    Args:
        objective: a cost in closed form. Only the package's own are measured or summed by spaces.

    Raises:
        InputError: its name is taken or is no identifier, or it is no cost in closed form.
    """
    if objective.name in OBJECTIVES or not objective.name.isidentifier():
        raise InputError(
            f"the objective's `name` is {objective.name!r}; give an identifier other than "
            f"{', '.join(OBJECTIVES)}"
        )
    if objective.value_of is None or objective.adds_up or objective.ideal != 0.0:
        raise InputError(
            f"the objective {objective.name} is no cost in closed form; give it a `value_of`, an "
            f"`ideal` of 0 and no `adds_up`"
        )
    OBJECTIVES[objective.name] = objective


def cost_objectives() -> tuple[Objective, ...]:
    """Every objective but accuracy."""
    return tuple(o for o in OBJECTIVES.values() if o.name != ACCURACY)


def cost_objective(name: str) -> Objective:
    """The cost of this name.

    Raises:
        InputError: there is none.
    """
    names = [objective.name for objective in cost_objectives()]
    if name not in names:
        raise InputError(f"{name!r} is no cost; name one of {', '.join(names)}")
    return OBJECTIVES[name]


def parse_objectives(names: Sequence[str]) -> tuple[Objective, ...]:
    """The objectives of these names, in their order.

    Raises:
        InputError: an unknown name, or not top1 followed by different costs.
    """
    for name in names:
        if name not in OBJECTIVES:
            raise InputError(
                f"{name!r} is no objective; name top1 and then of "
                f"{', '.join(o.name for o in cost_objectives())}"
            )
    if len(set(names)) != len(names) or len(names) < 2 or names[0] != ACCURACY:
        raise InputError(
            f"the objectives are {','.join(names) or 'none'}; name top1 first, then at least one "
            f"cost, each once"
        )
    return tuple(OBJECTIVES[name] for name in names)


def parse_bounds(texts: Iterable[str]) -> list[tuple[str, float]]:
    """Bounds from texts such as `macs=1.2G` or `attention_bytes=64M`.

    Raises:
        InputError: no NAME=VALUE, an unknown cost, or a value that its unit does not read.
    """
    bounds = []
    for text in texts:
        name, is_given, value = text.partition("=")
        if not is_given:
            raise InputError(f"--max is {text!r}; write NAME=VALUE, for example macs=1.2G")
        bounds.append((name.strip(), cost_objective(name.strip()).unit.parse(value)))
    return bounds


def costs_of(
    costs: CostModel, placement: Placement, objectives: Iterable[Objective]
) -> dict[str, float]:
    """A placement's costs, of those among some objectives that are in closed form."""
    return {o.name: o.value_of(costs, placement) for o in objectives if o.value_of is not None}


def shown_costs(
    objectives: Iterable[Objective], known: Container[str] | None = None
) -> tuple[Objective, ...]:
    """The costs that tables and documents of a study have: always the same, then its own.

    Args:
        objectives: of the study.
        known: leaves out what is not in it; None: nothing is left out.
    """
    asked = {objective.name for objective in objectives}
    return tuple(
        o
        for o in cost_objectives()
        if (o.always_shown or o.name in asked) and (known is None or o.name in known)
    )
