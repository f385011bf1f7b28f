from __future__ import annotations

import contextlib
import itertools
import json
import pathlib
import random
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
from made_up_parts import PARTS

from sharedattn.backbones import FAMILIES, canonical, describe, resolve
from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.placement import (
    BackboneSpec,
    Envelope,
    LayerChoice,
    MechanismOptions,
    NetworkSpec,
    Placement,
)
from sharedattn.spaces.automaton import Automaton, Path
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.constraints import Count, Equal, First, Last, MixingLayer
from sharedattn.spaces.encoding import Encoding
from sharedattn.spaces.space import Space, presets
from sharedattn.spaces.stages import CountedStage, ListedStage
from sharedattn.spaces.variation import Variation
from sharedattn.testing import registered
from sharedattn.testing.tiny_backbones import tiny_backbone, tiny_space

Small = tuple[Space, set[Placement]]
Choices = Callable[..., tuple[LayerChoice, ...]]

REPOSITORY = pathlib.Path(__file__).parents[2]
DOCS = (REPOSITORY / "docs" / "reference" / "spaces.md").read_text(encoding="utf-8")
PRESETS = {
    path.stem: path.read_text(encoding="utf-8")
    for path in (REPOSITORY / "spaces" / "presets").glob("*.yaml")
}
EXAMPLES = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
VIT = "vit(depth=3,embed_dim=12,num_heads=2,patch_size=8)@16"
YAML = f"""\
name: tiny
backbone: {VIT}
order: any
stages:
  - counts: {{V: 0..3, N: 0..3}}
    depth: 1..3
    dia: [0, 1]
constraints:
  - {{rule: mixing_layer, per: network}}
"""


def test_the_documentation_has_examples_of_both_forms() -> None:
    assert len(EXAMPLES) == 5
    assert any("layers:" in text for text in EXAMPLES)


@pytest.mark.parametrize("text", [*EXAMPLES, *PRESETS.values()])
def test_sizes_in_comments_are_true(text: str) -> None:
    claimed = re.search(r"^# size: (\d+) placements$", text, re.MULTILINE)
    assert claimed is not None
    assert Space.from_yaml(text, "text").automaton.size == int(claimed[1])


def test_examples_with_rules_agree_with_brute_force(
    members: Callable[..., set[Placement]],
) -> None:
    def ruled(placement: Placement) -> bool:
        kinds = "".join(layer.kind for layer in placement.layers)
        return (
            re.fullmatch("[VE].*[VL]", kinds) is not None
            and not re.search("[EN][EN]|L.*V", kinds)
            and 2 <= len(re.findall("[EN]", kinds)) <= 3
        )

    rules = {
        "layer-by-layer": lambda p: sum(layer.kind == "V" for layer in p.layers) >= 2,
        "ruled": ruled,
    }
    spaces = {space.name: space for space in (Space.from_yaml(text, "text") for text in EXAMPLES)}
    for name, holds in rules.items():
        assert spaces[name].automaton.size == len(members(spaces[name], holds))


def test_the_table_of_presets_is_true() -> None:
    rows = re.findall(
        r"^\| `([\w-]+)` \| (\d+) \| (\d+) to (\d+) \| (\d+) to (\d+) \|$", DOCS, re.M
    )
    assert sorted(name for name, *_ in rows) == list(presets()) == sorted(PRESETS)
    for name, *numbers in rows:
        counted = BudgetedSpace(Space.load(name))
        assert [int(number) for number in numbers] == [
            counted.size,
            *counted.macs_range,
            *counted.params_range,
        ]


@pytest.mark.parametrize("name", presets())
def test_presets(name: str) -> None:
    space = Space.load(name)
    assert space.name == name
    assert Space.from_document(space.to_document()) == space
    depths = [stage.max_depth for stage in describe(space.backbone).stages]
    assert Placement.all_vanilla(depths) in space
    assert Placement.all_vanilla([depth + 1 for depth in depths]) not in space
    assert len(space.envelope().stages[0]) == depths[0]


def test_the_embedded_preset_has_the_placements_it_was_tried_with() -> None:
    space = Space.load("digit-pairs-vit")
    for text in ("V1", "V4", "V1N1L1N1/cb", "N4/cb", "E4/s16", "E1V1L1/s8/cb", "V2L2/dia2/cb1"):
        assert Placement.parse(text) in space
    for text in ("N4", "E4/s64", "V4/dia3", "V5", "V/d0,V"):
        assert Placement.parse(text) not in space


