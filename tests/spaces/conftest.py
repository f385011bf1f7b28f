"""Made-up costs of prime size, spaces of every form, and brute-force oracles of their members."""

from __future__ import annotations

import contextlib
import functools
import itertools
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from made_up_parts import PARTS

from sharedattn.errors import InputError
from sharedattn.image_size import ImageSize
from sharedattn.mechanisms.interface import PartCost
from sharedattn.mechanisms.registry import registry
from sharedattn.networks.legality import canonical_placement, check_placement
from sharedattn.placement import (
    BackboneSpec,
    LayerChoice,
    MechanismOptions,
    Placement,
    parse_layer,
)
from sharedattn.shape import AttentionShape, BackboneShape, StageShape
from sharedattn.spaces import space as space_module
from sharedattn.spaces.automaton import Automaton, Path
from sharedattn.spaces.constraints import (
    Constraint,
    Count,
    Equal,
    First,
    Last,
    LongestRun,
    MixingLayer,
    NeverAfter,
)
from sharedattn.spaces.space import Order, Space
from sharedattn.spaces.stages import CountedStage, ListedStage, Stage
from sharedattn.testing import registered

# The folder of the tiny backbones, which tests on several floors share.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "sharedattn"))


class FakeCosts:
    """Costs in which no two layer choices, stages or cells are alike."""

    fixed = PartCost(params=1009, macs=2003)

    def layer(self, stage: int, choice: LayerChoice) -> PartCost:
        slots, width = choice.option("slots") or 0, choice.option("width") or 0
        params, macs = {
            "V": (101, 503),
            "L": (113, 307),
            "E": (41 + 2 * slots, 211 + 13 * slots),
            "N": (29, 97),
            "M": (31 + 5 * width, 173 + 17 * width + 3 * (choice.option("reach") or 0)),
            "K": (59, 67),
            "P": (7, 11),
            "X": (0, 0),
        }[choice.kind]
        forms = (None, "full", "keys", "lowrank3", "reuse", "mea", "wide", "deep2")
        form = forms.index(choice.option("form"))
        gated = choice.gate is not None
        return PartCost(
            params=params * (stage + 1) + 3 * gated + 19 * form,
            macs=macs * (2 * stage + 1) + 7 * gated + choice.cb + 23 * form,
        )

    def cell_params(self, stage: int, gate: str) -> int:
        return 17 * (stage + 1) + 5 * (gate != "dia")

    def total(self, placement: Placement) -> PartCost:
        """Sums it up from the layers, as the contract of cost models says."""
        params, macs = self.fixed.params, self.fixed.macs
        for i, stage in enumerate(placement.stages):
            parts = [self.layer(i, layer) for layer in stage]
            cells = {layer.gate for layer in stage if layer.gate is not None}
            params += sum(part.params for part in parts)
            params += sum(self.cell_params(i, cell.gate) for cell in cells)
            macs += sum(part.macs for part in parts)
        return PartCost(params=params, macs=macs)


@pytest.fixture
def costs() -> FakeCosts:
    return FakeCosts()


def _counted_members(stage: CountedStage, ordered: bool) -> Iterator[tuple[LayerChoice, ...]]:
    """Every member of a counted stage, through the text form; some more than once."""
    known = registry()
    letters = [branch.letter for branch in known.by_rank]
    options = [
        (b.letter, o, stage.options[o.key])
        for b in known.by_rank
        for o in b.options
        if o.key in stage.options
    ]
    for depth in stage.depth:
        for kinds in itertools.product(letters, repeat=depth):
            if ordered and list(kinds) != sorted(kinds, key=letters.index):
                continue
            if any(kinds.count(k) not in stage.counts.get(k, (0,)) for k in letters):
                continue
            for *values, last in itertools.product(*(v for *_, v in options), stage.cb):
                text = "".join(f"{kind}1" for kind in kinds)
                for (letter, option, _), value in zip(options, values, strict=True):
                    text += f"/{option.text(value)}" if value and letter in kinds else ""
                text += "/cb" if last == "all" else f"/cb{last}"
                if last != "all" and last > depth:
                    continue
                for groups in _groups(stage):
                    with contextlib.suppress(InputError):
                        # Not an L with nothing to reuse, nor more groups than layers.
                        yield Placement.parse(text + groups).stages[0]


