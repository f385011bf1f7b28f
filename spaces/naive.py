"""Networks that a person would try by hand in place of a search.

A search is worth its time if it beats these: the backbone as it came, its first blocks, blocks
spread evenly over its depth, its cheapest kind of layer everywhere, a narrower and a shallower
backbone trained from scratch. Each is made as large as a number of MACs allows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from sharedattn.backbones import canonical, describe, resolve
from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.mechanisms.absent import ABSENT
from sharedattn.mechanisms.interface import PartCost
from sharedattn.mechanisms.vanilla import VANILLA
from sharedattn.placement import (
    BackboneSpec,
    LayerChoice,
    NetworkSpec,
    Placement,
    ResolvedSpec,
    with_stage_options,
)
from sharedattn.spaces.budget import Budget, BudgetedSpace


class NaiveKind(StrEnum):
    """A way of making a network cheaper by hand.

    UNCUT: the backbone as it came. FIRST: its first blocks. EVEN: blocks spread evenly over its
    depth. CHEAPEST: the cheapest kind of layer everywhere. NARROW: the backbone with fewer
    channels, from scratch. SHALLOW: its first blocks, from scratch.
    """

    UNCUT = "uncut"
    FIRST = "first"
    EVEN = "even"
    CHEAPEST = "cheapest"
    NARROW = "narrow"
    SHALLOW = "shallow"


@dataclass(frozen=True, slots=True, kw_only=True)
class NaiveNetwork:
    """A network that a person would try by hand.

    Attributes:
        kind: how it was made.
        spec: the network.
    """

    kind: NaiveKind
    spec: ResolvedSpec

    @property
    def from_scratch(self) -> bool:
        """Whether it is trained from its initialisation even if there are trained weights."""
        return self.kind in (NaiveKind.NARROW, NaiveKind.SHALLOW)

    @property
    def costs(self) -> PartCost:
        """Its params and MACs."""
        return CostModel(self.spec.backbone).totals(self.spec.placement)


def naive_networks(
    space: BudgetedSpace, most_macs: Iterable[int], *, has_weights: bool
) -> tuple[NaiveNetwork, ...]:
    """The networks to try by hand, each the largest of its kind within some numbers of MACs.

    Args:
        space: the searched space; its upper bounds hold for every network but the uncut one, and
            the cheapest kind of layer is one that it offers.
        most_macs: the most MACs per image; each gives a network of a kind, or none if even the
            smallest has more.
        has_weights: whether there are trained weights to cut; without them all networks are
            trained from scratch, and blocks of some depth are only tried once.

    Returns:
        Distinct networks, by kind in the order of `NaiveKind`, then by ascending MACs.
    """
    backbone = space.space.backbone
    shape = describe(backbone)
    # A UNet has no blocks to leave out.
    depths, is_whole = shape.depths, any(stage.is_whole for stage in shape.stages)
    vanilla = Placement.all_vanilla(depths)
    found = [(NaiveKind.UNCUT, backbone, vanilla)]
    uniform = cheapest_uniform(space)
    if uniform is not None:
        found.append((NaiveKind.CHEAPEST, backbone, uniform))
    for most in sorted(set(most_macs)):
        cut = None if is_whole else _largest_cut(backbone, depths, most)
        if cut is not None:
            first, even = first_blocks(cut), even_blocks(depths, cut)
            found.append((NaiveKind.SHALLOW, backbone, first))
            if has_weights:
                found.append((NaiveKind.FIRST, backbone, first))
            if has_weights and even != first:
                found.append((NaiveKind.EVEN, backbone, even))
        narrow = narrower(backbone, most)
        if narrow is not None:
            found.append((NaiveKind.NARROW, narrow, vanilla))
    networks = (
        NaiveNetwork(kind=kind, spec=resolve(NetworkSpec(own, placement)))
        for kind, own, placement in dict.fromkeys(found)
    )
    order = list(NaiveKind)
    return tuple(
        sorted(
            (n for n in networks if n.kind is NaiveKind.UNCUT or _is_inside(space, n)),
            key=lambda n: (order.index(n.kind), n.costs.macs),
        )
    )


def cut_depths(depths: Sequence[int], num_blocks: int) -> tuple[int, ...]:
    """The depths of a backbone cut to some blocks, in the proportions of its stages.

    Args:
        depths: blocks of each stage.
        num_blocks: blocks to keep, from one per stage to all.

    Returns:
        Blocks to keep in each stage, at least 1: the shares rounded down, then one more for the
        largest remainders, of equal ones the first.
    """
    spare = num_blocks - len(depths)
    room = sum(depths) - len(depths)
    shares = [(depth - 1) * spare / room if room else 0.0 for depth in depths]
    kept = [1 + int(share) for share in shares]
    order = sorted(range(len(depths)), key=lambda i: (int(shares[i]) - shares[i], i))
    for i in order[: num_blocks - sum(kept)]:
        kept[i] += 1
    return tuple(kept)


def first_blocks(kept: Sequence[int]) -> Placement:
    """The first blocks of each stage, all-vanilla; `kept` is their number by stage."""
    return Placement.all_vanilla(kept)


def even_blocks(depths: Sequence[int], kept: Sequence[int]) -> Placement:
    """Blocks spread evenly over each stage, its first and last among them, all-vanilla.

    Args:
        depths: blocks of each stage.
        kept: blocks to keep in each stage; of a single one, the first is kept.
    """
    vanilla, absent = LayerChoice(VANILLA.letter), LayerChoice(ABSENT.letter)
    stages = []
    for depth, count in zip(depths, kept, strict=True):
        # Rounded half up, in whole numbers.
        steps = 2 * max(1, count - 1)
        places = {(2 * i * (depth - 1) + steps // 2) // steps for i in range(count)}
        stages.append(tuple(vanilla if i in places else absent for i in range(depth)))
    return Placement(tuple(stages))


def narrower(backbone: BackboneSpec, most_macs: int) -> BackboneSpec | None:
    """The backbone with as many channels as a number of MACs allows, at its full depth.

    Args:
        backbone: the backbone; one whose width is not the single keyword `embed_dim` has no
            narrower form here.
        most_macs: the most MACs per image of its all-vanilla network.

    Returns:
        A backbone with fewer channels and as many heads, or None.
    """
    stage = describe(backbone).stages[0]

    def with_heads_of(head_dim: int) -> BackboneSpec | None:
        keywords = {**dict(backbone.keywords), "embed_dim": head_dim * stage.num_heads}
        try:
            return canonical(replace(backbone, keywords=tuple(keywords.items())))
        except InputError:
            return None

    def macs(head_dim: int) -> int:
        found = with_heads_of(head_dim)
        if found is None:
            return most_macs + 1
        vanilla = Placement.all_vanilla(describe(found).depths)
        return CostModel(found).totals(vanilla).macs

    if with_heads_of(stage.head_dim) is None:
        return None
    widths = range(1, stage.head_dim)
    place = bisect_right(widths, most_macs, key=macs)
    return with_heads_of(widths[place - 1]) if place else None


def cheapest_uniform(space: BudgetedSpace) -> Placement | None:
    """The placement of one kind of layer everywhere that has the fewest MACs in a space.

    Considered are the members at full depth whose layers are all equal, but for the vanilla one.

    Returns:
        The placement, or None if the space has none.
    """
    depths = describe(space.space.backbone).depths
    if space.space.automaton.depths != depths:
        return None
    found = [p for p in _uniform(space, depths) if p in space.space]
    costs = CostModel(space.space.backbone)
    return min(found, key=lambda p: (costs.totals(p).macs, str(p)), default=None)


def _uniform(space: BudgetedSpace, depths: Sequence[int]) -> Iterator[Placement]:
    """Placements of one symbol of the space in every layer, without gates."""
    symbols = {symbol for alphabet in space.space.automaton.alphabets for symbol in alphabet}
    vanilla = Placement.all_vanilla(depths)
    for symbol in symbols:
        if symbol is None or symbol.is_absent or symbol.branch.takes:
            continue
        stages = (
            with_stage_options((symbol,) * depth, (None,) * depth, depth if symbol.cb else 0)
            for depth in depths
        )
        placement = Placement(tuple(stages))
        if placement != vanilla:
            yield placement


def _largest_cut(
    backbone: BackboneSpec, depths: Sequence[int], most_macs: int
) -> tuple[int, ...] | None:
    """The most blocks below full depth within a number of MACs, by stage; None if none fit."""
    costs = CostModel(backbone)
    fitting = [
        kept
        for kept in (cut_depths(depths, n) for n in range(len(depths), sum(depths)))
        if costs.totals(first_blocks(kept)).macs <= most_macs
    ]
    return fitting[-1] if fitting else None


def _is_inside(space: BudgetedSpace, network: NaiveNetwork) -> bool:
    # The fewest MACs spare the search what is far below a budget; a cheaper cut that is as good
    # is just what a person would want to know.
    costs, most = network.costs, Budget(bounds=dict(space.budget.bounds))
    return most.admits({"macs": costs.macs, "params": costs.params})