def test_a_file_is_loaded_by_its_path(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(YAML, encoding="utf-8")
    space = Space.load(path)
    assert space == Space.load(str(path))
    assert space == Space(
        name="tiny",
        backbone=BackboneSpec.parse(VIT),
        stages=(
            CountedStage(
                depth=(1, 2, 3),
                counts={"V": (0, 1, 2, 3), "N": (0, 1, 2, 3)},
                gates={"dia": (0, 1)},
            ),
        ),
        order="any",
        constraints=(MixingLayer(per="network"),),
    )


def test_equal_spaces_have_equal_documents() -> None:
    written_otherwise = """\
constraints: [{per: network, rule: mixing_layer}]
stages: [{depth: [3, 2, 1], dia: 0..1, cb: 0, slots: 64, counts: {N: [3, 0, 1, 2], V: 0..3}}]
order: any
backbone:
  name: vit
  keywords: {depth: 3, embed_dim: 12, num_heads: 2, patch_size: 8, mlp_ratio: 4}
  image_size: 16
name: tiny
"""
    one, other = Space.from_yaml(YAML, "one"), Space.from_yaml(written_otherwise, "other")
    assert one == other
    assert one.to_document() == other.to_document()
    assert Space.from_document(one.to_document()) == one
    assert Space.from_yaml(YAML.replace("0..3, N", "0..2, N"), "third") != one


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "depth: 1..3",
            "deph: 1..3",
            r"here, line 6 \(deph: 1\.\.3\): stages\[0\]\.deph: unknown",
        ),
        (
            "order: any",
            "order: VLEN",
            r"line 3 .*: order: expected one of EVLN, any, but got 'VLEN'",
        ),
        ("order: any", "order: any\norder: any", r"line 4 \(order: any\): order: this key stands"),
        (
            "depth: 1..3",
            "depth: 1..4",
            r"line 5 .*`depth` is up to 4, but the backbone has 3 layers",
        ),
        ("dia: [0, 1]", "dia: [0, x]", r"line 7 \(dia: \[0, x\]\): stages\[0\]\.dia\[1\]: exp"),
        ("mixing_layer", "symmetry", r"line 9 .* `rule` is 'symmetry'; give one of count"),
        ("name: tiny\n", "", r"line 1 \(backbone.*: `name` is missing here"),
        (
            "name: tiny",
            "name: a/b",
            r"`name` is 'a/b'; use only letters, digits, dot",
        ),
        ("vit(", "vitt(", r"line 2 .*: backbone: .*'vitt'"),
        (VIT, "vit(depth=3", r"line 2 .*: backbone: 'vit\(depth=3' is no backbone"),
        (VIT, "{nome: vit}", r"line 2 .*: backbone: a backbone has the fields name"),
        (VIT, "7", r"backbone: expected a text, but got 7"),
        ("stages:\n", "stages: x\nother:\n", r"line 5 \(other:\): other: unknown key 'other'"),
        ("order: any", "order: [", r"^here: the document is not YAML of plain values"),
    ],
)
def test_a_document_refused_names_the_line(old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Space.from_yaml(YAML.replace(old, new), "here")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": []}, r"stages: expected a list with one entry per stage, but got \[\]"),
        ({"stages": "V"}, "stages: expected a list with one entry per stage, but got 'V'"),
        (
            {"stages": [{"layers": ["V"]}] * 2},
            "`stages` has 2 entries, but .* has 1 stages",
        ),
        (
            {"constraints": [{"rule": "mixing_layer", "per": "stage"}] * 2},
            "is listed twice; leave one out",
        ),
    ],
)
def test_a_document_that_fits_no_backbone_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    document = Space.from_yaml(YAML, "here").to_document()
    with pytest.raises(InputError, match=message):
        Space.from_document({**document, **changes})


def test_neither_preset_nor_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(
        InputError, match="'deit-huge' is neither a preset nor a YAML .* deit-small, deit-tiny"
    ):
        Space.load("deit-huge")
    with pytest.raises(InputError, match="is neither a preset nor a YAML file that can be read"):
        Space.load(tmp_path)
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: \xff")
    with pytest.raises(InputError, match="is neither a preset nor a YAML file that can be read"):
        Space.load(path)


def test_a_space_without_stages_is_refused() -> None:
    with pytest.raises(InputError, match=r"^stages: `stages` has 0 entries, but vit has 1 stages"):
        Space(name="none", backbone=BackboneSpec(name="vit"), stages=())


def test_membership(small: Small, make_space: Callable[..., Space]) -> None:
    space, members = small
    assert all(placement in space for placement in members)
    anything = make_space(*space.stages, order="any")
    others = {anything.automaton.placement(path) for path in anything.automaton.cover()} - members
    assert not any(placement in space for placement in others)
    longer = Placement(tuple((LayerChoice.of("V"),) * 9 for _ in space.stages))
    assert longer not in space
    assert Placement((*longer.stages, *longer.stages)) not in space


