from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from sharedattn.errors import InputError
from sharedattn.placement import LayerChoice, Placement
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.encoding import Encoding, groups_of, with_options
from sharedattn.spaces.space import Space
from sharedattn.spaces.stages import CountedStage, ListedStage, StageGroups

Small = tuple[Space, set[Placement]]
Choices = Callable[..., tuple[LayerChoice, ...]]


def test_members_come_back(small: Small, costs: Any) -> None:
    encoding = Encoding(BudgetedSpace(small[0], costs=costs))
    for placement in small[1]:
        values = encoding.encode(placement)
        assert values.keys() == encoding.dimensions.keys()
        assert all(value in encoding.dimensions[name] for name, value in values.items())
        assert encoding.decode(values) == placement.stages
        assert encoding.repair(encoding.decode(values)) == placement


def test_every_proposal_becomes_a_member_inside(small: Small, costs: Any) -> None:
    least, most = BudgetedSpace(small[0], costs=costs).macs_range
    counted = BudgetedSpace(small[0], Budget((2 * least + most) // 3), costs=costs)
    encoding = Encoding(counted)
    rng = random.Random(23)
    repaired = 0
    for _ in range(60):
        values = {name: rng.choice(choices) for name, choices in encoding.dimensions.items()}
        proposal = encoding.decode(values)
        placement = encoding.repair(proposal)
        assert placement in counted
        repaired += placement.stages != proposal
        # What the sampler is told stands for the same member.
        told = encoding.encode(placement)
        assert encoding.repair(encoding.decode(told)) == placement
    assert repaired > 0


def test_dimensions_of_counts_in_any_order(make_space: Callable[..., Space], costs: Any) -> None:
    stage = CountedStage(
        depth=(2, 3),
        counts={"E": (0, 1), "V": (0, 1, 2), "N": (0, 1, 2, 3)},
        options={"slots": (5, 7)},
        gates={"dia": (0, 1, 9)},
        cb=(0, 2, 8, "all"),
    )
    encoding = Encoding(BudgetedSpace(make_space(stage, order="any"), costs=costs))
    assert encoding.dimensions == {
        "stage1.kind1": ("E", "V", "N"),
        "stage1.kind2": ("E", "V", "N"),
        "stage1.kind3": ("E", "V", "N", "-"),
        "stage1.slots": (5, 7),
        "stage1.dia": (0, 1),
        "stage1.cb": (0, 2, "all"),
    }
    values = {
        "stage1.kind1": "E",
        "stage1.kind2": "V",
        "stage1.kind3": "-",
        "stage1.slots": 7,
        "stage1.dia": 1,
        "stage1.cb": 2,
    }
    assert encoding.decode(values) == Placement.parse("E1V1/s7/dia1/cb").stages
    assert encoding.encode(Placement.parse("E1V1/s7/dia1/cb")) == values
    # Without an E the slots mean nothing, and the last 2 of 2 are all: one encoding each.
    assert encoding.encode(Placement.parse("V1N1V1")) == {
        "stage1.kind1": "V",
        "stage1.kind2": "N",
        "stage1.kind3": "V",
        "stage1.slots": 5,
        "stage1.dia": 0,
        "stage1.cb": 0,
    }
    assert encoding.encode(Placement.parse("V1N1V1/cb"))["stage1.cb"] == "all"


def test_dimensions_of_counts_in_order(make_space: Callable[..., Space], costs: Any) -> None:
    stage = CountedStage(
        depth=(4, 6), counts={"E": (0, 9), "V": (1, 2, 3), "L": (0, 1, 2), "N": (0, 1, 2, 3)}
    )
    encoding = Encoding(BudgetedSpace(make_space(stage, order="EVLN"), costs=costs))
    # 9 is more than any depth; slots, dia and cb have one choice.
    assert encoding.dimensions == {
        "stage1.V": (1, 2, 3),
        "stage1.L": (0, 1, 2),
        "stage1.N": (0, 1, 2, 3),
    }
    values = {"stage1.V": 3, "stage1.L": 2, "stage1.N": 1}
    assert encoding.encode(Placement.parse("V3L2N1")) == values
    assert encoding.decode(values) == Placement.parse("V3L2N1").stages


def test_dimensions_of_forms(make_space: Callable[..., Space], costs: Any) -> None:
    stage = CountedStage(
        depth=(3,),
        counts={"E": (0, 1), "V": (1, 2, 3), "L": (0, 1, 2)},
        options={
            "slots": (5,),
            "external_form": (None, "mea"),
            "less_form": ("full", "keys", "reuse"),
        },
    )
    encoding = Encoding(BudgetedSpace(make_space(stage, order="EVLN"), costs=costs))
    assert encoding.dimensions == {
        "stage1.E": (0, 1),
        "stage1.V": (1, 2, 3),
        "stage1.L": (0, 1, 2),
        "stage1.external_form": ("single", "mea"),
        # Full maps are the stage's default, and have its name.
        "stage1.less_form": ("default", "keys", "reuse"),
    }
    for text, external, less in (
        ("E1V1L1/s5/mea/reuse", "mea", "reuse"),
        ("E1V1L1/s5/keys", "single", "keys"),
        ("E1V2/s5/mea", "mea", "default"),
        ("V1L2", "single", "default"),
    ):
        values = encoding.encode(Placement.parse(text))
        assert values["stage1.external_form"] == external
        assert values["stage1.less_form"] == less
        assert encoding.decode(values) == Placement.parse(text).stages


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        # 3 + 2 + 3 = 8 shares of 6: 2.25, 1.5, 2.25; the half goes up.
        ((3, 2, 3), "V2L2N2"),
        # 2 + 0 + 1 = 3 shares of 4: 2.67, 0, 1.33.
        ((2, 0, 1), "V3N1"),
        # 1 + 2 + 2 = 5 is as near to 4 as to 6: the smaller; 0.8, 1.6, 1.6.
        ((1, 2, 2), "V1L2N1"),
    ],
)
def test_counts_of_no_allowed_depth_are_shares(
    make_space: Callable[..., Space], costs: Any, counts: tuple[int, int, int], text: str
) -> None:
    stage = CountedStage(depth=(4, 6), counts={"V": (1, 2, 3), "L": (0, 1, 2), "N": (0, 1, 2, 3)})
    encoding = Encoding(BudgetedSpace(make_space(stage, order="EVLN"), costs=costs))
    values = dict(zip(("stage1.V", "stage1.L", "stage1.N"), counts, strict=True))
    assert encoding.decode(values) == Placement.parse(text).stages


