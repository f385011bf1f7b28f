"""Rows that compare networks: counted whole, and by every convention that gives what was printed.

No convention is chosen by hand. A network is first counted as this library counts; if that differs
from the printed figure, every combination of leaving out norms or attention products is tried, and
those that match get rows of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache

from sharedattn.backbones import describe
from sharedattn.costs.flop_conventions import Maps, counted
from sharedattn.mechanisms.interface import PartCost
from sharedattn.papers.figures import Figure, Row
from sharedattn.placement import BackboneSpec, LayerChoice, NetworkSpec, Placement


@dataclass(frozen=True, slots=True)
class Convention:
    """A counting convention; see `sharedattn.costs.flop_conventions.counted`.

    Attributes:
        maps: how to count less layers, or None if the network has none.
        attention_products: whether to count Q K^T and A V.
        norms: whether to count norms.
    """

    maps: Maps | None = None
    attention_products: bool = True
    norms: bool = True

    def __str__(self) -> str:
        maps = {None: "", "factored": "factored", "paper": "as printed", "free": "maps free"}
        parts = [maps[self.maps]] if self.maps else []
        parts += ["no norms"] if not self.norms else []
        parts += ["no attention products"] if not self.attention_products else []
        return ", ".join(parts) or "whole"

    def count(self, network: str) -> PartCost:
        """Params and MACs of a network in text form."""
        return _counted(network, self)

    def change(self, network: str, base: str) -> Fraction:
        """Relative change of MACs from a base to a network, both counted by this convention."""
        whole = replace(self, maps=None).count(base).macs
        return Fraction(self.count(network).macs - whole, whole)


WHOLE = Convention()
PARTIAL = (
    Convention(norms=False),
    Convention(attention_products=False),
    Convention(attention_products=False, norms=False),
)
"""Conventions that leave out parts of a network without less attention."""

CONVENTIONS = (WHOLE, *PARTIAL)

LEGEND = (
    "whole: multiply-adds of every product, and a layer norm 5 an element; no norms, no attention "
    "products (Q K^T and A V, which a counter that does not know the fused kernel misses): left "
    "out. A network with less attention counts its layers as the paper prints them (as printed: "
    "Psi and Theta on the scores of every head), so but for Psi and Theta (maps free), or as they "
    "run here (factored: Psi on queries, Theta on keys, then both products; no Psi where a stage "
    "reduces its keys)"
)


@cache
def _counted(network: str, convention: Convention) -> PartCost:
    return counted(
        NetworkSpec.parse(network),
        maps=convention.maps or "factored",
        attention_products=convention.attention_products,
        norms=convention.norms,
    )


def params_rows(
    figure: Figure, network: str, *, reason: str = "", known: bool = True
) -> list[Row]:
    """Compare the parameters of a network without less attention with a published figure.

    Args:
        figure: the published figure.
        network: our network, as text.
        reason: why it differs, unless counting all parameters or truncation explains it.
        known: whether the published network's shape is known.

    Returns:
        A row of the trainable parameters; if only the total including fixed parameters matches,
        a row of that as well.
    """
    frozen = describe(NetworkSpec.parse(network).backbone).num_frozen_params
    every = Fraction(WHOLE.count(network).params)
    conventions = {"trainable parameters" if frozen else "all parameters": every - frozen}
    if known and not figure.number.prints(every - frozen) and figure.number.prints(every):
        conventions["all parameters"] = every
        reason = f"{figure.number.show(every)} with those that no training changes"
    return [
        Row(
            figure=figure,
            ours=ours,
            convention=convention,
            note="" if figure.is_equal(ours) and known else reason or cut_off(figure, ours),
            network=network,
            known=known,
        )
        for convention, ours in conventions.items()
    ]


def macs_rows(figure: Figure, network: str, *, reason: str = "", known: bool = True) -> list[Row]:
    """Compare the MACs of a network without less attention with a published figure.

    Args:
        figure: the published figure.
        network: our network, as text.
        reason: why it differs, unless a convention or truncation explains it.
        known: whether the published network's shape is known.

    Returns:
        A row of the network counted whole; if that differs, another for each convention that
        matches.
    """
    number = figure.number
    counts = {convention: Fraction(convention.count(network).macs) for convention in CONVENTIONS}
    ours = counts.pop(WHOLE)
    partial = {c: n for c, n in counts.items() if number.prints(n) and not number.prints(ours)}
    if known and partial:
        convention = next(iter(partial))
        reason = f"{number.show(partial[convention])} with {convention}"
    elif known and number.prints(ours):
        reason = ""
    return [
        Row(
            figure=figure,
            ours=n,
            convention=str(convention),
            note="" if convention in partial and known else reason or cut_off(figure, n),
            network=network,
            known=known,
        )
        for convention, n in {WHOLE: ours, **partial}.items()
    ]


def cut_off(figure: Figure, ours: Fraction) -> str:
    """The reason of a figure that was truncated instead of rounded, or an empty text."""
    number = figure.number
    if number.prints(ours) or not number.cuts_off(ours):
        return ""
    return f"{number.show(ours)} cut off after the printed digits, not rounded"


@dataclass(frozen=True, slots=True)
class Saving:
    """A network with less attention compared with its base.

    Attributes:
        backbone: the backbone, as text.
        counts: number of less layers in each stage.
        cost: params and MACs.
        change: relative change of its base's MACs; negative if it saves.
    """

    backbone: str
    counts: tuple[int, ...]
    cost: PartCost
    change: Fraction

    @property
    def network(self) -> str:
        """The network as text."""
        return late_less(self.backbone, self.counts)

    @property
    def num_less(self) -> int:
        """Total number of less layers."""
        return sum(self.counts)


@cache
def savings(backbone: str, convention: Convention) -> tuple[Saving, ...]:
    """All placements whose stages have vanilla layers followed by less ones.

    Layers of a stage are equal, so a placement's saving is the sum of its less layers' savings.

    Args:
        backbone: the backbone, as text.
        convention: how to count the networks and their base.

    Returns:
        The placements, largest saving first, without all-vanilla.
    """
    depths = describe(BackboneSpec.parse(backbone)).depths
    base = replace(convention, maps=None).count(late_less(backbone, ()))
    one_less = [
        convention.count(late_less(backbone, [i == j for j in range(len(depths))]))
        if depth > 1
        else base
        for i, depth in enumerate(depths)
    ]
    found = []
    for counts in itertools.product(*(range(depth) for depth in depths)):
        if any(counts):
            pairs = list(zip(counts, one_less, strict=True))
            params = base.params + sum(n * (one.params - base.params) for n, one in pairs)
            macs = base.macs + sum(n * (one.macs - base.macs) for n, one in pairs)
            change = Fraction(macs, base.macs) - 1
            found.append(Saving(backbone, counts, PartCost(params, macs), change))
    return tuple(sorted(found, key=lambda saving: (saving.change, saving.num_less)))


def late_less(backbone: str, num_less: Sequence[int], kind: str = "V") -> str:
    """Build a network of full depth whose stages end with given numbers of less layers.

    Args:
        backbone: the backbone, as text.
        num_less: less layers of each stage, fewer than its depth; or empty for none.
        kind: letter of the layers before them.
    """
    depths = describe(BackboneSpec.parse(backbone)).depths
    placement = Placement(
        tuple(
            (LayerChoice(kind),) * (depth - less) + (LayerChoice("L"),) * less
            for depth, less in zip(depths, num_less or [0] * len(depths), strict=True)
        )
    )
    return f"{backbone}: {placement}"
