from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.objectives import (
    OBJECTIVES,
    Direction,
    Objective,
    cost_objective,
    costs_of,
    parse_bounds,
    parse_objectives,
    register,
    shown_costs,
)
from sharedattn.placement import BackboneSpec, Placement
from sharedattn.units import COUNT, FRACTION

DEPTH = Objective(
    name="num_layers",
    label="layers",
    heading="layers",
    unit=COUNT,
    value_of=lambda _, placement: len(placement.layers),
)


@pytest.fixture
def registry() -> Iterator[dict[str, Objective]]:
    """What is registered in a test is forgotten after it."""
    before = dict(OBJECTIVES)
    yield OBJECTIVES
    OBJECTIVES.clear()
    OBJECTIVES.update(before)


def test_bounds_are_read_in_the_unit_of_their_cost() -> None:
    texts = ("macs=1.2G", "attention_bytes=64M", " latency_ms =2.5", "params=7K")
    assert parse_bounds(texts) == [
        ("macs", 1_200_000_000),
        ("attention_bytes", 64_000_000),
        ("latency_ms", 2.5),
        ("params", 7000),
    ]
    with pytest.raises(InputError, match="--max is 'macs'; write NAME=VALUE, for example"):
        parse_bounds(["macs"])
    with pytest.raises(InputError, match="'top1' is no cost; name one of macs, params"):
        parse_bounds(["top1=0.9"])
    with pytest.raises(InputError, match="'2G' is no number of ms"):
        parse_bounds(["latency_ms=2G"])


def test_closed_forms_are_those_of_the_cost_model() -> None:
    costs = CostModel(BackboneSpec.parse("deit_tiny_patch16_224"))
    placement = Placement.all_vanilla([12])
    objectives = parse_objectives(["top1", "macs", "params", "attention_bytes", "latency_ms"])
    assert costs_of(costs, placement, objectives) == {
        "macs": 1_258_411_200,
        "params": 5_717_416,
        "attention_bytes": 4 * 3 * 197**2,
    }


def test_a_study_shows_its_own_costs_beside_those_of_all() -> None:
    def names(*objectives: str, known: set[str] | None = None) -> list[str]:
        return [cost.name for cost in shown_costs(parse_objectives(objectives), known)]

    assert names("top1", "macs") == ["macs", "params", "latency_ms"]
    assert names("top1", "attention_bytes", known={"macs", "params", "attention_bytes"}) == [
        "macs",
        "params",
        "attention_bytes",
    ]


def test_a_cost_is_registered_once_and_in_closed_form(registry: dict[str, Objective]) -> None:
    register(DEPTH)
    assert cost_objective("num_layers") is DEPTH
    assert not DEPTH.is_counted and DEPTH.direction is Direction.MINIMIZE
    with pytest.raises(InputError, match="the objective's `name` is 'num_layers'"):
        register(DEPTH)
    with pytest.raises(InputError, match="the objective's `name` is 'num layers'"):
        register(replace(DEPTH, name="num layers"))
    for broken in (
        replace(DEPTH, name="other", value_of=None),
        replace(DEPTH, name="other", adds_up=True),
        replace(DEPTH, name="other", unit=FRACTION, ideal=1.0),
    ):
        with pytest.raises(InputError, match="the objective other is no cost in closed form"):
            register(broken)
