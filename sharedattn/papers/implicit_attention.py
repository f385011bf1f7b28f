"""Figures of dense-and-implicit attention (AAAI 2020, arXiv:1905.10671; arXiv:2210.16101).

The published figures of transformers were not available. Totals of convolutional networks are
compared with the networks that are built here.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from sharedattn.papers.counting import WHOLE, params_rows
from sharedattn.papers.figures import Figure, Row

PAPER = "DIA"
CODE = "counted on the paper's published code"
PYTORCHCV = "pytorchcv, an implementation of others"
EAN = "experiments of the same authors on ImageNet"
DEFINITION = "not printed, computed apart from this library, from the published definitions"

_BIASES = "its convolutions have biases, 26,560 parameters"
_WITH_NORM = "norm before gates"


@dataclass(frozen=True, slots=True)
class ConvolutionalNetwork:
    """A published convolutional network.

    Attributes:
        model: name of the network.
        printed: its published number of parameters.
        source: where it was published.
        network: the network as text.
        reason: why ours differs, or empty if it does not.
    """

    model: str
    printed: str
    source: str
    network: str
    reason: str = ""


def _gated(backbone: str, depths: tuple[int, ...], gate: str = "") -> str:
    """A network with one gate's text on every stage, or none."""
    return f"{backbone}: " + " | ".join(f"V{depth}{gate and f'/{gate}'}" for depth in depths)


_18, _50, _101 = (18, 18, 18), (3, 4, 6, 3), (3, 4, 23, 3)
_RESNET_164, _PRERESNET_164 = (
    "resnet164_cifar(num_classes={})",
    "preresnet164_cifar({}num_classes={})",
)

NETWORKS = (
    ConvolutionalNetwork(
        "ResNet-164, C100", "1,727,284", CODE, _gated(_RESNET_164.format(100), _18)
    ),
    ConvolutionalNetwork(
        "ResNet-164, C100, r = 4", "1,946,132", CODE, _gated(_RESNET_164.format(100), _18, "dia1")
    ),
    ConvolutionalNetwork(
        "PreResNet-164, C100", "1,726,388", CODE, _gated(_PRERESNET_164.format("", 100), _18)
    ),
    ConvolutionalNetwork(
        f"PreResNet-164, C100, r = 4, {_WITH_NORM}",
        "1,961,364",
        CODE,
        _gated(_PRERESNET_164.format("gate_norm=true,", 100), _18, "dia1"),
    ),
    ConvolutionalNetwork(
        "WRN-52-4, C100", "12,072,500", CODE, _gated("wrn52_4_cifar(num_classes=100)", (8, 8, 8))
    ),
    ConvolutionalNetwork(
        f"WRN-52-4, C100, r = 4, {_WITH_NORM}",
        "12,298,516",
        CODE,
        _gated("wrn52_4_cifar(gate_norm=true,num_classes=100)", (8, 8, 8), "dia1"),
    ),
    ConvolutionalNetwork(
        "ResNeXt-101 8x32, C100",
        "32,138,244",
        CODE,
        _gated("resnext101_8x32_cifar(num_classes=100)", (11, 11, 11)),
    ),
    ConvolutionalNetwork(
        "ResNeXt-101 8x32, C100, r = 4",
        "33,006,020",
        CODE,
        _gated("resnext101_8x32_cifar(num_classes=100)", (11, 11, 11), "dia1"),
    ),
    ConvolutionalNetwork(
        "ResNet-20, C10, r = 4",
        "286,866",
        PYTORCHCV,
        _gated("resnet20_cifar(num_classes=10)", (3, 3, 3), "dia1"),
    ),
    ConvolutionalNetwork(
        "ResNet-164, C10, r = 4",
        "1,923,002",
        PYTORCHCV,
        _gated(_RESNET_164.format(10), _18, "dia1"),
    ),
    ConvolutionalNetwork(
        "ResNet-164, C10, SE", "1,906,258", PYTORCHCV, _gated(_RESNET_164.format(10), _18, "se")
    ),
    ConvolutionalNetwork(
        "PreResNet-164, C10, r = 4",
        "1,922,106",
        PYTORCHCV,
        _gated(_PRERESNET_164.format("", 10), _18, "dia1"),
    ),
    ConvolutionalNetwork(
        "ResNet-50, r = 4", "39,516,072", PYTORCHCV, _gated("resnet50", _50, "dia1")
    ),
    ConvolutionalNetwork(
        "ResNet-101, r = 4", "58,508,200", PYTORCHCV, _gated("resnet101", _101, "dia1")
    ),
    ConvolutionalNetwork("ResNet-50, SE", "28,088,024", PYTORCHCV, _gated("resnet50", _50, "se")),
    ConvolutionalNetwork(
        "ResNet-50, r = 20", "28.4 M", EAN, _gated("resnet50(dia_reduction=20)", _50, "dia1")
    ),
    ConvolutionalNetwork(
        "ResNet-50, r = 20, counted on its code",
        "28,384,612",
        EAN,
        _gated("resnet50(dia_reduction=20)", _50, "dia1"),
        _BIASES,
    ),
    ConvolutionalNetwork(
        "ResNet-50, one SE unit a stage, counted on its code",
        "26,283,992",
        EAN,
        _gated("resnet50", _50, "se1"),
        _BIASES,
    ),
    ConvolutionalNetwork(
        "ResNet-50, one SGE unit a stage, counted on its code",
        "25,584,104",
        EAN,
        _gated("resnet50", _50, "sge1"),
        _BIASES,
    ),
    *(
        ConvolutionalNetwork(
            f"ResNet-164, C100, r = {r}",
            total,
            DEFINITION,
            _gated(f"resnet164_cifar(dia_reduction={r},num_classes=100)", _18, "dia1"),
        )
        for r, total in (
            (1, "2,591,924"),
            (2, "2,161,396"),
            (8, "1,838,500"),
            (16, "1,784,684"),
            (32, "1,757,776"),
        )
    ),
    *(
        ConvolutionalNetwork(
            f"ResNet-50, r = {r}",
            total,
            DEFINITION,
            _gated(f"resnet50(dia_reduction={r})", _50, "dia1"),
        )
        for r, total in (
            (8, "32,551,912"),
            (16, "29,069,832"),
            (20, "28,358,052"),
            (32, "27,328,792"),
        )
    ),
    ConvolutionalNetwork(
        "ResNet-101, r = 20",
        "47,350,180",
        DEFINITION,
        _gated("resnet101(dia_reduction=20)", _101, "dia1"),
    ),
    ConvolutionalNetwork(
        "ResNet-50, one SE unit a stage", "26,257,432", DEFINITION, _gated("resnet50", _50, "se1")
    ),
    ConvolutionalNetwork(
        "ResNet-101, SE", "49,326,872", DEFINITION, _gated("resnet101", _101, "se")
    ),
)

