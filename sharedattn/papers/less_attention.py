"""LaViT's figures (CVPR 2024, arXiv:2406.00427): its models, baselines and plug-in table.

The poster calls multiply-accumulates FLOPs. It does not say which layers of a host are less
attention, or how their maps are counted: each reduction is compared with the closest of all
placements whose stages end with less layers, for each way of counting the maps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from sharedattn.backbones import describe
from sharedattn.papers.counting import (
    CONVENTIONS,
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
from sharedattn.placement import BackboneSpec
from sharedattn.placement.named import LAVIT_LIKE

PAPER = "LaViT"
FREE, AS_PRINTED, FACTORED = Convention("free"), Convention("paper"), Convention("factored")
MODELS_TABLE = "CVPR 2024 poster, table of models"
PLUG_IN_TABLE = "CVPR 2024 poster, plug-in table"

MODELS = (
    # model, params, MACs, ours: vanilla layers as in a PVT, except one in each of stages 3 and 4
    ("LaViT-T", "10.9 M", "1.6 G", "pvt_tiny: V2 | V2 | V1L1 | V1L1"),
    ("LaViT-S", "22.4 M", "3.3 G", "pvt_small: V3 | V4 | V1L5 | V1L2"),
    ("LaViT-B", "39.6 M", "6.1 G", LAVIT_LIKE["lavit_like_b"]),
)

NEAREST = {"LaViT-T": LAVIT_LIKE["lavit_like_t"], "LaViT-S": LAVIT_LIKE["lavit_like_s"]}
"""Pyramids found by a search for these figures, which no published one has."""

BASELINES = (
    # model, params, MACs, our backbone
    ("PVT-T", "13.2 M", "1.9 G", "pvt_tiny"),
    ("PVT-S", "24.5 M", "3.8 G", "pvt_small"),
    ("PVT-M", "44.2 M", "6.7 G", "pvt_medium"),
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
    """A row of the plug-in table, which prints both MACs and their reduction.

    Attributes:
        model: the poster's name.
        before: printed MACs.
        after: printed MACs with less attention.
        change: printed reduction.
        backbone: our backbone, as text.
        unknown: why the host's shape is unknown, or empty if it is known.
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
"""With equal shift only, a stage of two blocks could have no less layer."""

_DEEPVIT = "DeepViT has no such model; this has the 16 blocks of its smallest, at DeiT's width"
_HVT_T = "which HVT is not said; of the published ones this alone counts 1.4 G"
_HVT_S = "no published HVT counts so much, as the plain DeiT-S does; this is the largest"

HOSTS = (
    Host("ViT-T", "1.4 G", "1.2 G", "-14.2 %", "vit_tiny_patch16_224"),
    Host("ViT-S", "4.6 G", "4.0 G", "-13.1 %", "vit_small_patch16_224"),
    Host("DeiT-T", "1.4 G", "1.2 G", "-14.2 %", "deit_tiny_patch16_224"),
    Host("DeiT-S", "4.7 G", "4.2 G", "-10.6 %", "deit_small_patch16_224"),
    Host("DeepViT-T", "1.5 G", "1.1 G", "-25.8 %", "deepvit_16b(embed_dim=192)", _DEEPVIT),
    Host("DeepViT-S", "4.8 G", "4.2 G", "-12.6 %", "deepvit_16b", _DEEPVIT),
    Host("CeiT-T", "1.2 G", "1.1 G", "-9.0 %", "ceit_tiny"),
    Host("CeiT-S", "4.5 G", "4.1 G", "-8.8 %", "ceit_small"),
    Host("HVT-T", "1.4 G", "1.2 G", "-15.2 %", "scale_hvt_ti_4", _HVT_T),
    Host("HVT-S", "4.6 G", "4.2 G", "-13.4 %", "hvt_s_1", _HVT_S),
    Host("PVT-T", "1.9 G", "1.4 G", "-25.6 %", "pvt_tiny"),
    Host("PVT-S", "3.8 G", "3.2 G", "-15.7 %", "pvt_small"),
    Host("Swin-T", "4.5 G", "4.0 G", "-11.1 %", f"swin_tiny_patch4_window7_224({_PREVIOUS})"),
    Host("Swin-S", "8.7 G", "7.8 G", "-10.3 %", f"swin_small_patch4_window7_224({_PREVIOUS})"),
)