def _groups(stage: CountedStage) -> Iterator[str]:
    """Numbers of groups of every gate, as text has them, where one gate at most has any."""
    for numbers in itertools.product(*stage.gates.values()):
        said = [f"/{code}{n}" for code, n in zip(stage.gates, numbers, strict=True) if n]
        if len(said) <= 1:
            yield "".join(said)


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
    return BackboneShape(image_size=ImageSize(7, 7), stages=stages, **dict.fromkeys(ends, 0))


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
    return any(layer.kind in "VLEMK" or layer.cb for layer in layers)


def _all_mix(placement: Placement) -> bool:
    return all(map(_mixes, placement.stages))


def _keeps_rules(present: list[LayerChoice], placement: Placement) -> bool:
    """The rules of `cut by rules`, which pass over the layers that are left out."""
    kinds = "".join(layer.kind for layer in present)
    text = "".join(layer.kind for layer in placement.layers)
    return (
        kinds[0] in "VE"
        and kinds[-1] in "VL"
        and "VVV" not in kinds
        and not ("X" in text and "E" in text[text.index("X") :])
        and 1 <= text.count("X") <= 2
        and len({layer.cb for layer in present}) == 1
    )


def _choices(*texts: str) -> tuple[LayerChoice, ...]:
    """Choices by text; labels are kept, which a placement would renumber."""
    return tuple(map(parse_layer, texts))


@pytest.fixture
def choices() -> Callable[..., tuple[LayerChoice, ...]]:
    return _choices


COUNTED = CountedStage(
    depth=(1, 2, 3),
    counts={"E": (0, 1, 3), "V": (0, 1, 2), "L": (0, 1, 2), "N": (0, 2)},
    options={"slots": (5, 7)},
    gates={"dia": (0, 1, 2)},
    cb=(0, 1, 3, "all"),
)
ORDERED = CountedStage(
    depth=(2, 5),
    counts={"E": (0, 1), "V": (1, 2, 3), "L": (0, 1, 2), "N": (0, 2)},
    options={"slots": (5, 7)},
    gates={"dia": (0, 3)},
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
    counts={"E": (0, 1, 2), "V": (0, 1, 2), "L": (0, 1, 2), "N": (0, 2)},
    options={
        "slots": (5, 7),
        "external_form": (None, "mea"),
        "less_form": (None, "keys", "lowrank3", "reuse"),
    },
    gates={"dia": (0, 1)},
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
CUT = CountedStage(
    depth=(3, 4),
    counts={"E": (0, 1), "V": (0, 1, 2, 3), "L": (0, 1), "X": (0, 1, 3)},
    options={"slots": (5, 7)},
    gates={"dia": (0, 1, 2)},
    cb=(0, 1, "all"),
)
CUT_PAIR = CountedStage(depth=(4,), counts={"V": (1, 2), "L": (0, 1), "X": (0, 2)})
LISTED_CUT = ListedStage(
    layers=(
        _choices("V", "X", "V/d1"),
        _choices("X", "L", "E/s5/d0/cb"),
        _choices("X", "V/d1"),
        _choices("X", "N/cb"),
    ),
    depth=(2, 4),
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
                depth=(1, 2),
                counts={"V": (0, 1, 2), "L": (0, 1), "N": (0, 1)},
                options={"less_form": ("full", "keys")},
            ),
            LISTED_FORMS,
        ),
        shapes=(_stage_shape(num_keys=3), _stage_shape(0, 1, 0, 1)),
        options=MechanismOptions(attention_residual=True),
    ),
    "cut": Case((CUT,)),
    "cut in order": Case((CUT,), "EVLN"),
    "cut layer by layer": Case((LISTED_CUT,)),
    "cut windows": Case((LISTED_CUT, CUT_PAIR), shapes=(_stage_shape(0, 1, 0, 1),) * 2),
    "cut by rules": Case(
        (CUT,),
        constraints=(
            First(kinds=frozenset({"V", "E"}), per="stage"),
            Last(kinds=frozenset({"V", "L"}), per="network"),
            LongestRun(kinds=frozenset({"V"}), length=2, per="stage"),
            NeverAfter(kinds=frozenset({"E"}), after=frozenset({"X"}), per="stage"),
            Count(kinds=frozenset({"X"}), least=1, most=2, per="network"),
            Equal(attribute="cb", per="stage"),
        ),
        holds=lambda p: _keeps_rules([layer for layer in p.layers if layer.kind != "X"], p),
    ),
    "stages": Case(
        (
            CountedStage(
                depth=(1, 2),
                counts={"E": (0, 1), "V": (0, 1, 2), "L": (0, 1), "N": (0, 1, 2)},
                options={"slots": (5,)},
            ),
            LISTED,
        ),
        constraints=(
            MixingLayer(per="stage"),
            Count(kinds=frozenset({"V", "E"}), most=3, per="network"),
        ),
        holds=lambda p: (
            all(map(_mixes, p.stages)) and sum(layer.kind in ("V", "E") for layer in p.layers) <= 3
        ),
    ),
}


