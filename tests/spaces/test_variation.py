from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from sharedattn.errors import InputError
from sharedattn.placement import LayerChoice, Placement
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.constraints import Equal
from sharedattn.spaces.encoding import Encoding
from sharedattn.spaces.space import Space
from sharedattn.spaces.stages import CountedStage, ListedStage
from sharedattn.spaces.variation import Variation

Small = tuple[Space, set[Placement]]
Choices = Callable[..., tuple[LayerChoice, ...]]


def variation(space: Space, costs: Any, budget: Budget | None = None) -> Variation:
    return Variation(Encoding(BudgetedSpace(space, budget, costs=costs)))


def test_neighbours_of_counts_by_hand(make_space: Callable[..., Space], costs: Any) -> None:
    stage = CountedStage(
        depth=(2, 3),
        counts={"E": (0, 1), "V": (1, 2), "N": (0, 1)},
        options={"slots": (5, 7)},
        gates={"dia": (0, 1, 2)},
        cb=(0, 1, "all"),
    )
    found = variation(make_space(stage), costs).neighbours(Placement.parse("E1V1/s5/dia2/cb"))
    assert {str(placement) for placement in found} == {
        *("V2/dia2/cb", "N1V1/dia2/cb"),  # another kind
        "E1V1/s7/dia2/cb",  # other slots
        *("E1V1/s5/cb", "E1V1/s5/dia1/cb"),  # other groups
        *("E1V1/s5/dia2", "E1V1/s5/dia2/cb1"),  # other broadcasting
        *("E1V2/s5/dia2/cb", "V1E1V1/s5/dia2/cb"),  # one more, broadcasting in all
        *("N1E1V1/s5/dia2/cb", "E1N1V1/s5/dia2/cb", "E1V1N1/s5/dia2/cb"),
    }


def test_neighbours_of_forms_by_hand(make_space: Callable[..., Space], costs: Any) -> None:
    stage = CountedStage(
        depth=(4,),
        counts={"E": (0, 1, 2), "V": (1,), "L": (0, 1, 2)},
        options={"slots": (5,), "external_form": (None, "mea"), "less_form": (None, "keys")},
        gates={"dia": (0, 2)},
        cb=(0, 1),
    )
    found = variation(make_space(stage), costs).neighbours(
        Placement.parse("E1V1L2/s5/mea/keys/dia2/cb1")
    )
    # Forms go on through every edit but their own.
    assert {str(placement) for placement in found} == {
        "E1V1L1E1/s5/mea/keys/dia2/cb1",
        "E1V1E1L1/s5/mea/keys/dia2/cb1",
        "E1V1L2/s5/keys/dia2/cb1",
        "E1V1L2/s5/mea/dia2/cb1",
        "E1V1L2/s5/mea/keys/cb1",
        "E1V1L2/s5/mea/keys/dia2",
    }


def test_neighbours_of_listed_forms_by_hand(
    make_space: Callable[..., Space], choices: Choices, costs: Any
) -> None:
    stage = ListedStage(
        layers=(choices("V"), choices("L", "L/keys"), choices("N", "L/keys", "L/reuse")),
        depth=(2, 3),
    )
    found = variation(make_space(stage), costs).neighbours(Placement.parse("V,L,L/keys"))
    assert {str(placement) for placement in found} == {
        *("V1L2/keys", "V1L1N1", "V,L,L/reuse"),
        *("V1L1", "V1L1/keys"),
    }


def test_neighbours_of_listed_layers_by_hand(
    make_space: Callable[..., Space], choices: Choices, costs: Any
) -> None:
    stage = ListedStage(
        layers=(choices("V", "V/d0"), choices("N/cb", "V/d1"), choices("L", "E/s5", "E/s7")),
        depth=(2, 3),
    )
    found = variation(make_space(stage), costs).neighbours(Placement.parse("V,N/cb,E/s5"))
    assert {str(placement) for placement in found} == {
        "V/d0,N/cb,E/s5",
        "V,V/d0,E/s5",
        "V,N/cb,E/s7",
        "V,N/cb,L",
        "V1N1/cb1",
    }


