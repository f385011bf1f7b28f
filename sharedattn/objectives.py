"""The registry of objectives that a search optimises.

Fronts, hypervolumes, bounds, tables, reports and documents read this registry; `register` adds an
objective. The first objective of a study is the quality of its task: `top1`, `miou`, `map50` or
`denoise_r2`. It alone is averaged over seeds; all others are costs of a placement, in closed form
or measured.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from sharedattn.errors import InputError
from sharedattn.tasks import CLASSIFY, QUALITIES
from sharedattn.units import BYTES, COUNT, FRACTION, MILLISECONDS, Share, Unit, parse_bound

if TYPE_CHECKING:
    from sharedattn.costs.model import CostModel
    from sharedattn.placement import LayerChoice, Placement


class Direction(StrEnum):
    """Whether more or less of an objective is better."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"


class StageRule(Protocol):
    """A bound on one stage's layers as an automaton, so that a space can count its members."""

    @property
    def start(self) -> Hashable:
        """The state before the first layer."""

    def step(self, state: Hashable, position: int, choice: LayerChoice) -> Hashable | None:
        """The state after the layer at `position`, or None if no continuation is in the bound."""

    def accepts(self, state: Hashable) -> bool:
        """Whether layers that end in `state` are within the bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One objective of a search.

    The fields determine how a bound on it is enforced. With `adds_up`, a space counts its members
    within the bound by sums over layers; with a `stage_rule`, by leaving out layers; both are
    exact. Any other cost is checked after a placement is drawn.

    Attributes:
        name: name in the database, in every document and on the command line.
        label: title of an axis, with the unit.
        heading: heading of a table's column.
        unit: how values are read and written.
        value_of: the cost of a placement in closed form, or None if it is measured.
        direction: whether more or less is better.
        ideal: the best possible value; one corner of the hypervolume's box.
        adds_up: whether a space counts it as a sum over layers; only MACs and params.
        stage_rule: makes the rule of one stage under a bound, from costs, the stage's index and
            the bound; or None.
        always_shown: whether tables and documents include it for every study that knows it, rather
            than only for those that have it as an objective.
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
        """Whether a space counts its members within a bound on it exactly."""
        return self.adds_up or self.stage_rule is not None


def _macs(costs: CostModel, placement: Placement) -> int:
    return costs.totals(placement).macs


def _params(costs: CostModel, placement: Placement) -> int:
    return costs.totals(placement).params


def _attention_bytes(costs: CostModel, placement: Placement) -> int:
    return costs.attention_bytes(placement)


def _attention_rule(costs: CostModel, stage: int, bound: float) -> StageRule:
    # Imported here, since the command line lists objectives before it imports networks.
    from sharedattn.costs.attention_memory import AttentionMemoryRule

    return AttentionMemoryRule(costs, stage, bound)


OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        *(
            Objective(
                name=name,
                label=label,
                heading=name,
                unit=FRACTION,
                direction=Direction.MAXIMIZE,
                ideal=1.0,
            )
            for name, label in (
                ("top1", "top-1"),
                ("miou", "mIoU"),
                ("map50", "mAP at 0.5"),
                ("denoise_r2", "R² of the noise"),
            )
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
"""By name, qualities first."""


def register(objective: Objective) -> None:
    """Add a cost that searches can optimise and bound.

    Args:
        objective: a closed-form cost; only built-in ones are measured or summed by spaces.

    Raises:
        InputError: its name is taken or not an identifier, or it is not a closed-form cost.
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
    """Every objective except the qualities."""
    return tuple(o for o in OBJECTIVES.values() if o.name not in QUALITIES.values())


def cost_objective(name: str) -> Objective:
    """Look up a cost by its name.

    Raises:
        InputError: there is none.
    """
    names = [objective.name for objective in cost_objectives()]
    if name not in names:
        raise InputError(f"{name!r} is no cost; name one of {', '.join(names)}")
    return OBJECTIVES[name]


def parse_objectives(names: Sequence[str], task: str | None = None) -> tuple[Objective, ...]:
    """Look up objectives by their names, in the given order.

    Args:
        names: of the objectives.
        task: of the networks, whose quality comes first; defaults to that of the first name.

    Raises:
        InputError: an unknown name, or not the task's quality followed by different costs.
    """
    task = task or next((t for t, name in QUALITIES.items() if name in names[:1]), CLASSIFY)
    quality = QUALITIES[task]
    costs = [objective.name for objective in cost_objectives()]
    first, others = set(names[:1]), set(names[1:])
    for name in names:
        if name not in OBJECTIVES:
            raise InputError(
                f"`objectives` names {name!r}, which is none; name {quality} and then of "
                f"{', '.join(costs)}"
            )
    if not (first - set(costs) and others and others <= set(costs)) or len(set(names)) < len(
        names
    ):
        raise InputError(
            f"`objectives` is {','.join(names) or 'empty'}; name {quality} first, then at least "
            f"one cost, each once"
        )
    if names[0] != quality:
        raise InputError(
            f"the first of the objectives is {names[0]}, but networks that {task} are measured by "
            f"{quality}; name {quality} first"
        )
    return tuple(OBJECTIVES[name] for name in names)


def default_objectives(task: str) -> tuple[str, str]:
    """Names of the objectives unless others are asked for: the task's quality, and MACs."""
    return QUALITIES[task], "macs"


def parse_bounds(texts: Iterable[str]) -> list[tuple[str, float | Share]]:
    """Read bounds from texts such as `macs=1.2G`, `macs=67%` or `attention_bytes=64M`.

    Raises:
        InputError: not NAME=VALUE, an unknown cost, or a value that its unit cannot read.
    """
    bounds = []
    for text in texts:
        name, is_given, value = text.partition("=")
        if not is_given:
            raise InputError(f"--max is {text!r}; write NAME=VALUE, for example macs=1.2G")
        try:
            bound = parse_bound(value, cost_objective(name.strip()).unit)
        except InputError as error:
            raise InputError(f"--max {text}: {error}") from error
        bounds.append((name.strip(), bound))
    return bounds


def costs_of(
    costs: CostModel, placement: Placement, objectives: Iterable[Objective]
) -> dict[str, float]:
    """A placement's costs, for those objectives that have a closed form."""
    return {o.name: o.value_of(costs, placement) for o in objectives if o.value_of is not None}


def shown_costs(
    objectives: Iterable[Objective], known: Container[str] | None = None
) -> tuple[Objective, ...]:
    """The costs in tables and documents of a study: the standard ones, then the study's own.

    Args:
        objectives: the study's objectives.
        known: names to keep, or None to keep all.
    """
    asked = {objective.name for objective in objectives}
    return tuple(
        o
        for o in cost_objectives()
        if (o.always_shown or o.name in asked) and (known is None or o.name in known)
    )
