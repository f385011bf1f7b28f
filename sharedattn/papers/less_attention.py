"""LaViT's figures (CVPR 2024, arXiv:2406.00427): its models, its baselines, its plug-in table.

The poster says FLOPs where it means multiply-accumulates. It says neither which layers of a host
are less attention nor how their maps are counted: each reduction is held against the closest of
all placements whose stages end with less layers, by each way of counting the maps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from sharedattn.backbones import describe
from sharedattn.papers.counting import (
    PARTIAL,
    WHOLE,
    Convention,
    Saving,
    cut_off,
    late_less,
    macs_rows,
    params_rows,
    savings,
)
from sharedattn.papers.figures import Figure, Row
from sharedattn.placement import BackboneSpec, Kind

PAPER = "LaViT"
FREE, AS_PRINTED, FACTORED = Convention("free"), Convention("paper"), Convention("factored")
MODELS_TABLE = "CVPR 2024 poster, table of models"
PLUG_IN_TABLE = "CVPR 2024 poster, plug-in table"

BASELINES = (
    # model, params, MACs, our backbone
    ("PVTv2-b1", "13.1 M", "2.1 G", "pvt_v2_b1"),
    ("PVTv2-b2", "25.4 M", "4.0 G", "pvt_v2_b2"),
    ("DeiT-T", "5.7 M", "1.3 G", "deit_tiny_patch16_224"),
    ("DeiT-S", "22.1 M", "4.6 G", "deit_small_patch16_224"),
    ("DeiT-B", "86.6 M", "17.5 G", "deit_base_patch16_224"),
    ("Swin-T", "28.3 M", "4.5 G", "swin_tiny_patch4_window7_224"),
    ("Swin-S", "49.6 M", "8.7 G", "swin_small_patch4_window7_224"),
    ("Swin-B", "87.8 M", "15.4 G", "swin_base_patch4_window7_224"),
)


@dataclass(frozen=True, slots=True)
class Host:
    """A row of the plug-in table, of which the reduction was printed beside both MACs.

    Attributes:
        model: by the poster's name.
        before: MACs as printed.
        after: MACs with less attention, as printed.
        change: the reduction as printed.
        backbone: ours, as text.
        unknown: why the host's shape is not known; empty where it is.
    """

    model: str
    before: str
    after: str
    change: str
    backbone: str
    unknown: str = ""

    def figure(self, metric: str, printed: str) -> Figure:
        """A figure of this row."""
        return Figure(
            paper=PAPER, source=PLUG_IN_TABLE, model=self.model, metric=metric, printed=printed
        )


_PREVIOUS = "handover=previous"
"""Layers of equal shift alone leave a two-block stage no less layer."""

HOSTS = (
    Host("ViT-T", "1.4 G", "1.2 G", "-14.2 %", "vit_tiny_patch16_224"),
    Host("ViT-S", "4.6 G", "4.0 G", "-13.1 %", "vit_small_patch16_224"),
    Host("DeiT-T", "1.4 G", "1.2 G", "-14.2 %", "deit_tiny_patch16_224"),
    Host("DeiT-S", "4.7 G", "4.2 G", "-10.6 %", "deit_small_patch16_224"),
    Host("Swin-T", "4.5 G", "4.0 G", "-11.1 %", f"swin_tiny_patch4_window7_224({_PREVIOUS})"),
    Host("Swin-S", "8.7 G", "7.8 G", "-10.3 %", f"swin_small_patch4_window7_224({_PREVIOUS})"),
)


def rows() -> list[Row]:
    """Every figure of the paper that needs no training."""
    return [*_baseline_rows(), *(row for host in HOSTS for row in _host_rows(host))]


def _baseline_rows() -> Iterable[Row]:
    for model, params, macs, backbone in BASELINES:
        network = _all_vanilla(backbone)
        of_params, of_macs = (
            Figure(paper=PAPER, source=MODELS_TABLE, model=model, metric=metric, printed=printed)
            for metric, printed in (("params", params), ("MACs", macs))
        )
        yield from params_rows(of_params, network, reason=_without_head(of_params, backbone))
        yield from macs_rows(of_macs, network)


def _without_head(figure: Figure, backbone: str) -> str:
    """That a count of parameters is nobody's: neither with the classifier nor without."""
    every = Fraction(WHOLE.count(_all_vanilla(backbone)).params)
    if figure.number.prints(every):
        return ""
    bare = every - describe(BackboneSpec.parse(backbone)).head_params
    return (
        f"not this network's: {figure.number.show(every)} in timm's port of its authors' code, "
        f"{figure.number.show(bare)} without norm and classifier"
    )


