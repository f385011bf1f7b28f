"""Made-up costs of prime size, spaces of every form, and brute-force oracles of their members."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from sharedattn.cost import PartCost
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, Kind, LayerChoice, Placement
from spaces.automaton import Automaton, Path
from spaces.constraints import Constraint, Count, MixingLayer
from spaces.space import Order, Space
from spaces.stages import KIND_ORDER, CountedStage, ListedStage, Stage


class FakeCosts:
    """Costs in which no two layer choices, stages or cells are alike."""

    fixed = PartCost(params=1009, macs=2003)

    def layer(self, stage: int, choice: LayerChoice) -> PartCost:
        slots = choice.slots or 0
        params, macs = {
            Kind.VANILLA: (101, 503),
            Kind.LESS: (113, 307),
            Kind.EXTERNAL: (41 + 2 * slots, 211 + 13 * slots),
            Kind.NONE: (29, 97),
        }[choice.kind]
        gated = choice.dia is not None
        return PartCost(
            params=params * (stage + 1) + 3 * gated,
            macs=macs * (2 * stage + 1) + 7 * gated + choice.cb,
        )

    def dia_cell_params(self, stage: int) -> int:
        return 17 * (stage + 1)

    def total(self, placement: Placement) -> PartCost:
        """Sums it up from the layers, as the contract of cost models says."""
        params, macs = self.fixed.params, self.fixed.macs
        for i, stage in enumerate(placement.stages):
            parts = [self.layer(i, layer) for layer in stage]
            cells = {layer.dia for layer in stage if layer.dia is not None}
            params += sum(part.params for part in parts) + len(cells) * self.dia_cell_params(i)
            macs += sum(part.macs for part in parts)
        return PartCost(params=params, macs=macs)


@pytest.fixture
def costs() -> FakeCosts:
    return FakeCosts()


def _counted_members(stage: CountedStage, ordered: bool) -> Iterator[tuple[LayerChoice, ...]]:
    """Every member of a counted stage, through the text form; some more than once."""
    for depth in stage.depth:
        for kinds in itertools.product("EVLN", repeat=depth):
            if ordered and list(kinds) != sorted(kinds, key="EVLN".index):
                continue
            if any(
                kinds.count(kind.value) not in numbers
                for kind, numbers in zip(KIND_ORDER, stage.counts, strict=True)
            ):
                continue
            for slots, groups, last in itertools.product(stage.slots, stage.dia, stage.cb):
                if groups > depth or (last != "all" and last > depth):
                    continue
                text = "".join(f"{kind}1" for kind in kinds)
                text += f"/s{slots}" if "E" in kinds else ""
                text += f"/dia{groups}" if groups else ""
                text += "/cb" if last == "all" else f"/cb{last}"
                try:
                    yield Placement.parse(text).stages[0]
                except InputError:
                    continue  # an L with nothing to reuse


def _listed_members(stage: ListedStage) -> Iterator[tuple[LayerChoice, ...]]:
    for depth in stage.depth:
        for layers in itertools.product(*stage.layers[:depth]):
            try:
                yield Placement((layers,)).stages[0]
            except InputError:
                continue


Holds = Callable[[Placement], bool]


@pytest.fixture
def members() -> Callable[..., set[Placement]]:
    """All members of a space by brute force, its constraints given as a predicate."""

    def members(space: Space, holds: Holds = lambda _: True) -> set[Placement]:
        stages = [
            set(
                _counted_members(stage, space.order == "EVLN")
                if isinstance(stage, CountedStage)
                else _listed_members(stage)
            )
            for stage in space.stages
        ]
        return {p for p in map(Placement, itertools.product(*stages)) if holds(p)}

    return members


def _paths(automaton: Automaton) -> Iterator[Path]:
    """Every path, by plain recursion."""

    def after(level: int, state: int) -> Iterator[Path]:
        if level == len(automaton.levels) - 1:
            yield ()
            return
        for edge in automaton.levels[level][state]:
            for rest in after(level + 1, edge.target):
                yield (edge.symbol, *rest)

    return after(0, 0)


@pytest.fixture
def paths() -> Callable[[Automaton], Iterator[Path]]:
    return _paths


@pytest.fixture
def make_space() -> Callable[..., Space]:
    """A space on a backbone that is never built."""

    def make_space(
        *stages: Stage, order: Order = "any", constraints: tuple[Constraint, ...] = ()
    ) -> Space:
        return Space(
            name="made-up",
            backbone=BackboneSpec(name="vit"),
            stages=stages,
            order=order,
            constraints=constraints,
        )

    return make_space


def _mixes(layers: tuple[LayerChoice, ...]) -> bool:
    return any(layer.kind in ("V", "L", "E") or layer.cb for layer in layers)


def _choices(*texts: str) -> tuple[LayerChoice, ...]:
    """Choices by text; labels are kept, which a placement would renumber."""
    choices = []
    for text in texts:
        kind, *options = text.split("/")
        numbers = {option.rstrip("0123456789"): option.lstrip("sdcb") for option in options}
        choices.append(
            LayerChoice(
                Kind(kind),
                int(numbers["s"]) if "s" in numbers else None,
                int(numbers["d"]) if "d" in numbers else None,
                "cb" in numbers,
            )
        )
    return tuple(choices)


@pytest.fixture
def choices() -> Callable[..., tuple[LayerChoice, ...]]:
    return _choices


COUNTED = CountedStage(
    depth=(1, 2, 3),
    counts=((0, 1, 3), (0, 1, 2), (0, 1, 2), (0, 2)),
    slots=(5, 7),
    dia=(0, 1, 2),
    cb=(0, 1, 3, "all"),
)
ORDERED = CountedStage(
    depth=(2, 5), counts=((0, 1), (1, 2, 3), (0, 1, 2), (0, 2)), slots=(5, 7), dia=(0, 3)
)
LISTED = ListedStage(
    layers=(
        _choices("V", "V/d0", "V/d1", "E/s5/d1"),
        _choices("L/d1", "L/d0", "N/cb", "E/s7"),
        _choices("N/d0", "V/d1/cb", "L/d2"),
    ),
    depth=(2, 3),
)
SPACES: dict[str, tuple[tuple[Stage, ...], Order, tuple[Constraint, ...], Holds]] = {
    "counted": ((COUNTED,), "any", (), lambda _: True),
    "ordered": ((ORDERED,), "EVLN", (), lambda _: True),
    "listed": ((LISTED,), "any", (), lambda _: True),
    "stages": (
        (
            CountedStage(depth=(1, 2), counts=((0, 1), (0, 1, 2), (0, 1), (0, 1, 2)), slots=(5,)),
            LISTED,
        ),
        "any",
        (
            MixingLayer(per="stage"),
            Count(kinds=frozenset({Kind.VANILLA, Kind.EXTERNAL}), most=3, per="network"),
        ),
        lambda p: (
            all(map(_mixes, p.stages)) and sum(layer.kind in ("V", "E") for layer in p.layers) <= 3
        ),
    ),
}


@pytest.fixture(params=list(SPACES))
def small(
    request: pytest.FixtureRequest,
    make_space: Callable[..., Space],
    members: Callable[..., set[Placement]],
) -> tuple[Space, set[Placement]]:
    """A space of each form, and its members by brute force."""
    stages, order, constraints, holds = SPACES[request.param]
    space = make_space(*stages, order=order, constraints=constraints)
    return space, members(space, holds)
