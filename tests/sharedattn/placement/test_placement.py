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
    Kind,
    LayerChoice,
    LayerEnvelope,
    MechanismOptions,
    NetworkSpec,
    Placement,
    dia_runs,
)

FORMS = {
    Kind.LESS: (None, "full", "keys", "lowrank7", "lowrank16", "reuse"),
    Kind.EXTERNAL: (None, "mea"),
}


@st.composite
def stages(draw: st.DrawFn) -> tuple[LayerChoice, ...]:
    """Any legal stage of up to 7 layers, its DIA cells not yet canonical."""
    layers: list[LayerChoice] = []
    for _ in range(draw(st.integers(1, 7))):
        has_scores = any(layer.kind is Kind.VANILLA for layer in layers)
        kind = draw(st.sampled_from([k for k in Kind if has_scores or k is not Kind.LESS]))
        slots = draw(st.integers(1, 300)) if kind is Kind.EXTERNAL else None
        dia = draw(st.none() | st.integers(0, 5))
        form = draw(st.sampled_from(FORMS.get(kind, (None,))))
        layers.append(LayerChoice(kind, slots, dia, draw(st.booleans()), form))
    return tuple(layers)


@st.composite
def uniform_stages(draw: st.DrawFn) -> tuple[LayerChoice, ...]:
    """A stage that the short form can say."""
    layers = draw(stages())
    groups = draw(st.none() | st.integers(1, len(layers)))
    cells = [None] * len(layers) if groups is None else dia_runs(len(layers), groups)
    slots, with_cb = draw(st.integers(1, 99)), draw(st.integers(0, len(layers)))
    forms = {kind: draw(st.sampled_from(of_kind)) for kind, of_kind in FORMS.items()}
    return tuple(
        LayerChoice(
            layer.kind,
            slots if layer.slots else None,
            cell,
            position >= len(layers) - with_cb,
            forms.get(layer.kind),
        )
        for position, (layer, cell) in enumerate(zip(layers, cells, strict=True))
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
    assert tuple(LayerChoice.parse(str(layer)) for layer in layers) == layers


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
    renamed = tuple(replace(c, dia=None if c.dia is None else names[c.dia]) for c in stage)
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
        ("V,V/cb", "V2/cb1"),
    ],
)
def test_equal_placements_have_one_text(text: str, canonical: str) -> None:
    assert str(Placement.parse(text)) == canonical


def test_options_expand_to_layers() -> None:
    [stage] = Placement.parse("E1V2L3N1/s16/dia3/cb2").stages
    assert stage == (
        LayerChoice(Kind.EXTERNAL, 16, 0),
        LayerChoice(Kind.VANILLA, None, 0),
        LayerChoice(Kind.VANILLA, None, 0),
        LayerChoice(Kind.LESS, None, 1),
        LayerChoice(Kind.LESS, None, 1),
        LayerChoice(Kind.LESS, None, 2, True),
        LayerChoice(Kind.NONE, None, 2, True),
    )


def test_order_matters() -> None:
    assert Placement.parse("V1E1") != Placement.parse("E1V1")


def test_layers_and_depths() -> None:
    placement = Placement.parse("V2L1 | E1/s3")
    assert placement.depths == (3, 1)
    assert [layer.kind.value for layer in placement.layers] == ["V", "V", "L", "E"]
    assert Placement.all_vanilla((2, 3)) == Placement.parse("V2 | V3")


