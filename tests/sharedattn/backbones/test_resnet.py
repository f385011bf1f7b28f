"""timm's ResNets: their logits with their own weights, and published totals with gates."""

from __future__ import annotations

import contract
import pytest
import timm
import torch
from reference import with_statistics
from torch import nn

from sharedattn.backbones import build, canonical, describe, resolve
from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement

TINY = "resnet(block={},depths=3-2,widths=6-10,in_chans=2,num_classes=3)@35"
SHAPES = (
    "basic",
    "bottleneck",
    "bottleneck,base_width=32,cardinality=2",
    "bottleneck,output_stride=8,stem_type=deep,stem_width=3",
)

NAMES = (
    ("resnet18", {}),
    ("resnet34", {}),
    ("resnet50", {}),
    ("resnet50c", {}),
    ("resnet101", {}),
    ("resnext50_32x4d", {}),
    ("resnext101_32x4d", {}),
    ("resnet18", {"output_stride": 8}),
    ("resnet50", {"output_stride": 16}),
    ("resnet50", {"output_stride": 8, "stem_type": "deep", "stem_width": 48}),
)


@pytest.mark.parametrize(("name", "keywords"), NAMES)
def test_timms_weights_give_timms_logits(name: str, keywords: dict[str, object]) -> None:
    image_size = 33
    text = "".join(f",{keyword}={value}" for keyword, value in keywords.items())
    backbone = BackboneSpec.parse(f"{name}(num_classes=7{text})@{image_size}")
    model = timm.create_model(name, num_classes=7, **keywords)
    model = with_statistics(model).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # timm's last norms of blocks start at zero, which would hide them.
            nn.init.uniform_(module.weight, 0.2, 0.4)
            nn.init.normal_(module.bias)
    network = build(
        NetworkSpec(backbone, Placement.all_vanilla(describe(backbone).depths))
    ).double()
    network.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, image_size, image_size, dtype=torch.float64)
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(network.eval()(images), expected, rtol=0, atol=1e-6)
    assert expected.std() > 1e-2


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("resnet18: V2 | V2 | V2 | V2", 11_689_512),
        ("resnext50_32x4d: V3 | V4 | V6 | V3", 25_028_904),
        ("resnext101_32x4d: V3 | V4 | V23 | V3", 44_177_704),
        ("resnet50: V3 | V4 | V6 | V3", 25_557_032),
        ("resnet50(dia_reduction=20): V3/dia1 | V4/dia1 | V6/dia1 | V3/dia1", 28_358_052),
        ("resnet50: V3/dia1 | V4/dia1 | V6/dia1 | V3/dia1", 39_516_072),
        ("resnet101: V3 | V4 | V23 | V3", 44_549_160),
        ("resnet101: V3/dia1 | V4/dia1 | V23/dia1 | V3/dia1", 58_508_200),
        ("resnet101(dia_reduction=20): V3/dia1 | V4/dia1 | V23/dia1 | V3/dia1", 47_350_180),
        ("resnet50: V3/se | V4/se | V6/se | V3/se", 28_088_024),
        ("resnet50: V3/se1 | V4/se1 | V6/se1 | V3/se1", 26_257_432),
        ("resnet101: V3/se | V4/se | V23/se | V3/se", 49_326_872),
    ],
)
def test_published_totals(text: str, params: int) -> None:
    spec = resolve(NetworkSpec.parse(text))
    assert CostModel(spec.backbone).cost(spec.placement).params == params
    with torch.device("meta"):
        assert sum(p.numel() for p in build(spec).parameters()) == params


@pytest.mark.parametrize(
    ("options", "gate", "macs"),
    [
        ("", "dia1", 50_298_880),
        ("(dia_reduction=20)", "dia1", 10_004_480),
        ("", "se", 2_514_944),
        ("", "se1", 2_514_944),
    ],
)
def test_published_additions(options: str, gate: str, macs: int) -> None:
    backbone = BackboneSpec.parse(f"resnet50{options}")
    model = CostModel(backbone)
    gated = Placement.parse(" | ".join(f"V{depth}/{gate}" for depth in (3, 4, 6, 3)))
    plain = Placement.all_vanilla((3, 4, 6, 3))
    assert model.totals(gated).macs - model.totals(plain).macs == macs


