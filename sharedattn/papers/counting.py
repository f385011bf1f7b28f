"""Rows about networks: each counted whole, and by every convention that gives what was printed.

No convention is chosen by hand. A network is first counted as this library counts; where that is
not what was printed, every way of leaving norms or attention products out is tried, and those
that give the printed figure have rows of their own.
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
    """What is counted of a network; see `sharedattn.costs.flop_conventions.counted`.

    Attributes:
        maps: how less layers count; None: the network has none.
        attention_products: whether Q K^T and A V count.
        norms: whether norms count.
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
        """Params and MACs of a network, given as text."""
        return _counted(network, self)

    def change(self, network: str, base: str) -> Fraction:
        """By which fraction of its MACs a network differs from its base; both counted so."""
        whole = replace(self, maps=None).count(base).macs
        return Fraction(self.count(network).macs - whole, whole)


WHOLE = Convention()
PARTIAL = (
    Convention(norms=False),
    Convention(attention_products=False),
    Convention(attention_products=False, norms=False),
)
"""Conventions that leave something out of a network without less attention."""

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
    """Parameters of a network without less attention beside a published figure.

    Args:
        figure: the published figure.
        network: ours, as text.
        reason: why it differs, where neither counting all parameters nor cutting off says it.
        known: whether the published network's shape is known.

    Returns:
        One row of the trainable parameters; where that is not what was printed, but all of them
        are, those that no training changes included, a row of these.
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
    """MACs of a network without less attention beside a published figure.

    Args:
        figure: the published figure.
        network: ours, as text.
        reason: why it differs, where neither a convention nor cutting off says it.
        known: whether the published network's shape is known.

    Returns:
        One row of the network counted whole; where that is not what was printed, a row more for
        each convention that is.
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
    """The reason of a figure that was cut off after its digits, not rounded; else no reason."""
    number = figure.number
    if number.prints(ours) or not number.cuts_off(ours):
        return ""
    return f"{number.show(ours)} cut off after the printed digits, not rounded"


@dataclass(frozen=True, slots=True)
class Saving:
    """A network with less attention, beside its base.

    Attributes:
        backbone: as text.
        counts: less layers of each stage.
        cost: params and MACs.
        change: of its base's MACs, below 0 where it saves.
    """

    backbone: str
    counts: tuple[int, ...]
    cost: PartCost
    change: Fraction

    @property
    def network(self) -> str:
        """The network, as text."""
        return late_less(self.backbone, self.counts)

    @property
    def num_less(self) -> int:
        """Less layers in all."""
        return sum(self.counts)


@cache
def savings(backbone: str, convention: Convention) -> tuple[Saving, ...]:
    """Every placement whose stages begin with vanilla layers and end with less ones.

    Layers of a stage are equal, so a placement saves what its less layers save one by one.

    Args:
        backbone: as text.
        convention: how the networks and their base count.

    Returns:
        From those that save most; all-vanilla is not among them.
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
    """Build a network of full depth whose stages end with these numbers of less layers.

    Args:
        backbone: as text.
        num_less: less layers of each stage, at least one layer fewer than it has; empty: none.
        kind: the letter of the layers before them.
    """
    depths = describe(BackboneSpec.parse(backbone)).depths
    placement = Placement(
        tuple(
            (LayerChoice(kind),) * (depth - less) + (LayerChoice("L"),) * less
            for depth, less in zip(depths, num_less or [0] * len(depths), strict=True)
        )
    )
    return f"{backbone}: {placement}"