def _plugged() -> dict[str, Case]:
    """Spaces of parts of another distribution, which must be registered."""
    mixers = CountedStage(
        depth=(1, 2, 3),
        counts={"V": (0, 1, 2), "L": (0, 1), "M": (0, 1, 2), "K": (0, 1)},
        options={
            "mixer_width": (2, 5),
            "mixer_reach": (1, 4),
            "mixer_form": ("deep2", None, "wide"),
        },
        cb=(0, 1),
    )
    gates = CountedStage(
        depth=(1, 2, 3),
        counts={"E": (0, 1), "V": (0, 1, 2, 3), "P": (0, 1, 2)},
        gates={"dia": (0, 2), "sq": (0, 1, 3)},
        cb=(0, 1),
    )
    listed = ListedStage(
        layers=(
            _choices("V", "V/d0", "V/q0", "V/q4", "M/w2/h1/q1"),
            _choices("K", "P", "V/d0", "V/q0/cb", "V/q4", "M/w2/h3", "M/w5/h1"),
            _choices("K/q1", "V/d3", "V/q0", "M/w2/h1/deep2/d0"),
            _choices("V/d0", "V/q4", "P"),
        ),
        depth=(2, 3, 4),
    )
    return {
        "another's kind": Case((mixers,)),
        "another's kind in order": Case((mixers,), "EVLN"),
        "two gates": Case((gates,)),
        "two gates in order": Case((gates,), "EVLN", shapes=(_stage_shape(0, 1, 0),)),
        "listed of others": Case(
            (listed,), constraints=(MixingLayer(per="stage"),), holds=_all_mix
        ),
    }


PLUGGED = (
    "another's kind",
    "another's kind in order",
    "two gates",
    "two gates in order",
    "listed of others",
)


def _case(name: str) -> Case:
    return SPACES[name] if name in SPACES else _plugged()[name]


@functools.cache
def _members_of_case(name: str) -> frozenset[Placement]:
    case = _case(name)
    shape = _backbone_shape(case.shapes, len(case.stages))
    ordered = case.order == "EVLN"
    return frozenset(_members(case.stages, ordered, shape, case.options, case.holds))


@pytest.fixture
def others_parts() -> Iterator[None]:
    """Branches and gates of another distribution are registered."""
    with registered(*PARTS):
        yield


@pytest.fixture(params=[*SPACES, *PLUGGED])
def small(
    request: pytest.FixtureRequest, make_space: Callable[..., Space]
) -> Iterator[tuple[Space, set[Placement]]]:
    """A space of each form, and its members by brute force."""
    with registered(*(PARTS if request.param in PLUGGED else ())):
        case = _case(request.param)
        space = make_space(
            *case.stages,
            order=case.order,
            constraints=case.constraints,
            shapes=case.shapes,
            options=case.options,
        )
        yield space, set(_members_of_case(request.param))