ADDITIONS = (
    ("ResNet-50, r = 4", "50.299 M", "resnet50", _50, "dia1"),
    ("ResNet-50, r = 20", "10.004 M", "resnet50(dia_reduction=20)", _50, "dia1"),
    ("ResNet-50, SE", "2.515 M", "resnet50", _50, "se"),
    ("ResNet-101, r = 20", "18.883 M", "resnet101(dia_reduction=20)", _101, "dia1"),
    ("ResNet-164, r = 4", "3.871 M", _RESNET_164.format(10), _18, "dia1"),
    ("ResNet-164, SE", "0.19 M", _RESNET_164.format(10), _18, "se"),
)
"""MACs that gates add: model, figure, backbone, depths and text of the gates."""


def rows() -> list[Row]:
    """Totals, and MACs that gates add, compared with our networks."""
    totals = [
        row
        for network in NETWORKS
        for row in params_rows(
            Figure(
                paper=PAPER,
                source=network.source,
                model=network.model,
                metric="params",
                printed=network.printed,
            ),
            network.network,
            reason=network.reason,
        )
    ]
    return totals + [_addition(*addition) for addition in ADDITIONS]


def _addition(model: str, printed: str, backbone: str, depths: tuple[int, ...], gate: str) -> Row:
    """MACs that a gate on every block adds to a network."""
    network = _gated(backbone, depths, gate)
    added = WHOLE.count(network).macs - WHOLE.count(_gated(backbone, depths)).macs
    return Row(
        figure=Figure(
            paper=PAPER, source=DEFINITION, model=model, metric="MACs added", printed=printed
        ),
        ours=Fraction(added),
        convention=str(WHOLE),
        network=network,
    )
