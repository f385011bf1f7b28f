"""Made-up costs of prime size, spaces of every form, and brute-force oracles of their members."""

from __future__ import annotations

import functools
import itertools
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from sharedattn.costs.model import PartCost
from sharedattn.errors import InputError
from sharedattn.networks.legality import canonical_placement, check_placement
from sharedattn.placement import BackboneSpec, Kind, LayerChoice, MechanismOptions, Placement
from sharedattn.placement.shape import AttentionShape, BackboneShape, StageShape
from sharedattn.spaces import space as space_module
from sharedattn.spaces.automaton import Automaton, Path
from sharedattn.spaces.constraints import Constraint, Count, MixingLayer
from sharedattn.spaces.space import Order, Space
from sharedattn.spaces.stages import KIND_ORDER, CountedStage, ListedStage, Stage

# The folder of the tiny backbones, which tests on several floors share.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "sharedattn"))


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
        form = (None, "full", "keys", "lowrank3", "reuse", "mea").index(choice.form)
        gated = choice.dia is not None
        return PartCost(
            params=params * (stage + 1) + 3 * gated + 19 * form,
            macs=macs * (2 * stage + 1) + 7 * gated + choice.cb + 23 * form,
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
            for slots, external, less, groups, last in itertools.product(
                stage.slots, stage.external_form, stage.less_form, stage.dia, stage.cb
            ):
                if groups > depth or (last != "all" and last > depth):
                    continue
                text = "".join(f"{kind}1" for kind in kinds)
                text += f"/s{slots}" if "E" in kinds else ""
                text += f"/{external}" if external and "E" in kinds else ""
                text += f"/{less}" if less and "L" in kinds else ""
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
        shape, ordered = space_module.describe(space.backbone), space.order == "EVLN"
        return _members(space.stages, ordered, shape, space.backbone.options, holds)

    return members


def _members(
    stages: tuple[Stage, ...],
    ordered: bool,
    shape: BackboneShape,
    options: MechanismOptions,
    holds: Holds,
) -> set[Placement]:
    by_stage = [
        set(
            _counted_members(stage, ordered)
            if isinstance(stage, CountedStage)
            else _listed_members(stage)
        )
        for stage in stages
    ]
    every = {
        canonical_placement(shape, placement)
        for placement in map(Placement, itertools.product(*by_stage))
        if _is_legal(shape, options, placement)
    }
    return {placement for placement in every if holds(placement)}


def _is_legal(shape: BackboneShape, options: MechanismOptions, placement: Placement) -> bool:
    try:
        check_placement(shape, options, placement)
    except InputError:
        return False
    return True


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


def _stage_shape(*score_groups: int, num_queries: int = 7, num_keys: int = 7) -> StageShape:
    """A stage of up to 20 layers, of as many groups as are named."""
    return StageShape(
        max_depth=20,
        num_tokens=num_queries,
        num_prefix_tokens=0,
        grid=(num_queries, 1),
        embed_dim=6,
        num_heads=2,
        attention=AttentionShape(
            num_queries=num_queries,
            num_keys=num_keys,
            score_groups=score_groups,
            key_grid=(num_keys, 1),
        ),
        mlp_params=0,
        mlp_macs=0,
        qkv_bias=True,
        proj_bias=True,
        layer_scale=False,
    )


@pytest.fixture
def stage_shape() -> Callable[..., StageShape]:
    return _stage_shape


def _backbone_shape(stages: tuple[StageShape, ...], num_stages: int) -> BackboneShape:
    """A backbone of these stages, or of so many where there are none."""
    stages = stages or (_stage_shape(),) * num_stages
    ends = ("stem_params", "stem_macs", "stem_norm_macs")
    ends += ("head_params", "head_macs", "head_norm_macs")
    return BackboneShape(image_size=7, stages=stages, **dict.fromkeys(ends, 0))


@pytest.fixture
def make_space(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Space]:
    """A space on a backbone that is never built, of stages of 7 tokens unless told."""
    made_up: dict[BackboneSpec, BackboneShape] = {}
    real = space_module.describe
    monkeypatch.setattr(
        space_module, "describe", lambda b: made_up[b] if b in made_up else real(b)
    )

    def make_space(
        *stages: Stage,
        order: Order = "any",
        constraints: tuple[Constraint, ...] = (),
        shapes: tuple[StageShape, ...] = (),
        options: MechanismOptions = MechanismOptions(),  # noqa: B008
    ) -> Space:
        keywords = (("number", len(made_up)),)
        backbone = BackboneSpec(name="made_up", keywords=keywords, options=options)
        made_up[backbone] = _backbone_shape(shapes, len(stages))
        return Space(
            name="made-up",
            backbone=backbone,
            stages=stages,
            order=order,
            constraints=constraints,
        )

    return make_space


def _mixes(layers: tuple[LayerChoice, ...]) -> bool:
    return any(layer.kind in ("V", "L", "E") or layer.cb for layer in layers)


def _choices(*texts: str) -> tuple[LayerChoice, ...]:
    """Choices by text; labels are kept, which a placement would renumber."""
    return tuple(map(LayerChoice.parse, texts))


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
FORMS = CountedStage(
    depth=(2, 3),
    counts=((0, 1, 2), (0, 1, 2), (0, 1, 2), (0, 2)),
    slots=(5, 7),
    external_form=(None, "mea"),
    less_form=(None, "keys", "lowrank3", "reuse"),
    dia=(0, 1),
)
LISTED_FORMS = ListedStage(
    layers=(
        _choices("V", "E/s5/mea"),
        _choices("V", "V/d1", "L/full/d0"),
        _choices("L", "L/full", "L/lowrank3", "L/d0", "E/s5"),
        _choices("L/reuse", "N", "L/keys/cb"),
    ),
    depth=(2, 3, 4),
)


class Case(NamedTuple):
    """A space, and its constraints as a predicate."""

    stages: tuple[Stage, ...]
    order: Order = "any"
    constraints: tuple[Constraint, ...] = ()
    holds: Holds = lambda _: True
    shapes: tuple[StageShape, ...] = ()
    options: MechanismOptions = MechanismOptions()


SPACES: dict[str, Case] = {
    "counted": Case((COUNTED,)),
    "ordered": Case((ORDERED,), "EVLN"),
    "listed": Case((LISTED,)),
    "forms": Case((FORMS,)),
    "forms in order": Case((FORMS,), "EVLN"),
    "listed forms": Case((LISTED_FORMS,)),
    "windows": Case((FORMS,), shapes=(_stage_shape(0, 1, 0),)),
    "pyramid": Case(
        (
            CountedStage(
                depth=(1, 2), counts=((0,), (0, 1, 2), (0, 1), (0, 1)), less_form=("full", "keys")
            ),
            LISTED_FORMS,
        ),
        shapes=(_stage_shape(num_keys=3), _stage_shape(0, 1, 0, 1)),
        options=MechanismOptions(attention_residual=True),
    ),
    "stages": Case(
        (
            CountedStage(depth=(1, 2), counts=((0, 1), (0, 1, 2), (0, 1), (0, 1, 2)), slots=(5,)),
            LISTED,
        ),
        constraints=(
            MixingLayer(per="stage"),
            Count(kinds=frozenset({Kind.VANILLA, Kind.EXTERNAL}), most=3, per="network"),
        ),
        holds=lambda p: (
            all(map(_mixes, p.stages)) and sum(layer.kind in ("V", "E") for layer in p.layers) <= 3
        ),
    ),
}


@functools.cache
def _members_of_case(name: str) -> frozenset[Placement]:
    case = SPACES[name]
    shape = _backbone_shape(case.shapes, len(case.stages))
    ordered = case.order == "EVLN"
    return frozenset(_members(case.stages, ordered, shape, case.options, case.holds))


@pytest.fixture(params=list(SPACES))
def small(
    request: pytest.FixtureRequest, make_space: Callable[..., Space]
) -> tuple[Space, set[Placement]]:
    """A space of each form, and its members by brute force."""
    case = SPACES[request.param]
    space = make_space(
        *case.stages,
        order=case.order,
        constraints=case.constraints,
        shapes=case.shapes,
        options=case.options,
    )
    return space, set(_members_of_case(request.param))
