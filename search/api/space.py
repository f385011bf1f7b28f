"""Search spaces, perhaps inside a budget, for scripts and notebooks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from sharedattn.errors import InputError
from sharedattn.objectives import cost_objective
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement
from sharedattn.search.api.networks import spec_of
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space as DeclaredSpace
from sharedattn.units import Share, format_quantity, parse_bound

Bound = float | Share


def _tighter(choose: Callable[..., Any], argument: str, new: Bound, old: Bound | None) -> Any:
    """The lower or higher of two bounds, which are both numbers or both shares."""
    if old is None:
        return new
    if isinstance(new, Share) is not isinstance(old, Share):
        raise InputError(
            f"`{argument}` is {new}, and {old} before; give both as numbers, or both as shares"
        )
    return choose(new, old)


class Space:
    """The legal placements on one backbone, counted exactly.

    Attributes:
        declared: the space as declared.
        budget: bounds on a placement's costs.
    """

    def __init__(self, declared: DeclaredSpace, budget: Budget | None = None) -> None:
        self.declared = declared
        self.budget = budget or Budget()

    @classmethod
    def load(cls, name_or_path: str | Path, *, task: str | None = None) -> Space:
        """Load a preset by its name, or a space from a YAML file.

        Args:
            name_or_path: a preset's name, also with an image size as in `pvt-tiny@64x96`, or a
                file.
            task: `detect`, for example, to give the backbone that task's default head; by default
                it keeps the one that it has.

        Raises:
            InputError: neither, an invalid document (the message gives the line), or a backbone
                that does not serve the task.
        """
        return cls(DeclaredSpace.load(name_or_path, task=task))

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Space:
        """Read a space from plain dictionaries and lists, with the keys of the YAML format.

        Raises:
            InputError: an unknown key or an invalid value.
        """
        return cls(DeclaredSpace.from_document(document))

    def within(self, **bounds: float | str) -> Space:
        """Return the members inside a budget, in addition to this space's bounds.

        Args:
            **bounds: `max_` and the name of a cost, such as max_macs="1.1G", max_params=3e6 or
                max_attention_bytes="64M", and `min_macs`; K, M and G are powers of 1000, and
                "67%" is of the backbone as published, with the classes of the data.

        Raises:
            InputError: an unknown cost, an invalid bound, or a share where there is a number.
        """
        own: dict[str, Bound] = {**dict(self.budget.bounds), **dict(self.budget.shares)}
        least: Bound | None = self.budget.min_share or self.budget.min_macs
        for argument, bound in bounds.items():
            prefix, _, name = argument.partition("_")
            if prefix != "max" and argument != "min_macs":
                raise InputError(
                    f"`{argument}` is no bound; write max_macs, max_params, ..., or min_macs"
                )
            unit = cost_objective(name).unit
            value = parse_bound(bound, unit) if isinstance(bound, str) else bound
            if prefix == "max":
                own[name] = _tighter(min, argument, value, own.get(name))
            else:
                least = _tighter(max, argument, value, least)
        if least is not None and not isinstance(least, Share):
            least = int(least)
        return Space(self.declared, Budget(bounds=own, min_macs=least))

    @property
    def name(self) -> str:
        """The space's name."""
        return self.declared.name

    @property
    def backbone(self) -> BackboneSpec:
        """The network whose layers are chosen."""
        return self.declared.backbone

    @property
    def size(self) -> int:
        """Number of distinct placements inside the budget."""
        return self._counted.in_budget

    def members(self) -> Iterator[Placement]:
        """Yield all placements inside the budget, in a fixed order."""
        return self._counted.enumerate()

    def sample(self, n: int = 1, seed: int = 0) -> list[Placement]:
        """Draw `n` distinct placements uniformly from those inside the budget.

        Raises:
            InputError: fewer than `n` placements are inside the budget.
        """
        return self._counted.sample_many(random.Random(seed), n)

    def network(self, placement: Placement | str) -> NetworkSpec:
        """The network of a placement on this space's backbone, for `cost` and `build`.

        Raises:
            InputError: not a placement, or it is not legal on the backbone.
        """
        if isinstance(placement, str):
            placement = Placement.parse(placement)
        return spec_of(NetworkSpec(self.backbone, placement))

    def __contains__(self, placement: object) -> bool:
        return isinstance(placement, Placement) and placement in self._counted

    @cached_property
    def _counted(self) -> BudgetedSpace:
        if self.budget.uncounted:
            raise InputError(
                f"no space counts with a bound on {self.budget.uncounted[0][0].name}: a search "
                f"checks it once a placement was drawn; leave it out"
            )
        return BudgetedSpace(self.declared, self.budget)

    def __repr__(self) -> str:
        return f"<Space {self.name} on {self.backbone}, {self.budget}>"

    def _repr_html_(self) -> str:
        rows = {"backbone": str(self.backbone), "budget": str(self.budget)}
        if not self.budget.uncounted:
            counted = self._counted
            macs = " to ".join(map(format_quantity, counted.macs_range_in_budget))
            rows |= {"placements": f"{counted.in_budget:,} of {counted.size:,}", "MACs": macs}
        cells = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>"
            for name, text in rows.items()
        )
        return f"<b>{escape(self.name)}</b><table>{cells}</table>"