def rows() -> list[Row]:
    """All figures of the paper that need no training."""
    return [
        *(row for model in MODELS for row in _model_rows(*model)),
        *_baseline_rows(),
        *_deepvit_rows(),
        *(row for host in HOSTS for row in _host_rows(host)),
    ]


def _model_rows(model: str, params: str, macs: str, network: str) -> Iterable[Row]:
    """Compare a model of the paper with the placement on a PVT that it is taken to be."""
    of_params, of_macs = (
        Figure(paper=PAPER, source=MODELS_TABLE, model=model, metric=metric, printed=printed)
        for metric, printed in (("params", params), ("MACs", macs))
    )
    backbone = network.partition(":")[0]
    every = savings(backbone, FREE)
    closest = min(every, key=lambda saving: _distance(saving, of_params, of_macs))
    fits = sum(_fits(saving, of_params, of_macs) for saving in every)
    shape = f"{fits} of {len(every)} placements on {backbone} count so, maps free"
    if not fits:
        shape = (
            f"widths and depths are not known: no placement on {backbone} counts so; the closest, "
            f"{closest.network.partition(': ')[2]}, has "
            f"{of_params.number.show(Fraction(closest.cost.params))} and "
            f"{of_macs.number.show(Fraction(closest.cost.macs))}, maps free"
        )
    free = (FREE, *(replace(partial, maps="free") for partial in PARTIAL))
    yield from (
        _model_row(of_params, network, convention, shape, known=fits > 0)
        for convention in (FREE, AS_PRINTED, FACTORED)
    )
    for convention in (*free, AS_PRINTED, FACTORED):
        row = _model_row(of_macs, network, convention, shape, known=fits > 0)
        if convention in (FREE, AS_PRINTED, FACTORED) or row.status == "equal":
            yield row
    if model in NEAREST:
        chosen = (
            "chosen for these figures: the nearest on a grid of widths and depths within "
            "published ranges, with less layers where LaViT-B's are read to be"
        )
        for figure in (of_params, of_macs):
            yield _model_row(figure, NEAREST[model], FREE, chosen, known=False)


def _model_row(
    figure: Figure, network: str, convention: Convention, shape: str, *, known: bool
) -> Row:
    what = "params" if figure.metric == "params" else "macs"
    ours, free = (
        Fraction(getattr(counting.count(network), what)) for counting in (convention, FREE)
    )
    if convention.maps == "free":
        note = "; ".join(filter(None, (cut_off(figure, ours) if known else "", shape)))
    else:
        note = f"{figure.number.show(ours - free)} more than with maps free"
    return Row(
        figure=figure,
        ours=ours,
        convention=str(convention),
        note=note,
        network=network,
        known=known,
    )


def _fits(saving: Saving, of_params: Figure, of_macs: Figure) -> bool:
    """Whether a placement gives both printed figures, rounded or truncated."""
    return all(
        figure.number.prints(Fraction(ours)) or figure.number.cuts_off(Fraction(ours))
        for figure, ours in ((of_params, saving.cost.params), (of_macs, saving.cost.macs))
    )


def _distance(saving: Saving, of_params: Figure, of_macs: Figure) -> Fraction:
    """The larger of both relative differences from the printed figures."""
    return max(
        abs(saving.cost.params / of_params.number.value - 1),
        abs(saving.cost.macs / of_macs.number.value - 1),
    )


def _baseline_rows() -> Iterable[Row]:
    for model, params, macs, backbone in BASELINES:
        network = _all_vanilla(backbone)
        of_params, of_macs = (
            Figure(paper=PAPER, source=MODELS_TABLE, model=model, metric=metric, printed=printed)
            for metric, printed in (("params", params), ("MACs", macs))
        )
        yield from params_rows(of_params, network, reason=_without_head(of_params, backbone))
        yield from macs_rows(of_macs, network)


