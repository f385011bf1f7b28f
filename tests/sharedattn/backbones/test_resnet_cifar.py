"""Residual networks for small images against independent writings of DIANet's networks."""

from __future__ import annotations

import contract
import pytest
import torch
from reference import Weights, batch_norm, linear, part, with_statistics
from torch import Tensor
from torch.nn import functional as F

from sharedattn.backbones import build, describe, resolve
from sharedattn.costs.model import CostModel
from sharedattn.placement import BackboneSpec, NetworkSpec

# CBAM's bottleneck has no biases: of several channels, some are open.
SIZES = "cbam_reduction=2,depths=3-2,in_chans=2,num_classes=3,stem_width=5,widths=14-22"
TINY = {
    "post basic": f"resnet_cifar({SIZES})@11",
    "post bottleneck": f"resnet_cifar(block=bottleneck,cardinality=3,inner_widths=6-9,{SIZES})@11",
    "pre basic": f"resnet_cifar(pre_activation=true,{SIZES})@11",
    "pre bottleneck": "resnet_cifar(block=bottleneck,inner_widths=6-9,pre_activation=true,"
    f"{SIZES})@11",
    "wide": f"resnet_cifar(activated_skip=true,pre_activation=true,{SIZES})@11",
}
TINY |= {
    f"{name}, gate norm": TINY[name].replace("(", "(gate_norm=true,")
    for name in ("pre basic", "pre bottleneck", "wide")
}


def dia_cell(s: Tensor, h: Tensor, c: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    sums = sum(
        linear(linear(x, part(weights, f"{net}.0")).relu(), part(weights, f"{net}.2"))
        for net, x in (("input_net", s), ("hidden_net", h))
    )
    i, f, u, o = sums.chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * u.tanh()
    return o.sigmoid() * c.sigmoid(), c


def convolved(x: Tensor, weights: Weights, stride: int, groups: int) -> Tensor:
    kernel = weights["weight"]
    return F.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2, 1, groups)


def branch_and_skip(
    x: Tensor, weights: Weights, stride: int, groups: int, form: str
) -> tuple[Tensor, Tensor]:
    """A block as published, up to where its gate stands."""
    number = 3 if "conv3.weight" in weights else 2
    spatial = 1 if number == 2 else 2  # the convolution with stride and groups
    skip = x
    for n in range(1, number + 1):
        sizes = (stride, groups) if n == spatial else (1, 1)
        if form == "post":
            x = batch_norm(
                convolved(x, part(weights, f"conv{n}"), *sizes), part(weights, f"bn{n}")
            )
            x = x.relu() if n < number else x
        else:
            x = batch_norm(x, part(weights, f"bn{n}")).relu()
            if n == 1 and form == "wide" and "downsample.0.weight" in weights:
                skip = x
            x = convolved(x, part(weights, f"conv{n}"), *sizes)
    if "downsample.0.weight" in weights:
        skip = convolved(skip, part(weights, "downsample.0"), stride, 1)
    if "downsample.1.weight" in weights:
        skip = batch_norm(skip, part(weights, "downsample.1"))
    return x, skip


def published_forward(
    images: Tensor, weights: Weights, masks: tuple[str, ...], groups: int, form: str
) -> Tensor:
    """Logits where each stage has one DIA unit for the blocks with a one, `-` being left out."""
    x = convolved(images, part(weights, "conv1"), 1, 1)
    if form == "post":
        x = batch_norm(x, part(weights, "bn1")).relu()
    for stage, mask in enumerate(masks):
        h = c = torch.zeros((), dtype=x.dtype)
        for index, bit in enumerate(mask):
            if bit == "-":
                continue
            block = part(weights, f"layer{stage + 1}.{index}")
            stride = 2 if stage and not index else 1
            y, skip = branch_and_skip(x, block, stride, groups, form)
            if bit == "1":
                if "gate_norm.weight" in block:
                    y = batch_norm(y, part(block, "gate_norm"))
                s = y.mean((2, 3))
                h, c = (v.expand(s.shape) for v in (h, c))
                h, c = dia_cell(s, h, c, part(weights, f"dia_cells.{stage}.0"))
                y = y * h[:, :, None, None]
            x = skip + y
            x = x.relu() if form == "post" else x
    if form != "post":
        x = batch_norm(x, part(weights, "bn")).relu()
    return linear(x.mean((2, 3)), part(weights, "fc"))


