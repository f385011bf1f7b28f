"""The SE unit: by its equation, its published counts, and its text."""

from __future__ import annotations

import pytest
import torch

from sharedattn.errors import InputError
from sharedattn.mechanisms import se
from sharedattn.mechanisms.se import SE_GATE, SEUnit
from sharedattn.placement import MechanismOptions, Placement
from sharedattn.testing import check_mechanism
from sharedattn.testing.tiny_backbones import TINY, tiny_backbone

B, D, REDUCTION = 3, 11, 4


def test_the_gate_by_its_equation() -> None:
    unit = SEUnit(D, REDUCTION).double()
    s = torch.randn(B, D, dtype=torch.float64)
    hidden = (s @ unit.fc1.weight.T + unit.fc1.bias).clamp(min=0)
    expected = (hidden @ unit.fc2.weight.T + unit.fc2.bias).sigmoid()
    torch.testing.assert_close(unit(s), expected)
    assert unit.fc1.out_features == 2


@pytest.mark.parametrize(
    ("depths", "widths", "per_block", "shared"),
    [
        ((3, 4, 6, 3), (256, 512, 1024, 2048), 2_530_992, 700_400),  # ResNet-50
        ((3, 4, 23, 3), (256, 512, 1024, 2048), 4_777_712, 700_400),  # ResNet-101
        ((18, 18, 18), (64, 128, 256), 202_104, 11_228),  # ResNet-164 on CIFAR
    ],
)
def test_published_counts(
    depths: tuple[int, ...], widths: tuple[int, ...], per_block: int, shared: int
) -> None:
    of_stages = [se.params(width, 16) for width in widths]
    assert sum(n * params for n, params in zip(depths, of_stages, strict=True)) == per_block
    assert sum(of_stages) == shared
    for width, params in zip(widths, of_stages, strict=True):
        assert sum(p.numel() for p in SEUnit(width, 16).parameters()) == params


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("V3/se", "V/u0,V/u1,V/u2"),
        ("V3/se1", "V/u0,V/u0,V/u0"),
        ("V3/se2", "V/u0,V/u0,V/u1"),
        ("V1X1V1/se", "V/u0,X,V/u1"),
    ],
)
def test_text(text: str, layers: str) -> None:
    placement = Placement.parse(text)
    assert placement == Placement.parse(layers)
    assert str(placement) == text
    assert Placement.from_json(placement.to_json()) == placement


@pytest.mark.parametrize("text", ["V3/se3", "V,V/u0,V/u1", "V1/se1"])
def test_other_texts_of_one_unit_for_each_layer(text: str) -> None:
    expected = {"V3/se3": "V3/se", "V,V/u0,V/u1": "V,V/u0,V/u1", "V1/se1": "V1/se"}
    assert str(Placement.parse(text)) == expected[text]


def test_a_mask_is_of_units() -> None:
    assert Placement.parse("V4/se[1011]") == Placement.parse("V/u0,V,V/u1,V/u2")
    assert Placement.parse("V4/se2[1011]") == Placement.parse("V/u0,V,V/u0,V/u1")


def test_a_bottleneck_without_channels() -> None:
    with pytest.raises(InputError, match="the most that fits is se_reduction=11"):
        SEUnit(D, D + 1)


def test_the_reduction_is_stored_only_if_it_is_changed() -> None:
    assert "se_reduction" not in MechanismOptions().to_json()
    assert MechanismOptions(se_reduction=3).to_json()["se_reduction"] == 3


@pytest.mark.parametrize("name", TINY)
def test_it_passes_the_contract_on_every_family(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # r = 16 leaves the narrow stages of tiny backbones no channel.
    monkeypatch.setattr(
        "sharedattn.testing.mechanisms.tiny_backbone", lambda n: tiny_backbone(n, "se_reduction=3")
    )
    check_mechanism(SE_GATE, backbones=(name,), num_placements=3)