def test_canonical_keywords() -> None:
    assert (
        str(canonical(BackboneSpec.parse("resnet50(base_width=64,depths=3-4-6-3)"))) == "resnet50"
    )
    text = "resnext50_32x4d(widths=24-40-56-88)@35"
    assert str(canonical(BackboneSpec.parse(text))) == text
    # A plain stem has one width, and nothing is dilated at the usual stride.
    plain = "resnet50(output_stride=32,stem_type=plain,stem_width=32)"
    assert str(canonical(BackboneSpec.parse(plain))) == "resnet50"
    text = "resnet50(output_stride=8,stem_type=deep)"
    assert str(canonical(BackboneSpec.parse(text))) == text


@pytest.mark.parametrize(
    ("stride", "reductions"), [(32, (4, 8, 16, 32)), (16, (4, 8, 16, 16)), (8, (4, 8, 8, 8))]
)
def test_dilated_stages_keep_their_grid(stride: int, reductions: tuple[int, ...]) -> None:
    backbone = BackboneSpec.parse(f"resnet18(output_stride={stride})@64x96")
    assert tuple(f.reduction for f in describe(backbone).features) == reductions
    timms = timm.create_model("resnet18", features_only=True, output_stride=stride)
    assert tuple(timms.feature_info.reduction()[1:]) == reductions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet50d: V3|V4|V6|V3", "a part of its skip is a .*, understood is Conv2d"),
        ("resnet18(output_stride=4): V2|V2|V2|V2", "`output_stride` is 4; it is one of 8, 16, 32"),
        ("resnet18(stem_type=wide): V2|V2|V2|V2", "`stem_type` is 'wide'; it is one of plain, d"),
        ("seresnet50: V3|V4|V6|V3", "its se is a SEModule, understood is Identity"),
        ("resnet18: V1L1|V2|V2|V2", "kind L .*does not have; write V .* or X"),
        (
            "resnet18: V2|V1L1|V2|V2",
            r"does not have; write V .* or X .* or E \(the block, then",
        ),
        ("resnet18: V2|E2/s3/mea|V2|V2", "the multi-head form, /mea, .*; write E/s3, which"),
        ("resnet18: V2|V2|N2|V2", "kind N .*does not have; write V .* or X"),
        ("resnet18: V2|V2|V2/cb|V2", "broadcasting mixes tokens .*; drop the /cb"),
        ("resnet18: V2|X1V1|V2|V2", "layer 1 of stage 2 .* is left out .*; make it V"),
        ("resnet18: V2/dia3|V2|V2|V2", "the most that fits is /dia2"),
        ("resnet18: V3|V2|V2|V2", r"such as resnet18\(depths=3-2-2-2\)"),
        ("resnet18(dia_reduction=65): V2/dia1|V2|V2|V2", "dia_reduction=64"),
        ("resnet18(se_reduction=65): V2/se|V2|V2|V2", "se_reduction=64"),
        ("resnet18(gate_norm=true): V2/se|V2|V2|V2", "`gate_norm` is set on a backbone without"),
        ("resnet18(block=square): V2|V2|V2|V2", "`block` is 'square'; it is one of basic, bot"),
        ("resnet18(depths=2-2): V2|V2", "give widths too"),
        ("resnet18(attention_residual=true): V2|V2|V2|V2", "leave it out"),
    ],
)
def test_what_does_not_fit(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(NetworkSpec.parse(text))


@pytest.mark.parametrize("block", SHAPES)
def test_referees(block: str) -> None:
    contract.check_referees(TINY.format(block), range(6))


# benchmarks/gate_referees.py draws a hundred of each of six families.
@pytest.mark.slow
@pytest.mark.parametrize("block", SHAPES)
def test_referees_on_many(block: str) -> None:
    contract.check_referees(TINY.format(block), range(6, 30))


@pytest.mark.parametrize("block", SHAPES)
def test_extraction(block: str) -> None:
    contract.check_extraction(TINY.format(block), 8)


def test_gradients() -> None:
    contract.check_gradients(TINY.format("basic"), 6)


def test_interleaved() -> None:
    contract.check_interleaved(TINY.format("bottleneck"))