def test_neighbours_are_other_members_inside(small: Small, costs: Any) -> None:
    counted = BudgetedSpace(small[0], costs=costs)
    bounded = BudgetedSpace(small[0], Budget(sum(counted.macs_range) // 2), costs=costs)
    free, tight = Variation(Encoding(counted)), Variation(Encoding(bounded))
    for placement in bounded.sample_many(random.Random(29), min(20, bounded.in_budget)):
        found = free.neighbours(placement)
        assert len(set(found)) == len(found) > 0
        assert placement not in found
        assert set(found) <= small[1]
        assert tight.neighbours(placement) == tuple(p for p in found if p in bounded)


def test_being_neighbours_is_mutual(make_space: Callable[..., Space], costs: Any) -> None:
    anything = (0, 1, 2)
    stage = CountedStage(
        depth=(1, 2),
        counts=dict.fromkeys("EVLN", anything),
        options={"slots": (5, 7)},
        gates={"dia": (0, 1, 2)},
        cb=(0, 1, "all"),
    )
    space = make_space(stage)
    of = variation(space, costs)
    neighbours = {p: of.neighbours(p) for p in BudgetedSpace(space, costs=costs).enumerate()}
    one_way = [(p, q) for p, found in neighbours.items() for q in found if p not in neighbours[q]]
    # Alone a way out of a depth may be one-way: groups and broadcasting are cut, and not undone.
    assert all(len(p.layers) > len(q.layers) for p, q in one_way)
    assert len(one_way) < sum(map(len, neighbours.values())) / 10


def test_mutation_goes_to_a_neighbour(small: Small, costs: Any) -> None:
    of = variation(small[0], costs)
    rng = random.Random(31)
    for placement in sorted(small[1], key=str)[::9]:
        assert of.mutate(placement, rng) in of.neighbours(placement)


def test_each_sort_of_edit_is_as_likely(make_space: Callable[..., Space], costs: Any) -> None:
    # From V3: 3 other kinds, one DIA option, two of broadcasting; one depth, no slots.
    stage = CountedStage(
        depth=(3,), counts={"V": (2, 3), "N": (0, 1)}, gates={"dia": (0, 1)}, cb=(0, 1, 2)
    )
    of = variation(make_space(stage), costs)
    rng = random.Random(37)
    drawn = Counter(str(of.mutate(Placement.parse("V3"), rng)) for _ in range(3000))
    kinds = sum(drawn[text] for text in ("N1V2", "V1N1V1", "V2N1"))
    broadcasting = drawn["V3/cb1"] + drawn["V3/cb2"]
    assert kinds + drawn["V3/dia1"] + broadcasting == 3000
    for number in (kinds, drawn["V3/dia1"], broadcasting):
        assert abs(number - 1000) < 4 * (3000 * 2 / 9) ** 0.5


def test_a_member_without_neighbours_mutates_to_any_other(
    make_space: Callable[..., Space], choices: Choices, costs: Any
) -> None:
    # Kinds must all be equal, so no single edit leads from one to the other.
    stage = ListedStage(layers=(choices("V", "N"),) * 3, depth=(3,))
    space = make_space(stage, constraints=(Equal(attribute="kind", per="stage"),))
    of = variation(space, costs)
    assert of.neighbours(Placement.parse("V3")) == ()
    assert str(of.mutate(Placement.parse("V3"), random.Random(41))) == "N3"
    assert str(of.mutate(Placement.parse("N3"), random.Random(41))) == "V3"


def test_jumps_reach_members_that_no_edits_connect(
    make_space: Callable[..., Space], choices: Choices, costs: Any
) -> None:
    # Kinds must be equal while broadcasting is free: edits stay among layers of one kind.
    layer = (*choices("V", "N"), *(LayerChoice(kind, cb=True) for kind in "VN"))
    stage = ListedStage(layers=(layer,) * 3, depth=(3,))
    space = make_space(stage, constraints=(Equal(attribute="kind", per="stage"),))
    of = variation(space, costs)
    reached, rng = {Placement.parse("V3")}, random.Random(43)
    ring = set(reached)
    while ring := {n for member in ring for n in of.neighbours(member)} - reached:
        reached |= ring
    assert len(reached) == 8 and space.automaton.size == 16
    drawn = [
        of.mutate(Placement.parse("V3"), rng, jump_probability=0.25).layers[0].kind
        for _ in range(3000)
    ]
    # A jump goes to each of the 15 others, 8 of them of the other kind.
    assert drawn.count("N") / 3000 == pytest.approx(0.25 * 8 / 15, abs=0.02)
    jumped = {of.mutate(Placement.parse("V3"), rng, jump_probability=1.0) for _ in range(300)}
    assert len(jumped) == 15 and Placement.parse("V3") not in jumped
    # Without jumps, the draws are those of before.
    one, other = random.Random(47), random.Random(47)
    plain = [of.mutate(Placement.parse("V3"), one) for _ in range(20)]
    assert plain == [of.mutate(Placement.parse("V3"), other, jump_probability=0) for _ in plain]


def test_the_only_member_cannot_mutate_and_one_of_several_can(small: Small, costs: Any) -> None:
    free = BudgetedSpace(small[0], costs=costs)
    inside = BudgetedSpace(small[0], Budget(free.macs_range[0]), costs=costs)
    members = [member for member in small[1] if member in inside]
    assert inside.in_budget == len(members)
    mutate = Variation(Encoding(inside)).mutate
    if len(members) > 1:
        # Only where layers are left out: they cost nothing, wherever they stand.
        assert any(layer.is_absent for member in members for layer in member.layers)
        assert mutate(inside.cheapest, random.Random(1)) in {*members} - {inside.cheapest}
        return
    with pytest.raises(
        InputError, match="is the only member of the space inside the budget; widen"
    ):
        mutate(inside.cheapest, random.Random(1))


def test_a_generator_that_draws_one_member_is_found_out(
    make_space: Callable[..., Space], choices: Choices, costs: Any
) -> None:
    class Stuck(random.Random):
        def randrange(self, *_: Any) -> int:  # type: ignore[override]
            return 0

    stage = ListedStage(layers=(choices("V", "N"),) * 3, depth=(3,))
    space = make_space(stage, constraints=(Equal(attribute="kind", per="stage"),))
    counted = BudgetedSpace(space, costs=costs)
    with pytest.raises(AssertionError, match="rng is not random"):
        Variation(Encoding(counted)).mutate(counted[0], Stuck(1))


def test_a_child_is_inside_and_made_of_its_parents(small: Small, costs: Any) -> None:
    free = BudgetedSpace(small[0], costs=costs)
    counted = BudgetedSpace(small[0], Budget(sum(free.macs_range) // 2), costs=costs)
    of = Variation(Encoding(counted))
    rng = random.Random(43)
    strangers = 0
    for _ in range(60):
        one, other = counted.sample(rng), counted.sample(rng)
        child = of.crossover(one, other, rng)
        assert child in counted
        strangers += child not in (one, other)
        assert of.crossover(one, one, rng) == one
    assert strangers > 10


def test_each_parameter_of_a_child_is_a_parents(
    make_space: Callable[..., Space], choices: Choices, costs: Any
) -> None:
    # Nothing to repair: every mixture is a member.
    stage = ListedStage(layers=(choices("V", "N"),) * 4, depth=(4,))
    of = variation(make_space(stage), costs)
    rng = random.Random(47)
    one, other = Placement.parse("V1N1V1N1"), Placement.parse("V4")
    children = {str(of.crossover(one, other, rng)) for _ in range(100)}
    assert children == {"V4", "V1N1V2", "V3N1", "V1N1V1N1"}


def test_a_parent_outside_is_refused(small: Small, costs: Any) -> None:
    free = BudgetedSpace(small[0], costs=costs)
    counted = BudgetedSpace(small[0], Budget(free.macs_range[0]), costs=costs)
    with pytest.raises(InputError, match="is not a member of made-up inside the budget"):
        Variation(Encoding(counted)).crossover(
            free.most_expensive, free.cheapest, random.Random(1)
        )


def test_the_same_seed_gives_the_same_variation(small: Small, costs: Any) -> None:
    counted = BudgetedSpace(small[0], costs=costs)
    of = Variation(Encoding(counted))
    parents = counted.sample_many(random.Random(53), 2)
    runs = []
    for _ in range(2):
        rng = random.Random(59)
        runs.append([of.mutate(of.crossover(*parents, rng), rng) for _ in range(20)])
    assert runs[0] == runs[1]


@pytest.mark.usefixtures("others_parts")
def test_neighbours_of_others_parts_by_hand(make_space: Callable[..., Space], costs: Any) -> None:
    stage = CountedStage(
        depth=(2,),
        counts={"V": (0, 1), "M": (1, 2)},
        options={
            "mixer_width": (2, 5),
            "mixer_reach": (1, 4),
            "mixer_form": (None, "wide"),
        },
        gates={"dia": (0, 1), "sq": (0, 2)},
    )
    found = variation(make_space(stage), costs).neighbours(Placement.parse("M2/w2/h1/dia1"))
    assert [str(placement) for placement in found] == [
        *("V1M1/w2/h1/dia1", "M1V1/w2/h1/dia1"),
        *("M2/w5/h1/dia1", "M2/w2/h4/dia1", "M2/w2/h1/wide/dia1"),
        *("M2/w2/h1", "M2/w2/h1/sq2"),
    ]