def test_the_envelope_is_the_smallest(small: Small) -> None:
    space, members = small
    assert space.envelope() == Envelope.of(*members)


def test_no_member_names_the_constraints_at_fault(
    make_space: Callable[..., Space], choices: Choices
) -> None:
    stage = ListedStage(layers=(choices("V", "N"), choices("V", "N")), depth=(2,))
    innocent = Count(kinds=frozenset({"E"}), most=3, per="network")
    first = First(kinds=frozenset({"V"}), per="network")
    last = Last(kinds=frozenset({"N"}), per="stage")
    equal = Equal(attribute="kind", per="network")
    space = make_space(stage, constraints=(innocent, first, last, equal))
    with pytest.raises(
        InputError,
        match=r"made-up has no placement: first\(per=network kinds=V\) and "
        r"last\(per=stage kinds=N\) and equal\(per=network attribute=kind\) exclude every one$",
    ):
        _ = space.automaton
    alone = First(kinds=frozenset({"E"}), per="stage")
    with pytest.raises(
        InputError, match=r"no placement: first\(per=stage kinds=E\) excludes every one$"
    ):
        Placement.parse("V2") in make_space(stage, constraints=(innocent, alone))  # noqa: B015


def test_no_member_names_the_stage_at_fault(
    make_space: Callable[..., Space], choices: Choices
) -> None:
    fine = ListedStage(layers=(choices("V"),), depth=(1,))
    reuse = ListedStage(layers=(choices("N"), choices("L")), depth=(2,))
    with pytest.raises(InputError, match="made-up has no placement in stage 2: every layer"):
        make_space(fine, reuse, fine, constraints=(MixingLayer(per="stage"),)).envelope()


@pytest.mark.parametrize(
    ("counts", "depth", "message"),
    [
        ("{E: 0..1, V: 0..1, L: 0..1}", "4", "add up to 0 to 3 layers, but `depth` is 4;"),
        ("{V: [0, 4]}", "2..3", "add up to 0, 4 layers, but `depth` is 2, 3;"),
        ("{V: 5}", "3", "add up to 5 layers, but `depth` is 3;"),
    ],
)
def test_counts_that_add_up_to_no_depth_give_their_line(
    counts: str, depth: str, message: str
) -> None:
    text = f"""name: empty
backbone: vit(depth=5,embed_dim=6,num_heads=2,patch_size=4)@8
stages:
  - depth: {depth}
    counts: {counts}
"""
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        Space.from_yaml(text, "empty.yaml")
    assert str(caught.value).startswith("empty.yaml, line 5 ")


@pytest.mark.parametrize(
    ("base_name", "options"),
    [
        *((family.base_name, "") for family in FAMILIES if family.base_name != "resnet_cifar"),
        ("swin", "handover=previous"),
        ("pvt", "attention_residual=true"),
        ("pvt_v2", "attention_residual=true"),
        ("resnet_cifar", "gate_norm=true,se_reduction=3"),
    ],
)
def test_members_are_what_the_backbone_accepts(
    base_name: str,
    options: str,
    choices: Choices,
    paths: Callable[[Automaton], Iterator[Path]],
) -> None:
    backbone = canonical(tiny_backbone(base_name, options))
    every = choices("V", "L", "L/full", "L/keys", "E/s3/mea")
    if base_name.startswith("resnet"):
        every = choices("V", "V/d0", "V/u0", "V/u1", "X")
    shapes = describe(backbone).stages
    depths = [stage.max_depth for stage in shapes]
    space = Space(
        name="tiny",
        backbone=backbone,
        stages=tuple(
            ListedStage(
                layers=(every,) * stage.max_depth,
                depth=tuple(range(stage.max_depth if stage.is_whole else 1, stage.max_depth + 1)),
            )
            for stage in shapes
        ),
    )
    accepted = set()
    words = (
        [word for n in range(1, depth + 1) for word in itertools.product(every, repeat=n)]
        for depth in depths
    )
    for stages in itertools.product(*words):
        with contextlib.suppress(InputError):
            spec = NetworkSpec(backbone, Placement(stages))
            # The space's options stay; those that a member does not use are no part of its spec.
            if resolve(spec).placement == spec.placement:
                accepted.add(spec.placement)
    found = [space.automaton.placement(path) for path in paths(space.automaton)]
    assert len(found) == len(accepted) > 0
    assert set(found) == accepted