@given(st.integers(1, 40), st.data())
def test_dia_runs_are_contiguous_and_longer_first(num_layers: int, data: st.DataObject) -> None:
    num_groups = data.draw(st.integers(1, num_layers))
    cells = dia_runs(num_layers, num_groups)
    lengths = [len(list(run)) for _, run in itertools.groupby(cells)]
    assert len(cells) == num_layers
    assert set(cells) == set(range(num_groups)) and len(lengths) == num_groups
    assert list(cells) == sorted(cells)
    assert lengths == sorted(lengths, reverse=True) and max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a stage is run-length layers"),
        ("V2 |", "a stage is run-length layers"),
        ("v2", "a stage is run-length layers"),
        ("Q2", "a layer is V .* but got 'Q'"),
        ("V,Q", "a layer is V .* but got 'Q'"),
        ("V,2", "a layer is a kind and options"),
        ("V0", "1 <= layers in a run <= 1000"),
        ("V1001", "1 <= layers in a run <= 1000"),
        ("V" + "9" * 5000, "1 <= layers in a run <= 1000"),
        ("L1V1", "layer 1 of stage 1 is an L with nothing to reuse"),
        ("V1 | E1L1", "layer 2 of stage 2 is an L with nothing to reuse"),
        ("V2/s16", "/s needs an external layer"),
        ("V/s16,E", "/s needs an external layer"),
        ("E1/s0", "slots >= 1"),
        ("V2/dia3", "1 <= DIA groups <= layers.* the most that fits is /dia2"),
        ("V2/dia0", "1 <= DIA groups <= layers"),
        ("V2/cb3", "layers with CB <= layers"),
        ("V2/cb/cb1", "repeats /cb"),
        ("V,V/d0/d1", "repeats /d"),
        ("V2/foo", "`/foo` .* is no option here; known: /s, /mea, .*/dia, /cb"),
        ("V2/dia", "`/dia` .* is no option here"),
        ("V2/s" + "9" * 10, "is no option here"),
        ("V,V/cb2", "`/cb2` .* is no option here; known: /s, /mea, .*/d, /cb"),
        ("V2/", "is no option here"),
        *((f"V2/{option}", "is reserved") for option in ("cbs", "r20", "dia[1011]")),
        *(
            (f"V2/{form}", f"/{form} needs a layer of kind {kind}")
            for form, kind in (("mea", "E"), ("keys", "L"), ("lowrank16", "L"), ("full", "L"))
        ),
        ("V1L1/keys/reuse", "layers of kind L have one form.* /keys and /reuse"),
        ("V,L/mea", "/mea needs a layer of kind E"),
        ("V1L1/lowrank0", "is no option here"),
        ("V1L1/lowrank", "is no option here"),
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
        ([], "a placement has at least one stage"),
        ([[]], "a stage has at least one layer.* stage 1"),
        ([[7]], "a layer is `.kind, slots, dia, cb.`"),
        ([[["V", None, None]]], "a layer is `.kind, slots, dia, cb.`"),
        ([[["Q", None, None, None]]], "a layer is `.kind, slots, dia, cb.`"),
        ([[["V", None, None, True]]], 'null as slots and dia, and "cb" or null'),
        ([[["E", 1.5, None, None]]], "a layer has whole numbers or null"),
        ([[["E", True, None, None]]], "a layer has whole numbers or null"),
        ([[["V", None, -1, None]]], "dia >= 0"),
        ([[["V", 3, None, None]]], "`slots` belongs to kind E"),
        ([[["E", None, None, None]]], "`slots` belongs to kind E"),
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
        kinds=frozenset(choice.kind for choice in first),
        max_slots=max(choice.slots or 0 for choice in first),
        dia_cells=frozenset(choice.dia for choice in first if choice.dia is not None),
        cb=any(choice.cb for choice in first),
        forms=frozenset((c.kind, c.form) for c in first if c.kind in (Kind.LESS, Kind.EXTERNAL)),
    )


@pytest.mark.parametrize(
    ("outside", "message"),
    [
        ("V1 | V1", "has 2 and the network 1"),
        ("V1E1V1", "stage 1 of 'V1E1V1/s64' has 3 layers and the network 2"),
        ("V1N1", "layer 2 of stage 1 is N and"),
        ("V1E1/s6", "layer 2 of stage 1 is E/s6 and"),
        ("V2/dia1", "layer 1 of stage 1 is V/d0 and"),
        ("V2/cb", "layer 1 of stage 1 is V/cb and"),
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
        ({"external_expansion": 0}, "`external_expansion >= 1`"),
        ({"dia_reduction": 4.0}, "`dia_reduction >= 1`"),
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
        ("V2", "a network is backbone: placement"),
        ("2vit: V2", "a backbone is name"),
        ("vit(: V2", "a backbone is name"),
        ("vit@x: V2", "a backbone is name"),
        ("vit(depth): V2", "keys are written key=value"),
        ("vit(depth=): V2", "keys are written key=value"),
        ("vit(2=3): V2", "keys are written key=value"),
        ("vit(depth=2,depth=3): V2", "a key stands once"),
        ("vit(in_chans=x): V2", "in_chans >= 1"),
        ("vit(num_classes=0): V2", "num_classes >= 1"),
        ("vit@0: V2", "image_size >= 1"),
        ("vit(dia_reduction=0): V2", "dia_reduction >= 1"),
    ],
)
def test_text_that_means_no_network(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        NetworkSpec.parse(text)


SPEC_DOCUMENT = NetworkSpec.parse("vit: V2").to_json()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "a network spec has format 2.* but got"),
        ({**SPEC_DOCUMENT, "format": 3}, "a network spec has format 2.* but got 3"),
        ({**SPEC_DOCUMENT, "format": True}, "a network spec has format 2.* but got True"),
        ({**SPEC_DOCUMENT, "format": 1.0}, "a network spec has format 2.* but got 1.0"),
        ({"format": 2, "placement": "V2"}, "a network spec has a backbone"),
        ({"format": 2, "backbone": {"name": "vit"}}, "a network spec has a placement"),
        ({**SPEC_DOCUMENT, "backbone": 7}, "a backbone has the fields name, keywords"),
        ({**SPEC_DOCUMENT, "backbone": {}}, "a backbone has the fields name, keywords"),
        ({**SPEC_DOCUMENT, "backbone": {"name": 7}}, "a backbone has a name"),
        ({**SPEC_DOCUMENT, "backbone": {"name": "vit", "size": 7}}, "a backbone has the fields"),
        (
            {**SPEC_DOCUMENT, "backbone": {"name": "vit", "options": {"foo": 7}}},
            "a backbone has the fields",
        ),
        (
            {**SPEC_DOCUMENT, "backbone": {"name": "vit", "image_size": 29.0}},
            "image_size >= 1.* got image_size=29.0",
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
    with pytest.raises(InputError, match="single-head.* got external_form='multihead'; write"):
        NetworkSpec.from_json(of_format_1("multihead"))
