from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from sharedattn.placement import LayerChoice, Placement
from sharedattn.spaces.automaton import Path, pad
from sharedattn.spaces.counting import CostBox
from sharedattn.spaces.pricing import PricedAutomaton, macs_of, params_of
from sharedattn.spaces.repair import Repair, difference
from sharedattn.spaces.space import Space
from sharedattn.spaces.stages import ListedStage, Symbol, symbol_key

Small = tuple[Space, set[Placement]]

V, L, E, N = "V", "L", "E", "N"
FORMS = {L: (None, "full", "keys", "lowrank3", "reuse"), E: (None, "mea")}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (None, None, 0),
        (None, LayerChoice.of(N), 4),
        (LayerChoice.of(V), LayerChoice.of(V), 0),
        (LayerChoice.of(V), LayerChoice.of(E, slots=5), 1),
        (LayerChoice.of(E, slots=7), LayerChoice.of(E, slots=5), 1),
        (LayerChoice.of(V, dia=0), LayerChoice.of(V, dia=1), 1),
        (LayerChoice.of(V, dia=0), LayerChoice.of(V), 1),
        (LayerChoice.of(V, cb=True), LayerChoice.of(V), 1),
        (LayerChoice.of(V, dia=0, cb=True), LayerChoice.of(E, slots=5, dia=1), 3),
        (LayerChoice.of(L, form="keys"), LayerChoice.of(L), 1),
        (LayerChoice.of(L, form="keys"), LayerChoice.of(E, slots=5, form="mea"), 1),
        (LayerChoice.of(E, slots=5, dia=0, cb=True, form="mea"), LayerChoice.of(E, slots=7), 4),
    ],
)
def test_differences_of_layers(one: Symbol, other: Symbol, expected: int) -> None:
    assert difference(one, other) == difference(other, one) == expected


def random_path(rng: random.Random, depths: tuple[int, ...]) -> Path:
    """Layers that break rules as often as not, DIA cells numbered by first use."""
    stages = []
    for depth in depths:
        layers: list[LayerChoice] = []
        for _ in range(rng.randrange(depth + 1)):
            kind = rng.choice((V, L, E, N))
            cells = len({layer.gate for layer in layers} - {None})
            layers.append(
                LayerChoice.of(
                    kind,
                    slots=rng.choice((5, 7, 11)) if kind == E else None,
                    dia=rng.choice((None, *range(cells + 1))),
                    cb=rng.random() < 0.5,
                    form=rng.choice(FORMS.get(kind, (None,))),
                )
            )
        stages.append(layers)
    return pad(stages, depths)


@pytest.mark.parametrize(
    ("share", "least"), [(1.0, 0.0), (0.3, 0.0), (0.02, 0.0), (0.6, 0.4), (0.3, 0.25)]
)
def test_the_nearest_of_all_members_by_brute_force(
    small: Small, costs: Any, share: float, least: float
) -> None:
    space, members = small
    priced = PricedAutomaton(space.automaton, costs)
    totals = {placement: costs.total(placement) for placement in members}
    place = int(share * (len(members) - 1))
    macs_of_all = sorted(total.macs for total in totals.values())
    box = CostBox(
        macs_of_all[place],
        sorted(total.params for total in totals.values())[-1 - place // 7],
        macs_of_all[int(least * (len(members) - 1))] if least else 0,
    )
    inside = {
        path: totals[placement].macs
        for placement in members
        if (path := space.automaton.path(placement)) is not None
        and box.min_macs <= totals[placement].macs <= (box.max_macs or 0)
        and totals[placement].params <= (box.max_params or 0)
    }
    repair = Repair(priced, box)
    rng = random.Random(19)
    for _ in range(25):
        proposal = random_path(rng, space.automaton.depths)
        macs = macs_of(priced.proposal_cost(proposal))

        def rank(path: Path, proposal: Path = proposal, macs: int = macs) -> Any:
            return (
                sum(map(difference, path, proposal)),
                abs(inside[path] - macs),
                [symbol_key(symbol) for symbol in path],
            )

        assert repair.nearest(proposal) == min(inside, key=rank)


def test_a_member_inside_is_its_own_nearest(small: Small, costs: Any) -> None:
    space, members = small
    repair = Repair(PricedAutomaton(space.automaton, costs), CostBox())
    for placement in sorted(members, key=str)[::7]:
        path = space.automaton.path(placement)
        assert path is not None
        assert repair.nearest(path) == path


def test_bounds_that_conflict_still_give_the_nearest(
    make_space: Callable[..., Space], choices: Callable[..., Any], costs: Any
) -> None:
    # V is cheap in params, L in MACs: 6 V must lose 588 MACs; 3 L for V are 12 params too many.
    either = choices("V", "L", "N")
    space = make_space(ListedStage(layers=(choices("V"), *(either,) * 5), depth=(6,)))
    priced = PricedAutomaton(space.automaton, costs)
    fixed = costs.fixed
    box = CostBox(fixed.macs + 6 * 503 - 3 * 196, fixed.params + 6 * 101 + 2 * 12)
    all_vanilla = (LayerChoice.of(V),) * 6
    nearest = repair_text(space, Repair(priced, box).nearest(all_vanilla))
    # No single change saves 588 MACs. Of two, an N (406) beside an L (196) does, and is closer to
    # the proposal's MACs than two N; in the order of symbols V comes before L before N.
    assert nearest == "V4L1N1"
    cost = priced.member_cost(Repair(priced, box).nearest(all_vanilla))
    assert cost is not None
    assert macs_of(cost) <= (box.max_macs or 0)
    assert params_of(cost) <= (box.max_params or 0)


def repair_text(space: Space, path: Path) -> str:
    return str(space.automaton.placement(path))


def test_many_differences_are_found_too(
    make_space: Callable[..., Space], choices: Callable[..., Any], costs: Any
) -> None:
    space = make_space(ListedStage(layers=(choices("N/cb"),) * 11, depth=(11,)))
    repair = Repair(PricedAutomaton(space.automaton, costs), CostBox())
    member = (LayerChoice.of(N, cb=True),) * 11
    assert repair.nearest((LayerChoice.of(V, dia=0),) * 11) == member  # 33 differences
    assert repair.nearest((None,) * 11) == member  # 44 differences


def test_a_box_without_members_is_the_callers_fault(small: Small, costs: Any) -> None:
    space, _ = small
    repair = Repair(PricedAutomaton(space.automaton, costs), CostBox(max_macs=1))
    with pytest.raises(AssertionError, match="no member inside the box"):
        repair.nearest((None,) * len(space.automaton.positions))


@pytest.mark.usefixtures("others_parts")
def test_differences_count_each_number(choices: Callable[..., Any]) -> None:
    one, other = choices("M/w2/h1/wide/d0", "M/w5/h3/deep2/q0/cb")
    assert difference(one, other) == 5
    assert difference(one, *choices("M/w2/h3/wide/d0")) == 1
    assert difference(one, *choices("E/s5/mea/d0")) == 1
    assert difference(one, None) == 4


@pytest.mark.usefixtures("others_parts")
def test_differences_beyond_four_a_layer_are_found_too(
    make_space: Callable[..., Space], choices: Callable[..., Any], costs: Any
) -> None:
    space = make_space(ListedStage(layers=(choices("M/w2/h1/wide/d0"),) * 5, depth=(5,)))
    repair = Repair(PricedAutomaton(space.automaton, costs), CostBox())
    member = tuple(choices(*("M/w2/h1/wide/d0",) * 5))
    assert repair.nearest(choices(*("M/w5/h3/deep2/q0/cb",) * 5)) == member  # 25 differences
