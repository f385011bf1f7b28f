"""Figures of dense-and-implicit attention (AAAI 2020, arXiv:1905.10671; arXiv:2210.16101).

The published figures of transformers were not available. Instead the cells are compared with the
published totals of convolutional networks: the plain network's parameters, which are taken as
given, plus our cells of its stages.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from sharedattn.mechanisms import dia
from sharedattn.papers.figures import Figure, Row

PAPER = "DIA"
CODE = "counted on the paper's published code"
PYTORCHCV = "pytorchcv, an implementation of others"
EAN = "experiments of the same authors on ImageNet"


@dataclass(frozen=True, slots=True)
class DIANetwork:
    """A convolutional network with one DIA-LSTM cell per stage.

    Attributes:
        model: name of the network.
        printed: its published number of parameters.
        source: where it was published.
        plain_params: number of parameters without cells.
        widths: channels of its stages.
        reduction: r of its cells.
    """

    model: str
    printed: str
    source: str
    plain_params: int
    widths: tuple[int, ...]
    reduction: int


_RESNET_50, _RESNET_101 = 25_557_032, 44_549_160
_IMAGENET_WIDTHS = (256, 512, 1024, 2048)

NETWORKS = (
    DIANetwork("ResNet-164", "1,946,132", CODE, 1_727_284, (64, 128, 256), 4),
    DIANetwork("ResNet-20", "286,866", PYTORCHCV, 272_474, (16, 32, 64), 4),
    DIANetwork("PreResNet-164", "1,922,106", PYTORCHCV, 1_703_258, (64, 128, 256), 4),
    DIANetwork("ResNet-50", "39,516,072", PYTORCHCV, _RESNET_50, _IMAGENET_WIDTHS, 4),
    DIANetwork("ResNet-101", "58,508,200", PYTORCHCV, _RESNET_101, _IMAGENET_WIDTHS, 4),
    DIANetwork("ResNet-50", "28.4 M", EAN, _RESNET_50, _IMAGENET_WIDTHS, 20),
)


def rows() -> list[Row]:
    """Published totals compared with the plain network plus our cells."""
    found = []
    for network in NETWORKS:
        cells = sum(dia.params(width, network.reduction) for width in network.widths)
        found.append(
            Row(
                figure=Figure(
                    paper=PAPER,
                    source=network.source,
                    model=f"{network.model}, r = {network.reduction}",
                    metric="params",
                    printed=network.printed,
                ),
                ours=Fraction(network.plain_params + cells),
                convention="plain network + our cells",
                note=f"{network.plain_params:,} of the plain network, {cells:,} of "
                f"{len(network.widths)} cells",
            )
        )
    return found