def _host_rows(host: Host) -> Iterable[Row]:
    figure = host.figure("MACs", host.before)
    base = _all_vanilla(host.backbone)
    yield from macs_rows(
        figure,
        base,
        reason=host.unknown or _printed_elsewhere(figure, host.backbone),
        known=not host.unknown,
    )
    closest = _closest(host, FREE)
    yield _after_row(host, closest)
    yield _change_row(host, closest, FREE)
    for convention in (AS_PRINTED, FACTORED):
        yield _change_row(host, _closest(host, convention), convention)
    if host.unknown:
        return
    figure = host.figure("change of MACs", host.change)
    for partial in PARTIAL:
        for maps in (FREE, AS_PRINTED):
            if figure.number.prints(_closest(host, maps).change):
                continue
            convention = replace(partial, maps=maps.maps)
            other = _closest(host, convention)
            if figure.number.prints(other.change):
                yield _change_row(host, other, convention)
    without = Convention(attention_products=False)
    change = Fraction(without.count(base).macs, WHOLE.count(base).macs) - 1
    if figure.number.prints(change):
        yield Row(
            figure=figure,
            ours=change,
            convention=f"{without}, base whole",
            note="nothing is replaced: a counter that misses the fused attention kernel shows "
            "this very figure of the plain network",
            network=base,
        )


def _all_vanilla(backbone: str) -> str:
    return late_less(backbone, ())


def _printed_elsewhere(figure: Figure, backbone: str) -> str:
    """That the table of models prints another figure for the same network, and one that holds."""
    for model, _, macs, other in BASELINES:
        if other.replace("vit_", "deit_") == backbone.replace("vit_", "deit_"):
            if macs != figure.printed:
                return f"the table of models of the same poster prints {macs} for {model}"
    return ""


def _closest(host: Host, convention: Convention) -> Saving:
    """The placement whose change is the closest to the printed one, of those the fewest layers."""
    printed = host.figure("change", host.change).number.value
    return min(
        savings(host.backbone, convention),
        key=lambda saving: (abs(saving.change - printed), saving.num_less),
    )


def _after_row(host: Host, closest: Saving) -> Row:
    figure = host.figure("MACs with LA", host.after)
    ours = Fraction(FREE.count(closest.network).macs)
    before = host.figure("MACs", host.before).number
    scaled = before.value * (1 + closest.change)
    reason = cut_off(figure, ours)
    if not figure.number.prints(ours) and not reason and figure.number.prints(scaled):
        reason = (
            f"another base: {before.text} and our {_percent(closest.change)} give "
            f"{figure.number.show(scaled)}"
        )
    return Row(
        figure=figure,
        ours=ours,
        convention=str(FREE),
        note=host.unknown or reason,
        network=closest.network,
        known=not host.unknown,
    )


def _change_row(host: Host, closest: Saving, convention: Convention) -> Row:
    figure = host.figure("change of MACs", host.change)
    every = savings(host.backbone, convention)
    notes = [host.unknown] if host.unknown else []
    same = sum(figure.number.prints(saving.change) for saving in every)
    most = every[0].change
    if same:
        notes.append(f"{same} of {len(every)} placements give it")
    elif cut_off(figure, closest.change):
        notes.append(cut_off(figure, closest.change))
    elif most > 0:
        notes.append(f"counted so, every less layer adds MACs, {_percent(most)} at the least")
    elif most > figure.number.value:
        notes.append(f"out of reach: the most that any placement saves gives {_percent(most)}")
        if convention == FREE:
            nothing = late_less(host.backbone, (), Kind.NONE)
            bare = convention.change(nothing, _all_vanilla(host.backbone))
            notes[-1] += f", and no attention at all {_percent(bare)}"
    else:
        below = max(s.change for s in every if s.change < figure.number.value)
        above = min(s.change for s in every if s.change > figure.number.value)
        notes.append(f"no placement gives it, the nearest {_percent(below)} and {_percent(above)}")
    least, largest = _range_by_printed_macs(host)
    if not least <= figure.number.value <= largest:
        notes.append(
            f"impossible by the printed MACs: {host.before} to {host.after} is "
            f"{_percent(largest)} to {_percent(least)}, however they were rounded"
        )
    if convention == FREE:
        honest = [
            f"{other} {_percent(other.change(closest.network, _all_vanilla(host.backbone)))}"
            for other in (AS_PRINTED, FACTORED)
        ]
        notes.append(f"the same network {', '.join(honest)}")
    return Row(
        figure=figure,
        ours=closest.change,
        convention=str(convention),
        note="; ".join(filter(None, notes)),
        network=closest.network,
        known=not host.unknown,
    )


def _range_by_printed_macs(host: Host) -> tuple[Fraction, Fraction]:
    """The least and the largest change that the printed MACs allow."""
    before = host.figure("MACs", host.before).number.range
    after = host.figure("MACs", host.after).number.range
    return after[0] / before[1] - 1, after[1] / before[0] - 1


def _percent(change: Fraction) -> str:
    return f"{float(100 * change):+.1f} %"