def _deepvit_rows() -> Iterable[Row]:
    figure = Figure(
        paper=PAPER, source=MODELS_TABLE, model="DeepViT-S", metric="MACs", printed="6.2 G"
    )
    [host] = [host for host in HOSTS if host.model == figure.model]
    return macs_rows(
        figure,
        _all_vanilla(host.backbone),
        reason=f"the plug-in table prints {host.before} for a DeepViT-S; DeepViT's own has a "
        "convolutional stem and is not built here, this has the 16 blocks of its smallest",
        known=False,
    )


def _without_head(figure: Figure, backbone: str) -> str:
    """The reason if a parameter count matches neither with the classifier nor without it."""
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
        reason=host.unknown or _base_reason(figure, host.backbone),
        known=not host.unknown,
    )
    closest = _closest(host, FREE)
    yield _after_row(host, closest)
    yield _change_row(host, closest, FREE)
    for convention in (AS_PRINTED, FACTORED):
        yield _change_row(host, _closest(host, convention), convention)
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
    if figure.number.prints(change) and not host.unknown:
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


def _base_reason(figure: Figure, backbone: str) -> str:
    """What the other table prints for the network, or which counts the figure lies between."""
    for model, _, macs, other in BASELINES:
        if other.replace("vit_", "deit_") == backbone.replace("vit_", "deit_"):
            if macs != figure.printed:
                return f"the table of models of the same poster prints {macs} for {model}"
    network, number = _all_vanilla(backbone), figure.number
    counts = [Fraction(convention.count(network).macs) for convention in CONVENTIONS]
    least, most = min(counts), max(counts)
    if least < number.value < most:
        return (
            f"between {number.show(least)}, without norms and attention products, and "
            f"{number.show(most)}: some part was left out"
        )
    return ""


def _closest(host: Host, convention: Convention) -> Saving:
    """The placement whose change is closest to the printed one, with the fewest layers."""
    printed = host.figure("change", host.change).number.value
    return min(
        savings(host.backbone, convention),
        key=lambda saving: (abs(saving.change - printed), saving.num_less),
    )


def _after_row(host: Host, closest: Saving) -> Row:
    figure = host.figure("MACs with LA", host.after)
    ours = Fraction(FREE.count(closest.network).macs)
    return Row(
        figure=figure,
        ours=ours,
        convention=str(FREE),
        note=host.unknown or _after_reason(host, figure, ours, closest.change),
        network=closest.network,
        known=not host.unknown,
    )


def _after_reason(host: Host, figure: Figure, ours: Fraction, change: Fraction) -> str:
    """The reason if MACs with less attention differ from the printed ones, or an empty text."""
    number = figure.number
    if number.prints(ours):
        return ""
    if number.cuts_off(ours):
        return cut_off(figure, ours)
    before = host.figure("MACs", host.before).number
    scaled = before.value * (1 + change)
    if number.prints(scaled):
        return f"another base: {before.text} and our {_percent(change)} give {number.show(scaled)}"
    fewest = FREE.count(savings(host.backbone, FREE)[0].network).macs
    if fewest > number.range[1]:
        return f"out of reach: no placement counts fewer than {number.show(Fraction(fewest))}"
    return ""


def _change_row(host: Host, closest: Saving, convention: Convention) -> Row:
    figure = host.figure("change of MACs", host.change)
    every = savings(host.backbone, convention)
    notes = [host.unknown] if convention == FREE else []
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
            nothing = late_less(host.backbone, (), "N")
            bare = convention.change(nothing, _all_vanilla(host.backbone))
            notes[-1] += f", and no attention at all {_percent(bare)}"
    else:
        below = max(s.change for s in every if s.change < figure.number.value)
        above = min(s.change for s in every if s.change > figure.number.value)
        notes.append(f"no placement gives it, the nearest {_percent(below)} and {_percent(above)}")
    least, largest = _range_by_printed_macs(host)
    if convention == FREE and not least <= figure.number.value <= largest:
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
    """The smallest and the largest change that the printed MACs allow."""
    before = host.figure("MACs", host.before).number.range
    after = host.figure("MACs", host.after).number.range
    return after[0] / before[1] - 1, after[1] / before[0] - 1


def _percent(change: Fraction) -> str:
    return f"{float(100 * change):+.1f} %"
