"""Placements and specs: canonical, inverse to their text and JSON, and every refusal."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharedattn.errors import InputError
from sharedattn.placement import (
    BackboneSpec,
    Envelope,
    GateCell,
    LayerChoice,
    LayerEnvelope,
    MechanismOptions,
    NetworkSpec,
    Placement,
    gate_runs,
    parse_layer,
)

FORMS = {
    "L": (None, "full", "keys", "lowrank7", "lowrank16", "reuse"),
    "E": (None, "mea"),
}


@st.composite
def stages(draw: st.DrawFn) -> tuple[LayerChoice, ...]:
    """Any legal stage of up to 7 layers, its DIA cells not yet canonical, the last one there."""
    layers: list[LayerChoice] = []
    last = draw(st.integers(0, 6))
    for position in range(last + 1):
        has_scores = any(layer.kind == "V" for layer in layers)
        kinds = [k for k in "VLENX" if (has_scores or k != "L") and (position < last or k != "X")]
        kind = draw(st.sampled_from(kinds))
        if kind == "X":
            layers.append(LayerChoice("X"))
            continue
        slots = draw(st.integers(1, 300)) if kind == "E" else None
        dia = draw(st.none() | st.integers(0, 5))
        form = draw(st.sampled_from(FORMS.get(kind, (None,))))
        cb = draw(st.booleans())
        layers.append(LayerChoice.of(kind, slots=slots, dia=dia, cb=cb, form=form))
    return tuple(layers)


@st.composite
def uniform_stages(draw: st.DrawFn) -> tuple[LayerChoice, ...]:
    """A stage that the short form can say."""
    layers = draw(stages())
    depth = sum(layer.kind != "X" for layer in layers)
    groups = draw(st.none() | st.integers(1, depth))
    cells = iter([None] * depth if groups is None else gate_runs(depth, groups))
    slots, with_cb = draw(st.integers(1, 99)), draw(st.integers(0, depth))
    cbs = iter([False] * (depth - with_cb) + [True] * with_cb)
    forms = {kind: draw(st.sampled_from(of_kind)) for kind, of_kind in FORMS.items()}
    return tuple(
        layer
        if layer.kind == "X"
        else LayerChoice.of(
            layer.kind,
            slots=slots if layer.kind == "E" else None,
            dia=next(cells),
            cb=next(cbs),
            form=forms.get(layer.kind),
        )
        for layer in layers
    )


placements = st.lists(stages() | uniform_stages(), min_size=1, max_size=4).map(
    lambda drawn: Placement(tuple(drawn))
)


@given(placements)
def test_text_and_its_reading_are_inverse(placement: Placement) -> None:
    assert Placement.parse(str(placement)) == placement


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("E1V1L2/s16/mea/keys/dia1/cb1", "E/s16/mea/d0,V/d0,L/keys/d0,L/keys/d0/cb"),
        ("V1L1/lowrank16", "V,L/lowrank16"),
        ("V1L2/keys", "V,L/keys,L/keys"),
    ],
)
def test_forms_are_short_where_all_layers_of_a_kind_have_one(text: str, layers: str) -> None:
    assert str(Placement.parse(layers)) == text
    assert Placement.parse(text) == Placement.parse(layers)
    assert str(Placement.parse("V,L/keys,L/full")) == "V,L/keys,L/full"


@given(stages())
def test_a_layer_alone_is_read_as_it_is_written(layers: tuple[LayerChoice, ...]) -> None:
    assert tuple(parse_layer(str(layer)) for layer in layers) == layers


def test_a_layer_without_a_form_keeps_its_four_entries() -> None:
    assert Placement.parse("V1L1/keys").to_json() == [
        [["V", None, None, None], ["L", None, None, None, "keys"]]
    ]


@given(placements)
def test_json_and_its_reading_are_inverse(placement: Placement) -> None:
    document = json.loads(json.dumps(placement.to_json()))
    assert Placement.from_json(document) == placement


@given(uniform_stages())
def test_the_short_form_is_used_wherever_it_can_say_the_layers(
    stage: tuple[LayerChoice, ...],
) -> None:
    assert "," not in str(Placement((stage,)))


@given(stages(), st.permutations(range(6)))
def test_renamed_dia_cells_are_the_same_placement(
    stage: tuple[LayerChoice, ...], names: list[int]
) -> None:
    renamed = tuple(
        replace(c, gate=None if c.gate is None else GateCell("dia", names[c.gate.cell]))
        for c in stage
    )
    assert Placement((renamed,)) == Placement((stage,))
    assert hash(Placement((renamed,))) == hash(Placement((stage,)))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("V2L1L1", "V2L2"),
        ("V3 / cb3", "V3/cb"),
        ("V3/cb0", "V3"),
        ("E2", "E2/s64"),
        ("V", "V1"),
        ("E/s16/d0/cb", "E1/s16/dia1/cb"),
        ("V/d4,V/d1,V/d4", "V/d0,V/d1,V/d0"),
        ("E/s16,E/s64/cb,V/d0,L/d0", "E/s16,E/s64/cb,V/d0,L/d0"),
        ("E2/s64 |V1L1/cb| V1L1/dia1/cb | V1L1", "E2/s64 | V1L1/cb | V1L1/dia1/cb | V1L1"),
        ("V2/cb/dia2", "V2/dia2/cb"),
        ("V4X2", "V4"),
        ("V,X,V/cb,X,X", "V1X1V1/cb1"),
        ("X1V1X2L1/dia2/cb2", "X1V1X2L1/dia2/cb"),
        ("V2X1V1/dia2/cb2", "V2X1V1/dia2/cb2"),
        ("V/d0,X,V/d1,V/d1", "V/d0,X,V/d1,V/d1"),
        ("V/d0,V/d0,X,V/d1", "V2X1V1/dia2"),
        ("V,V/cb", "V2/cb1"),
    ],
)
def test_equal_placements_have_one_text(text: str, canonical: str) -> None:
    assert str(Placement.parse(text)) == canonical


def test_options_expand_to_layers() -> None:
    [stage] = Placement.parse("E1V2L3N1/s16/dia3/cb2").stages
    assert stage == (
        LayerChoice.of("E", slots=16, dia=0),
        LayerChoice.of("V", dia=0),
        LayerChoice.of("V", dia=0),
        LayerChoice.of("L", dia=1),
        LayerChoice.of("L", dia=1),
        LayerChoice.of("L", dia=2, cb=True),
        LayerChoice.of("N", dia=2, cb=True),
    )


def test_a_layer_by_names() -> None:
    assert LayerChoice.of("E", dia=0) == parse_layer("E/s64/d0")
    assert LayerChoice.of("L", form="keys", dia=None, cb=True) == parse_layer("L/keys/cb")
    with pytest.raises(InputError, match="dia and squeeze are gates; a layer has one at most"):
        LayerChoice.of("V", dia=0, squeeze=1)
    with pytest.raises(InputError, match="`slots` is 3 in a layer of kind V"):
        LayerChoice.of("V", slots=3)


def test_order_matters() -> None:
    assert Placement.parse("V1E1") != Placement.parse("E1V1")


def test_layers_and_depths() -> None:
    placement = Placement.parse("V2L1 | E1/s3")
    assert placement.depths == (3, 1)
    assert [layer.kind for layer in placement.layers] == ["V", "V", "L", "E"]
    assert Placement.all_vanilla((2, 3)) == Placement.parse("V2 | V3")


@given(st.integers(1, 40), st.data())
def test_dia_runs_are_contiguous_and_longer_first(num_layers: int, data: st.DataObject) -> None:
    num_groups = data.draw(st.integers(1, num_layers))
    cells = gate_runs(num_layers, num_groups)
    lengths = [len(list(run)) for _, run in itertools.groupby(cells)]
    assert len(cells) == num_layers
    assert set(cells) == set(range(num_groups)) and len(lengths) == num_groups
    assert list(cells) == sorted(cells)
    assert lengths == sorted(lengths, reverse=True) and max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no stage; write layers"),
        ("V2 |", "is no stage; write layers"),
        ("v2", "is no stage; write layers"),
        ("Q2", "'Q' is no kind of layer here; known are V .vanilla.*"),
        ("V,Q", "'Q' is no kind of layer here; known are V .vanilla.*"),
        ("V,2", "is no layer; write a kind"),
        ("V0", "a run has from 1 to 1000"),
        ("V1001", "a run has from 1 to 1000"),
        ("V" + "9" * 5000, "a run has from 1 to 1000"),
        ("L1V1", "layer 1 of stage 1 is L .*nothing to reuse.*put V before"),
        ("V1 | E1L1", "layer 2 of stage 2 is L .*nothing to reuse"),
        ("V2/s16", "says /s16, which belongs to kind E"),
        ("V/s16,E", "says /s16, which belongs to kind E"),
        ("E1/s0", "`slots` is 0; it is a whole number of at least 1"),
        ("V2/dia3", "/dia3` .*the most that fits is /dia2"),
        ("V2/dia0", "/dia0` .*has from 1 to 2 groups"),
        ("V2/cb3", "fewer than /cb3 says"),
        ("V2/cb/cb1", "repeats /cb"),
        ("V,V/d0/d1", "repeats /d"),
        ("V2/foo", "`/foo` .* is no option here; known: /s, /mea, .*/dia, .*/cb"),
        ("V2/dia", "`/dia` .* stands with a number, such as /dia1"),
        ("V2/s" + "9" * 10, "stands with another number"),
        ("V,V/cb2", "`/cb2` .* stands without a number"),
        ("V2/", "is no option here"),
        *((f"V2/{option}", "is reserved") for option in ("cbs", "r20")),
        ("V2/dia[11]", r"`/dia\[11\]` .* has no number of groups; write /dia1\[11\]"),
        ("V2/dia1[101]", r"mask \[101\] of 3 layers on a stage of 2"),
        ("V2X1V1/dia1[1101]", r"mask \[1101\] of 4 layers on a stage of 3"),
        ("V3/dia2[100]", "/dia2` stands on a stage of 1 layers to gate.*most that fits is /dia1"),
        ("V3/se0", "/se0` stands on a stage of 3 layers to gate.* write /se1"),
        ("V3/dia1[10]", r"\[10\] of 2 layers on a stage of 3.* for example /dia1\[101\]"),
        ("V3/eca[0001]", r"\[0001\] of 4 layers on a stage of 3.* for example /eca\[111\]"),
        ("V2X1V1/gc2[11]", r"\[11\] of 2 layers on a stage of 3.* for example /gc2\[111\]"),
        ("V,V/eca", "`/eca` in 'V,V/eca' is of a whole stage.* write V/e0"),
        ("V/srm2,V", "`/srm2` in 'V/srm2,V' is of a whole stage.* write V/m0"),
        ("V,X/d0,V", "X/d0 has context broadcasting or a gate.* write X"),
        ("(V3 | V2/cb)/dia1", r"differ in width .* write V3/dia1 \| V2/cb/dia1$"),
        ("V2/dia1[12]", "not ones and zeros, with a one among them"),
        ("V2/dia1[00]", "not ones and zeros, with a one among them"),
        ("V2/cb[11]", r"has the mask \[11\]; a stage has one, after one of /dia, /se"),
        ("V2/dia1[11]/se[11]", r"has the mask \[11\]; a stage has one"),
        ("V2/dia1/se", "says /dia and /se; a layer has one gate"),
        *(
            (f"V2/{form}", f"says /{form}, which belongs to kind {kind}")
            for form, kind in (("mea", "E"), ("keys", "L"), ("lowrank16", "L"), ("full", "L"))
        ),
        ("V1L1/keys/reuse", "/keys and /reuse, of which layers of kind L .*have one"),
        ("V,L/mea", "says /mea, which belongs to kind E"),
        ("V1L1/lowrank0", "stands with another number"),
        ("V1L1/lowrank", "stands with a number, such as /lowrank1"),
    ],
)
def test_text_that_means_no_placement(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Placement.parse(text)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("V2", "a placement is a list of stages"),
        (7, "a placement is a list of stages"),
        ([7], "a placement is a list of stages"),
        ([], "a placement has no stage"),
        ([[]], "stage 1 has no layer"),
        ([[7]], "a layer is .kind, slots, dia, cb."),
        ([[["V", None, None]]], "a layer is .kind, slots, dia, cb."),
        ([[["Q", None, None, None]]], "'Q' is no kind of layer here"),
        ([[[7, None, None, None]]], "a layer's kind is a letter"),
        ([[["V", None, None, None, None, {"colour": 1}]]], "a layer has nothing but"),
        ([[["V", None, None, None, None, {"gate": ["xse", 0]}]]], "'xse' is no gate here"),
        ([[["V", None, None, None, None, None, None]]], "a layer is .kind"),
        ([[["V", None, None, True]]], '"cb" or null as its fourth entry'),
        ([[["E", 1.5, None, None]]], "`slots` is 1.5"),
        ([[["E", True, None, None]]], "`slots` is True"),
        ([[["V", None, -1, None]]], "`dia` has cells numbered from 0, but got -1"),
        ([[["V", 3, None, None]]], "`slots` is 3 in a layer of kind V.*kind E has it"),
        ([[["E", None, None, None]]], "`slots` is missing"),
    ],
)
def test_json_that_means_no_placement(document: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Placement.from_json(document)


@given(st.lists(stages(), min_size=2, max_size=4))
def test_an_envelope_holds_what_it_is_over(drawn: list[tuple[LayerChoice, ...]]) -> None:
    over = [Placement((stage,)) for stage in drawn]
    envelope = Envelope.of(*over)
    for placement in over:
        envelope.check(placement)
    positions = envelope.stages[0]
    assert len(positions) == max(placement.depths[0] for placement in over)
    first = [placement.layers[0] for placement in over]
    assert positions[0] == LayerEnvelope(
        branches=frozenset(
            (c.kind, (("form", c.option("form")),) if c.option("form") else ()) for c in first
        ),
        sizes=frozenset(
            {("E", "slots", max(c.option("slots") for c in first if c.kind == "E"))}
            if any(c.kind == "E" for c in first)
            else ()
        ),
        cells=frozenset(c.gate for c in first if c.gate is not None),
        cb=any(choice.cb for choice in first),
    )


@pytest.mark.parametrize(
    ("outside", "message"),
    [
        ("V1 | V1", "has 2 stages and the network 1"),
        ("V1E1V1", "stage 1 of 'V1E1V1/s64' has 3 layers and the network has 2"),
        ("V1N1", "layer 2 of stage 1 .* is N, outside"),
        ("V1E1/s6", "layer 2 of stage 1 .* is E/s6, outside.*slots of E up to 5"),
        ("V2/dia1", "layer 1 of stage 1 .* is V/d0, outside"),
        ("V2/cb", "layer 1 of stage 1 .* is V/cb, outside"),
    ],
)
def test_placements_outside_an_envelope(outside: str, message: str) -> None:
    envelope = Envelope.of(Placement.parse("V1E1/s5"), Placement.parse("V,V/d0/cb"))
    with pytest.raises(InputError, match=message):
        envelope.check(Placement.parse(outside))


def test_envelopes_are_over_equally_many_stages() -> None:
    with pytest.raises(InputError, match="equally many stages.*'V1', 'V1 | V1'"):
        Envelope.of(Placement.parse("V1"), Placement.parse("V1 | V1"))
    with pytest.raises(InputError, match="equally many stages.*none"):
        Envelope.of()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"handover": "next"}, "`handover` is one of equal_shift, previous"),
        ({"attention_residual": 1}, "`attention_residual` is one of True, False"),
        ({"broadcasting_form": "twice"}, "`broadcasting_form` is one of plain, scaled"),
        ({"dia_start": "zero"}, "`dia_start` is one of paper, one"),
        ({"class_token_in_mean": 1}, "`class_token_in_mean` is one of True, False"),
        ({"external_expansion": 0}, "`external_expansion` is 0"),
        ({"dia_reduction": 4.0}, "`dia_reduction` is 4.0"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MechanismOptions(**options)


mechanism_options = st.builds(
    MechanismOptions,
    handover=st.sampled_from(["equal_shift", "previous"]),
    attention_residual=st.booleans(),
    external_expansion=st.integers(1, 9),
    broadcasting_form=st.sampled_from(["plain", "scaled"]),
    dia_reduction=st.integers(1, 40),
    class_token_in_mean=st.booleans(),
    dia_start=st.sampled_from(["paper", "one"]),
)
keywords = st.dictionaries(
    st.sampled_from(["depth", "mlp_ratio", "qkv_bias", "global_pool"]),
    st.booleans()
    | st.integers(-9, 10**6)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["avg", "token"]),
)
backbones = st.builds(
    BackboneSpec,
    name=st.sampled_from(["vit", "deit_tiny_patch16_224", "vit_x.tag"]),
    keywords=keywords.map(lambda drawn: tuple(drawn.items())),
    image_size=st.none() | st.integers(1, 999),
    in_chans=st.integers(1, 9),
    num_classes=st.integers(1, 2000),
    options=mechanism_options,
)


@given(backbones, placements)
def test_specs_survive_text_and_json(backbone: BackboneSpec, placement: Placement) -> None:
    spec = NetworkSpec(backbone, placement)
    assert NetworkSpec.parse(str(spec)) == spec
    read = NetworkSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert read == spec and read.key == spec.key


def test_a_spec_in_text_and_its_parts() -> None:
    spec = NetworkSpec.parse(
        " vit ( num_classes=10, depth=7 ,dia_reduction=2, qkv_bias=False,in_chans=1 ) @ 29 : V2L1"
    )
    assert spec.backbone == BackboneSpec(
        name="vit",
        keywords=(("depth", 7), ("qkv_bias", False)),
        image_size=29,
        in_chans=1,
        num_classes=10,
        options=MechanismOptions(dia_reduction=2),
    )
    assert str(spec) == (
        "vit(depth=7,dia_reduction=2,in_chans=1,num_classes=10,qkv_bias=false)@29: V2L1"
    )


def test_a_placement_in_a_spec_document_may_be_text() -> None:
    spec = NetworkSpec.parse("vit: V2L1/cb")
    assert NetworkSpec.from_json({**spec.to_json(), "placement": "V2L1/cb"}) == spec


def test_the_key_is_pinned() -> None:
    # The key names rows in databases that outlive this version: if it changes, so must the format.
    assert (
        NetworkSpec.parse("vit(depth=2)@29: V1L1/cb").key
        == "63578db7d64206bde02115d47dc5b5eecbdff5c30e9eb3c3e721cef05e82486b"
    )


def test_a_document_from_before_an_option_is_read() -> None:
    document = NetworkSpec.parse("vit: V2/dia1").to_json()
    assert "dia_start" not in document["backbone"]["options"]
    assert len(document["backbone"]["options"]) == 6
    assert NetworkSpec.from_json(document).backbone.options.dia_start == "paper"
    later = NetworkSpec.parse("vit(dia_start=one): V2/dia1")
    assert later.to_json()["backbone"]["options"]["dia_start"] == "one"
    assert str(later) == "vit(dia_start=one): V2/dia1"


def test_any_difference_changes_the_key() -> None:
    texts = ["vit: V2", "vit: V1", "vit@224: V2", "vit(depth=3): V2", "vit(dia_reduction=3): V2"]
    texts.append("vit(dia_start=one): V2")
    assert len({NetworkSpec.parse(text).key for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("V2", "is no network"),
        ("2vit: V2", "is no backbone; write name"),
        ("vit(: V2", "is no backbone; write name"),
        ("vit@x: V2", "is no backbone; write name"),
        ("vit(depth): V2", "is no key=value"),
        ("vit(depth=): V2", "is no key=value"),
        ("vit(2=3): V2", "is no key=value"),
        ("vit(depth=2,depth=3): V2", "a key stands once"),
        ("vit(in_chans=x): V2", "`in_chans` is 'x'"),
        ("vit(num_classes=0): V2", "`num_classes` is 0"),
        ("vit@0: V2", "`image_size` is 0"),
        ("vit(dia_reduction=0): V2", "`dia_reduction` is 0"),
    ],
)
def test_text_that_means_no_network(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        NetworkSpec.parse(text)


SPEC_DOCUMENT = NetworkSpec.parse("vit: V2").to_json()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "has format .., and this version reads 1 and 2"),
        ({**SPEC_DOCUMENT, "format": 3}, "has format 3"),
        ({**SPEC_DOCUMENT, "format": True}, "has format True"),
        ({**SPEC_DOCUMENT, "format": 1.0}, "has format 1.0"),
        ({"format": 2, "placement": "V2"}, "has no backbone"),
        ({"format": 2, "backbone": {"name": "vit"}}, "has no placement"),
        ({**SPEC_DOCUMENT, "backbone": 7}, "a backbone has the fields name, keywords"),
        ({**SPEC_DOCUMENT, "backbone": {}}, "a backbone has the fields name, keywords"),
        ({**SPEC_DOCUMENT, "backbone": {"name": 7}}, "`name` is 7"),
        ({**SPEC_DOCUMENT, "backbone": {"name": "vit", "size": 7}}, "a backbone has the fields"),
        (
            {**SPEC_DOCUMENT, "backbone": {"name": "vit", "options": {"foo": 7}}},
            "a backbone has the fields",
        ),
        (
            {**SPEC_DOCUMENT, "backbone": {"name": "vit", "image_size": 29.0}},
            "`image_size` is 29.0",
        ),
        (
            {**SPEC_DOCUMENT, "backbone": {"name": "vit", "keywords": {"depth": [2]}}},
            "a keyword is true, false, a number or a text",
        ),
    ],
)
def test_documents_that_mean_no_network(document: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        NetworkSpec.from_json(document)


def test_format_1_is_read_where_its_weights_fit() -> None:
    document = NetworkSpec.parse("vit(depth=3): V1E1L1/s7").to_json()
    options = {
        key: value
        for key, value in document["backbone"]["options"].items()
        if key not in ("handover", "attention_residual")
    }

    def of_format_1(form: str) -> dict[str, object]:
        backbone = {**document["backbone"], "options": {**options, "external_form": form}}
        return {**document, "format": 1, "backbone": backbone}

    assert NetworkSpec.from_json(of_format_1("single")).to_json() == document
    with pytest.raises(InputError, match="external_form='multihead'.*; write"):
        NetworkSpec.from_json(of_format_1("multihead"))