def test_counts_of_nothing_propose_no_layer(make_space: Callable[..., Space], costs: Any) -> None:
    stage = CountedStage(
        depth=(2,), counts={"E": (0, 1), "V": (0, 1, 2), "N": (0, 1)}, gates={"dia": (0, 1)}
    )
    encoding = Encoding(BudgetedSpace(make_space(stage, order="EVLN"), costs=costs))
    proposal = encoding.decode({"stage1.E": 0, "stage1.V": 0, "stage1.N": 0, "stage1.dia": 1})
    assert proposal == ((),)
    # Every member is as far; the one of fewest MACs is closest to none: V1N1 against E1N1.
    assert str(encoding.repair(proposal)) == "V1N1"


def test_dimensions_of_listed_layers_are_canonical(
    make_space: Callable[..., Space], choices: Choices, costs: Any
) -> None:
    stage = ListedStage(
        layers=(choices("V/d3", "V/d5"), choices("N/d5", "L/d3", "L"), choices("V")),
        depth=(2, 3),
    )
    encoding = Encoding(BudgetedSpace(make_space(stage), costs=costs))
    assert encoding.dimensions == {
        "stage1.layer2": ("L", "L/d0", "L/d1", "N/d0", "N/d1"),
        "stage1.layer3": ("V", "-"),
    }
    assert encoding.decode({"stage1.layer2": "L/d1", "stage1.layer3": "-"}) == (
        choices("V/d0", "L/d1"),
    )


def test_values_that_are_none_of_the_encoding_are_refused(small: Small, costs: Any) -> None:
    counted = BudgetedSpace(small[0], costs=costs)
    encoding = Encoding(counted)
    values = encoding.encode(counted.cheapest)
    name = next(iter(values))
    with pytest.raises(InputError, match=f"'{name}' is missing"):
        encoding.decode({n: value for n, value in values.items() if n != name})
    with pytest.raises(InputError, match="'stage9.slots' is not among the parameters"):
        encoding.decode({**values, "stage9.slots": 5})
    with pytest.raises(InputError, match=f"`{name}` is one of .*, but got 'Q'"):
        encoding.decode({**values, name: "Q"})


def test_no_member_is_not_encoded(small: Small, costs: Any) -> None:
    least, _ = BudgetedSpace(small[0], costs=costs).macs_range
    counted = BudgetedSpace(small[0], Budget(least), costs=costs)
    with pytest.raises(InputError, match="'.*' is not a member of made-up inside the budget"):
        Encoding(counted).encode(counted.most_expensive)


def test_options_of_a_stage(choices: Choices) -> None:
    layers = choices("E/s5/mea/d4/cb", "V", "L/keys/cb")
    assert with_options(layers, StageGroups("dia", 2), 1) == choices(
        "E/s5/mea/d0", "V/d0", "L/keys/d1/cb"
    )
    assert with_options(layers, None, 0) == choices("E/s5/mea", "V", "L/keys")
    assert with_options(layers, StageGroups("dia", 9), 9) == choices(
        "E/s5/mea/d0/cb", "V/d1/cb", "L/keys/d2/cb"
    )
    assert with_options((), StageGroups("dia", 2), 1) == ()


def test_groups_of_a_stage(choices: Choices) -> None:
    assert groups_of(choices("V/d4", "V", "V/d1", "V/d4")) == StageGroups("dia", 2)
    assert groups_of(choices("V", "L")) is None


@pytest.mark.usefixtures("others_parts")
def test_dimensions_of_others_parts(make_space: Callable[..., Space], costs: Any) -> None:
    stage = CountedStage(
        depth=(2,),
        counts={"V": (0, 1, 2), "M": (0, 1)},
        options={"mixer_width": (2, 5), "mixer_form": (None, "deep2")},
        gates={"dia": (0, 1), "sq": (0, 2)},
    )
    encoding = Encoding(BudgetedSpace(make_space(stage, order="EVLN"), costs=costs))
    assert list(encoding.dimensions.items()) == [
        ("stage1.M", (0, 1)),
        ("stage1.V", (0, 1, 2)),
        ("stage1.mixer_width", (2, 5)),
        ("stage1.mixer_form", ("default", "deep2")),
        ("stage1.sq", (0, 2)),
        ("stage1.dia", (0, 1)),
    ]
    values = {
        "stage1.M": 1,
        "stage1.V": 1,
        "stage1.mixer_width": 5,
        "stage1.mixer_form": "deep2",
        "stage1.sq": 0,
        "stage1.dia": 1,
    }
    placement = Placement.parse("M1V1/w5/deep2/dia1")
    assert encoding.encode(placement) == values
    assert encoding.decode(values) == placement.stages
    # Of two gates the first by rank is meant.
    both = encoding.decode({**values, "stage1.sq": 2})
    assert both == Placement.parse("M1V1/w5/deep2/sq2").stages
    assert encoding.repair(both).stages == both