def test_an_option_that_fits_no_backbone_names_the_line() -> None:
    with pytest.raises(InputError, match=r"here, line 2 .*: backbone: `attention_residual` pools"):
        Space.from_yaml(YAML.replace("vit(", "vit(attention_residual=true,"), "here")


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        (
            "- counts: {V: 0..3, N: 0..3}\n    depth: 1..3\n    dia: [0, 3]",
            r"8 \(dia: \[0, 3\]\): .*dia",
        ),
        ("- layers:\n      - V\n      - [N, V/d0]", r"8 \(- .N, V/d0.\): .*layers\[1\]"),
    ],
)
def test_dia_units_that_do_not_fit_name_the_line(stage: str, line: str) -> None:
    backbone = VIT.replace("vit(", "vit(dia_reduction=99,")
    text = f"name: tiny\nbackbone: {backbone}\norder: any\nstages:\n  # One.\n  {stage}\n"
    with pytest.raises(InputError, match=f"here, line {line}: `dia_reduction` is 99, more than"):
        Space.from_yaml(text, "here")


def test_a_reduction_that_no_layer_uses_fits() -> None:
    # Four groups are more than three layers can make.
    text = YAML.replace("vit(", "vit(dia_reduction=99,").replace("dia: [0, 1]", "dia: [0, 4]")
    space = Space.from_yaml(text, "here")
    assert all(
        choice.gate is None
        for choice in space.automaton.placement(next(iter(space.automaton.cover()))).layers
    )


def test_maps_that_do_not_fit_name_the_line() -> None:
    text = YAML.replace("N: 0..3}", "L: 0..2}\n    less_form: [keys, lowrank9]")
    with pytest.raises(
        InputError,
        match=r"here, line 6 \(less_form: \[keys, lowrank9\]\): .*less_form: `/lowrank9` has a",
    ):
        Space.from_yaml(text, "here")


@pytest.mark.parametrize("name", ["digit-pairs-vit", "ruled", "layer-by-layer"])
def test_parts_that_a_space_does_not_use_change_nothing(name: str) -> None:
    def everything() -> list[object]:
        [text] = [t for t in (*EXAMPLES, *PRESETS.values()) if f"name: {name}\n" in t]
        space = Space.from_yaml(text, "text")
        whole = BudgetedSpace(space)
        counted = BudgetedSpace(space, Budget(sum(whole.macs_range) // 2))
        encoding = Encoding(counted)
        variation, rng = Variation(encoding), random.Random(3)
        some = counted.sample_many(rng, min(counted.in_budget, 10))
        return [
            json.dumps(space.to_document()),
            space.automaton.levels,
            some,
            list(encoding.dimensions.items()),
            [encoding.encode(placement) for placement in some],
            [variation.mutate(placement, rng) for placement in some],
            [variation.neighbours(placement) for placement in some[:3]],
            space.envelope(),
        ]

    alone = everything()
    with registered(*PARTS):
        assert everything() == alone
    assert everything() == alone


@pytest.mark.usefixtures("others_parts")
def test_a_space_of_others_parts_is_its_document(make_space: Callable[..., Space]) -> None:
    text = YAML.replace("{V: 0..3, N: 0..3}", "{V: 0..3, M: 0..2}\n    mixer_width: [2, 5]")
    space = Space.from_yaml(text.replace("dia: [0, 1]", "sq: [0, 1]"), "here")
    assert Placement.parse("M1V1/w5/sq1") in space
    assert Placement.parse("M1V1/w5/dia1") not in space
    assert Space.from_document(space.to_document()) == space
    counted = BudgetedSpace(space)
    cost = CostModel(space.backbone).totals(counted.cheapest)
    assert counted.macs_range[0] == cost.macs


def test_a_residual_asks_for_a_kind_that_adds_it(
    make_space: Callable[..., Space], choices: Choices
) -> None:
    options = MechanismOptions(attention_residual=True)
    stage = ListedStage(layers=(choices("N", "E/s5"),), depth=(1,))
    with pytest.raises(InputError, match="attention_residual=true needs a layer of kind V$"):
        make_space(stage, options=options).envelope()


def test_the_layers_of_a_unet_are_all_there() -> None:
    """Nor is one left out, which no stage may offer."""
    document = tiny_space("unet2d")
    document["stages"][1]["depth"] = 1
    Space.from_document(document)
    for stage, change, message in (
        (3, {"depth": "1..2"}, "`depth` is 1, 2, but no layer of a UNet is left out, .*; give 2"),
        (0, {"counts": {"V": 1, "X": "0..1"}}, "kind X .* leaves out more than attention"),
    ):
        changed = deepcopy(document)
        changed["stages"][stage] |= change
        with pytest.raises(InputError, match=message):
            Space.from_document(changed)
