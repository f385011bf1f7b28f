"""LaViT's figures on detection and segmentation (CVPR 2024, arXiv:2406.00427).

Parameters are compared at 224 pixels: position embeddings are those of the classifier, resampled.
MACs are compared at 800 x 1280 pixels for detectors; the sizes of the segmenters' images are not
printed, so that ours are the usual ones, 512 x 512 for Semantic FPN and 512 x 2048 for UperNet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from sharedattn.backbones import describe
from sharedattn.papers.counting import Convention, macs_rows, params_rows
from sharedattn.papers.figures import Figure, Printed, Row
from sharedattn.placement import BackboneSpec
from sharedattn.shape import BackboneShape
from sharedattn.tasks import HEADS

PAPER = "LaViT"
TABLE = "CVPR 2024 poster, detection and segmentation"
_CLASSIFIED_PIXELS = 224 * 224
_SIZES = {"retinanet": "800x1280", "semantic_fpn": "512", "upernet": "512x2048"}


@dataclass(frozen=True, slots=True)
class PyramidNetwork:
    """A published detector or segmenter.

    Attributes:
        model: name of its backbone.
        head: name of its head.
        params: printed parameters.
        macs: printed MACs.
        backbone: our backbone.
        placement: our placement.
        printed: the backbone's own printed parameters and MACs as a classifier at 224 pixels, if
            its shape is not known, or empty.
    """

    model: str
    head: str
    params: str
    macs: str
    backbone: str
    placement: str
    printed: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        """Backbone and head."""
        return f"{self.model}, {HEADS[self.head].title}"

    def network(self, *, at_size: bool) -> str:
        """Our network as text, at the size of MACs or that of the classifier."""
        size = f"@{_SIZES[self.head]}" if at_size else ""
        return f"{self.backbone}(head={self.head}){size}: {self.placement}"


_PVT_S, _SWIN_T = "V3 | V4 | V6 | V3", "V2 | V2 | V6 | V2"
_LAVIT_T, _LAVIT_S = "V2 | V2 | V1L1 | V1L1", "V3 | V4 | V1L5 | V1L2"
_PRINTED_T, _PRINTED_S = ("10.9 M", "1.6 G"), ("22.4 M", "3.3 G")

NETWORKS = (
    PyramidNetwork("ResNet-50", "retinanet", "38 M", "239 G", "resnet50", _PVT_S),
    PyramidNetwork("PVT-S", "retinanet", "34 M", "226 G", "pvt_small", _PVT_S),
    PyramidNetwork(
        "Swin-T", "retinanet", "39 M", "245 G", "swin_tiny_patch4_window7_224", _SWIN_T
    ),
    PyramidNetwork("LaViT-T", "retinanet", "33 M", "202 G", "pvt_tiny", _LAVIT_T, _PRINTED_T),
    PyramidNetwork("LaViT-S", "retinanet", "47 M", "290 G", "pvt_small", _LAVIT_S, _PRINTED_S),
    PyramidNetwork(
        "LaViT-S", "semantic_fpn", "25.1 M", "122 G", "pvt_small", _LAVIT_S, _PRINTED_S
    ),
    PyramidNetwork("LaViT-S", "upernet", "52.0 M", "920 G", "pvt_small", _LAVIT_S, _PRINTED_S),
)


def rows() -> list[Row]:
    """All figures on detection and segmentation that need no training."""
    return [row for network in NETWORKS for row in _rows(network)]


def _rows(network: PyramidNetwork) -> Iterable[Row]:
    params = _figure(network, "params", network.params)
    macs = _figure(network, "MACs", network.macs)
    if network.printed is None:
        text = network.network(at_size=False)
        reason = _rounded_twice(params, Fraction(Convention().count(text).params))
        yield from params_rows(params, text, reason=reason)
        yield from macs_rows(macs, network.network(at_size=True))
        return
    of_params, of_macs = network.printed
    for figure, at_size in ((params, False), (macs, True)):
        text = network.network(at_size=at_size)
        shape = describe(BackboneSpec.parse(text.partition(":")[0]))
        cost = Convention("free").count(text)
        of_head = shape.head_macs if at_size else shape.head_params
        ours = cost.macs if at_size else cost.params
        show, value = figure.number.show, figure.number.value
        of_images = ", nor the size of its images" if at_size and _is_segmenter(network) else ""
        estimate = _estimate(network, figure, of_macs, shape) if at_size else ""
        yield Row(
            figure=figure,
            ours=Fraction(ours),
            convention=str(Convention("free")),
            note=(
                f"its widths and depths are not known{of_images}; {figure.printed} less a "
                f"{HEADS[network.head].title}'s {show(Fraction(of_head))} leave "
                f"{show(value - of_head)} for a backbone of {of_params} parameters{estimate}"
            ),
            network=text,
            known=False,
        )


def _estimate(network: PyramidNetwork, figure: Figure, of_macs: str, shape: BackboneShape) -> str:
    """What head and classifier's printed MACs come to, if both grow with the number of pixels.

    Of a segmenter, whose images' size is not printed, the number of pixels that the figure says.
    """
    pixels = shape.image_size.num_pixels
    body = Printed.parse(of_macs).value / _CLASSIFIED_PIXELS * pixels
    both, number = shape.head_macs + body, figure.number
    if not _is_segmenter(network):
        return f", whose {of_macs} at 224 pixels come to about {number.show(body)} here"
    said = float(number.value / both * pixels) / 1e6
    return (
        f"; with its classifier's {of_macs} at 224 pixels, growing with the pixels, the printed "
        f"figure is of about {said:.2f} million pixels, where {shape.image_size.spaced} are "
        f"{pixels / 1e6:.2f}"
    )


def _is_segmenter(network: PyramidNetwork) -> bool:
    return HEADS[network.head].task == "segment"


def _figure(network: PyramidNetwork, metric: str, printed: str) -> Figure:
    return Figure(paper=PAPER, source=TABLE, model=network.name, metric=metric, printed=printed)


def _rounded_twice(figure: Figure, ours: Fraction) -> str:
    """The reason of a figure that was first rounded to one more digit, or an empty text."""
    number = figure.number
    once = round(ours / number.step, 1) * number.step
    if number.prints(ours) or not number.prints(once):
        return ""
    return f"rounded twice: {number.show(ours)} to {number.show(once)}, and that up"
