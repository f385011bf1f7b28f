"""Closed-form cost: known figures, sums, and attention memory by hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from sharedattn.costs.model import CostModel
from sharedattn.mechanisms.interface import PartCost
from sharedattn.placement import (
    BackboneSpec,
    LayerChoice,
    MechanismOptions,
    NetworkSpec,
    Placement,
)

RandomPlacement = Callable[[random.Random, int], Placement]

N, D, H, M = 10, 22, 2, 33  # sizes of `tiny`


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        # fvcore's own counts of timm's models with unfused attention.
        ("deit_tiny_patch16_224", 5_717_416, 1_258_411_200),
        ("deit_small_patch16_224", 22_050_664, 4_608_338_304),
    ],
)
def test_known_backbones(name: str, params: int, macs: int) -> None:
    spec = NetworkSpec.parse(f"{name}: V12")
    cost = CostModel(spec.backbone).cost(spec.placement)
    assert (cost.params, cost.macs) == (params, macs)


def test_the_document_of_a_cost() -> None:
    spec = NetworkSpec.parse("deit_tiny_patch16_224: V12")
    document = CostModel(spec.backbone).cost(spec.placement).to_json()
    nothing = {"params": 0, "macs": 0}
    assert document == {
        "placement": "V12",
        "params": 5_717_416,
        "trainable_params": 5_717_416,
        "macs": 1_258_411_200,
        "matmul_macs": 1_258_411_200 - 4_728_000,
        "attention_bytes": 4 * 3 * 197**2,
        "image_size": 224,
        "stages": [{"params": 12 * 444_864, "macs": 1_229_128_704}],
        "mechanisms": {
            "vanilla": {"params": 12 * (4 * 192**2 + 4 * 192), "macs": 12 * 43_951_488},
            "less": nothing,
            "external": nothing,
            "dia": nothing,
            "broadcasting": nothing,
            "rest": {"params": 3_938_728, "macs": 1_258_411_200 - 12 * 43_951_488},
        },
    }


@pytest.mark.parametrize(
    ("choice", "params", "macs"),
    [
        ("V1", 4 * D**2 + 4 * D, 4 * N * D**2 + 2 * N**2 * D),
        ("V1/cb", 4 * D**2 + 4 * D, 4 * N * D**2 + 2 * N**2 * D),
        ("L1", 2 * D**2 + 2 * D + 2 * N**2, 2 * N * D**2 + 4 * N**2 * D),
        ("E1/s7", 2 * D**2 + D + 2 * 7 * D, 2 * N * D**2 + 2 * N * 7 * D),
        ("V1/dia1", 4 * D**2 + 4 * D, 4 * N * D**2 + 2 * N**2 * D + 10 * D * 5),
    ],
)
def test_a_block_by_hand(tiny: BackboneSpec, choice: str, params: int, macs: int) -> None:
    text = "V,L" if choice == "L1" else choice
    layer = Placement.parse(text).layers[-1]
    norms, mlp = PartCost(2 * 2 * D, 2 * 5 * N * D), PartCost(2 * D * M + D + M, 2 * N * D * M)
    assert CostModel(tiny).layer(0, layer) == PartCost(params, macs) + norms + mlp


def test_a_block_without_attention(tiny: BackboneSpec) -> None:
    expected = PartCost(2 * D + 2 * D * M + D + M, 5 * N * D + 2 * N * D * M)
    assert CostModel(tiny).layer(0, LayerChoice("N", cb=True)) == expected


def test_a_shared_cell_counts_its_params_once_and_its_macs_each_time(tiny: BackboneSpec) -> None:
    model = CostModel(tiny)
    one, two, none = (model.totals(Placement.parse(text)) for text in ("V4/dia1", "V4/dia2", "V4"))
    cell = 10 * D * 5 + 2 * 5 + 8 * D
    assert model.cell_params(0, "dia") == cell
    assert (one.params - none.params, two.params - none.params) == (cell, 2 * cell)
    assert one.macs == two.macs == none.macs + 4 * 10 * D * 5


OPTIONS = [
    MechanismOptions(),
    MechanismOptions(external_expansion=2, broadcasting_form="scaled", dia_reduction=3),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_sum_is_the_total(
    tiny: BackboneSpec, random_placement: RandomPlacement, options: MechanismOptions
) -> None:
    model = CostModel(replace(tiny, options=options))
    rng = random.Random(1)
    for _ in range(40):
        placement = random_placement(rng, 5)
        cost = model.cost(placement)
        total = PartCost(cost.params, cost.macs)
        assert model.totals(placement) == total
        assert sum(cost.mechanisms.values(), start=PartCost(0, 0)) == total
        assert sum(cost.stages, start=model.fixed) == total
        assert tuple(cost.mechanisms) == (
            "vanilla",
            "less",
            "external",
            "dia",
            "broadcasting",
            "rest",
        )
        cells = {layer.gate for layer in placement.layers} - {None}
        layers = [model.layer(0, layer) for layer in placement.layers]
        assert total.params == (
            model.fixed.params
            + sum(layer.params for layer in layers)
            + len(cells) * model.cell_params(0, "dia")
        )
        assert total.macs == model.fixed.macs + sum(layer.macs for layer in layers)


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        ("N3/cb", 0),
        ("V2", H * N**2),
        ("E2/s7", N * 7 + 2 * 7 * D),
        ("V1L1", H * N**2 + 2 * N * D),
        ("V1L3", H * N**2 + 2 * N * D),
        ("V2E2/s99", N * 99 + 2 * 99 * D),
        # Queries and keys are held across an external layer, until a less layer takes them.
        ("V1E1L1/s99", N * 99 + 2 * 99 * D + 2 * N * D),
        # They are not held for a less layer behind another vanilla one.
        ("V1E1V1L1/s99", N * 99 + 2 * 99 * D),
        ("V1N1L1", H * N**2 + 2 * N * D),
    ],
)
def test_attention_memory_by_hand(tiny: BackboneSpec, text: str, elements: int) -> None:
    assert CostModel(tiny).attention_bytes(Placement.parse(text)) == 4 * elements


def test_attention_memory_of_the_multi_head_form(tiny: BackboneSpec) -> None:
    backbone = replace(tiny, options=MechanismOptions(external_expansion=3))
    elements = 3 * H * N * 7 + 2 * 7 * (D // H)
    assert CostModel(backbone).attention_bytes(Placement.parse("E1/s7/mea")) == 4 * elements
