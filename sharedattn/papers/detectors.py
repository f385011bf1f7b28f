"""LaViT's figures on detection and segmentation (CVPR 2024, arXiv:2406.00427).

Detectors are not built here. The parameters of RetinaNet (arXiv:1708.02002) apart from its
backbone are a closed form of the backbone's widths, so its figures can be compared with a
backbone: a feature pyramid of 256 channels over the last three stages, two more levels made from
the last stage, and two heads of four convolutions each, 80 classes and 9 anchors. MACs at 800 x
1280 pixels and segmentation heads have no counterpart here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from sharedattn.backbones import describe
from sharedattn.papers.counting import Convention
from sharedattn.papers.figures import Figure, Row
from sharedattn.placement import BackboneSpec

PAPER = "LaViT"
TABLE = "CVPR 2024 poster, detection and segmentation"

DETECTORS = (
    # model, params, MACs, our network, the backbone's printed figure if its shape is unknown
    ("PVT-S", "34 M", "226 G", "pvt_small: V3 | V4 | V6 | V3", ""),
    ("Swin-T", "39 M", "245 G", "swin_tiny_patch4_window7_224: V2 | V2 | V6 | V2", ""),
    ("LaViT-T", "33 M", "202 G", "pvt_tiny: V2 | V2 | V1L1 | V1L1", "10.9 M"),
    ("LaViT-S", "47 M", "290 G", "pvt_small: V3 | V4 | V1L5 | V1L2", "22.4 M"),
)

SEGMENTERS = (
    # model, params, MACs
    ("LaViT-S, Semantic FPN", "25.1 M", "122 G"),
    ("LaViT-S, UperNet", "52.0 M", "920 G"),
)

_PYRAMID_DIM, _NUM_CLASSES, _NUM_ANCHORS = 256, 80, 9


def retinanet_params(widths: Sequence[int]) -> int:
    """Parameters of a RetinaNet without its backbone.

    Args:
        widths: channels of the backbone's stages that feed the pyramid, first to last.
    """
    P = _PYRAMID_DIM
    pyramid = sum(_conv_params(width, P, 1) + _conv_params(P, P) for width in widths)
    further = _conv_params(widths[-1], P) + _conv_params(P, P)
    heads = 2 * 4 * _conv_params(P, P)
    outputs = _conv_params(P, _NUM_ANCHORS * _NUM_CLASSES) + _conv_params(P, _NUM_ANCHORS * 4)
    return pyramid + further + heads + outputs


def _conv_params(inside: int, outside: int, kernel: int = 3) -> int:
    return inside * outside * kernel**2 + outside


def rows() -> list[Row]:
    """All figures on detection and segmentation that need no training."""
    return [*_detector_rows(), *_segmenter_rows()]


def _detector_rows() -> Iterable[Row]:
    for model, params, macs, network, printed in DETECTORS:
        detector = f"{model}, RetinaNet"
        figure = _figure(detector, "params", params)
        shape = describe(BackboneSpec.parse(network.partition(":")[0]))
        beside = retinanet_params([stage.embed_dim for stage in shape.stages[1:]])
        of_network = Convention("free" if printed else None).count(network).params
        ours = Fraction(of_network - shape.head_params + beside)
        show = figure.number.show
        if printed:
            rest = figure.number.value - beside
            note = (
                f"its widths and depths are not known; {params} less a RetinaNet's "
                f"{show(Fraction(beside))} leave {show(rest)} for a backbone of {printed}"
            )
        else:
            note = _rounded_twice(figure, ours)
        yield Row(
            figure=figure,
            ours=ours,
            convention="backbone without head, RetinaNet" + (", maps free" if printed else ""),
            note=note,
            network=network,
            known=not printed,
        )
        yield _not_built(detector, "MACs", macs)


def _segmenter_rows() -> Iterable[Row]:
    for model, params, macs in SEGMENTERS:
        yield _not_built(model, "params", params)
        yield _not_built(model, "MACs", macs)


def _figure(model: str, metric: str, printed: str) -> Figure:
    return Figure(paper=PAPER, source=TABLE, model=model, metric=metric, printed=printed)


def _not_built(model: str, metric: str, printed: str) -> Row:
    return Row(
        figure=_figure(model, metric, printed),
        ours=None,
        convention="",
        note="detectors and segmenters are not built here",
        known=False,
    )


def _rounded_twice(figure: Figure, ours: Fraction) -> str:
    """The reason of a figure that was first rounded to one more digit, or an empty text."""
    number = figure.number
    once = round(ours / number.step, 1) * number.step
    if number.prints(ours) or not number.prints(once):
        return ""
    return f"rounded twice: {number.show(ours)} to {number.show(once)}, and that up"