MASKS = {
    "V3 | V2": ("000", "00"),
    "V3/dia1 | V2/dia1": ("111", "11"),
    "V3/dia1[101] | V2/dia1[01]": ("101", "01"),
    "V3/dia1[110] | V2": ("110", "00"),
    "V1X1V1/dia1 | V2/dia1[10]": ("1-1", "10"),
    "V2 | V1/dia1": ("00", "1"),
}


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("name", TINY)
def test_logits_are_those_of_the_published_network(name: str, masks: str) -> None:
    network = contract.randomised(build(NetworkSpec.parse(f"{TINY[name]}: {masks}")))
    with_statistics(network)
    images = contract.random_images(network.backbone)
    form = name.split()[0].strip(",")
    groups = 3 if "cardinality" in TINY[name] else 1
    with torch.no_grad():
        expected = published_forward(images, network.state_dict(), MASKS[masks], groups, form)
        # Twice: nothing is left over from one run to the next.
        for _ in range(2):
            torch.testing.assert_close(network(images), expected, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "plain", "with_dia", "with_gate_norm"),
    [
        ("resnet20_cifar(num_classes=10)", 272_474, 286_866, None),
        ("resnet164_cifar(num_classes=10)", 1_704_154, 1_923_002, None),
        ("resnet164_cifar(num_classes=100)", 1_727_284, 1_946_132, None),
        ("preresnet164_cifar(num_classes=10)", 1_703_258, 1_922_106, None),
        ("preresnet164_cifar(num_classes=100)", 1_726_388, 1_945_236, 1_961_364),
        ("wrn52_4_cifar(num_classes=100)", 12_072_500, 12_291_348, 12_298_516),
        ("resnext101_8x32_cifar(num_classes=100)", 32_138_244, 33_006_020, None),
    ],
)
def test_published_totals(
    name: str, plain: int, with_dia: int, with_gate_norm: int | None
) -> None:
    depths = describe(BackboneSpec.parse(name)).depths
    vanilla = " | ".join(f"V{depth}" for depth in depths)
    gated = " | ".join(f"V{depth}/dia1" for depth in depths)
    with_norm = name.replace("(", "(gate_norm=true,")
    texts = {f"{name}: {vanilla}": plain, f"{name}: {gated}": with_dia}
    if with_gate_norm is not None:
        texts[f"{with_norm}: {gated}"] = with_gate_norm
    for text, params in texts.items():
        spec = resolve(NetworkSpec.parse(text))
        assert CostModel(spec.backbone).totals(spec.placement).params == params
    with torch.device("meta"):
        assert sum(p.numel() for p in build(spec).parameters()) == params


def test_published_macs_of_resnet_164() -> None:
    backbone = BackboneSpec.parse("resnet164_cifar(num_classes=10)")
    plain, dia, se = (
        CostModel(backbone).cost(NetworkSpec.parse(f"{backbone}: {p} | {p} | {p}").placement)
        for p in ("V18", "V18/dia1", "V18/se")
    )
    assert plain.matmul_macs == 247_646_720
    assert dia.macs - plain.macs == dia.mechanisms["dia"].macs == 3_870_720
    assert se.params == 1_906_258


@pytest.mark.parametrize("depth", [20, 56, 110])
@pytest.mark.parametrize("prefix", ["resnet", "preresnet"])
def test_names_tell_the_depth(prefix: str, depth: int) -> None:
    shape = describe(BackboneSpec.parse(f"{prefix}{depth}_cifar"))
    assert 2 * sum(shape.depths) + 2 == depth
    assert [stage.embed_dim for stage in shape.stages] == [16, 32, 64]
    assert [stage.grid for stage in shape.stages] == [(32, 32), (16, 16), (8, 8)]
    assert {stage.convolution.pre_activated for stage in shape.stages if stage.convolution} == {
        prefix == "preresnet"
    }


def test_the_norm_before_gates_is_an_option_that_is_used_by_gates_alone() -> None:
    text = "preresnet20_cifar(gate_norm=true): V3 | V3{} | V3"
    assert resolve(NetworkSpec.parse(text.format("/se1"))) == NetworkSpec.parse(
        text.format("/se1")
    )
    plain = resolve(NetworkSpec.parse(text.format("")))
    assert str(plain) == "preresnet20_cifar: V3 | V3 | V3"


def test_stochastic_depth_rises_linearly() -> None:
    network = build(NetworkSpec.parse(f"{TINY['pre basic']}: V3 | V2"), drop_path_rate=0.4)
    layers = [(stage, index) for stage, depth in ((0, 3), (1, 2)) for index in range(depth)]
    rates = [getattr(network.block(*layer).drop_path, "drop_prob", 0.0) for layer in layers]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("name", TINY)
def test_referees(name: str) -> None:
    contract.check_referees(TINY[name], range(6))


# benchmarks/gate_referees.py draws a hundred of each of six families.
@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_referees_on_many(name: str) -> None:
    contract.check_referees(TINY[name], range(6, 30))


@pytest.mark.parametrize("name", TINY)
def test_extraction(name: str) -> None:
    contract.check_extraction(TINY[name], 6)


@pytest.mark.parametrize("name", ["post basic", "wide", "pre bottleneck, gate norm"])
def test_gradients(name: str) -> None:
    contract.check_gradients(TINY[name], 6)


@pytest.mark.parametrize("name", ["post bottleneck", "pre basic"])
def test_interleaved(name: str) -> None:
    contract.check_interleaved(TINY[name])
