"""The registry: sizes, canonical specs, and input that names no backbone."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from sharedattn.backbones import FAMILIES, build, build_network, canonical, describe, resolve
from sharedattn.errors import InputError
from sharedattn.image_size import ImageSize
from sharedattn.placement import BackboneSpec, Envelope, Keyword, NetworkSpec, Placement
from sharedattn.shape import AttentionShape, BackboneShape, StageShape
from sharedattn.testing.tiny_backbones import TINY, tiny_backbone


def test_sizes_of_a_known_backbone() -> None:
    assert describe(BackboneSpec(name="deit_tiny_patch16_224")) == BackboneShape(
        image_size=ImageSize(224, 224),
        stages=(
            StageShape(
                max_depth=12,
                num_tokens=197,
                num_prefix_tokens=1,
                grid=(14, 14),
                embed_dim=192,
                num_heads=3,
                attention=AttentionShape(num_queries=197, num_keys=197, key_grid=(14, 14)),
                mlp_params=2 * 192 * 768 + 192 + 768,
                mlp_macs=2 * 197 * 192 * 768,
                qkv_bias=True,
                proj_bias=True,
                layer_scale=False,
                reduction=16,
            ),
        ),
        stem_params=192 * 3 * 16**2 + 192 + 192 + 197 * 192,
        stem_macs=28_901_376,
        stem_norm_macs=0,
        head_params=2 * 192 + 192 * 1000 + 1000,
        head_macs=5 * 197 * 192 + 192 * 1000,
        head_norm_macs=5 * 197 * 192,
    )


def test_sizes_follow_the_image_and_the_keywords() -> None:
    shape = describe(
        BackboneSpec.parse(
            "deit3_small_patch16_224(patch_size=5,reg_tokens=3,pre_norm=true,global_pool=avg,"
            "fc_norm=true)@20"
        )
    )
    [stage] = shape.stages
    assert (stage.num_tokens, stage.num_prefix_tokens) == (4**2 + 4, 4)
    assert stage.layer_scale and stage.head_dim == 64
    assert shape.image_size == (20, 20)
    assert shape.stem_norm_macs == 5 * 20 * 384
    assert shape.head_norm_macs == 5 * 384
    # Positions for patches alone; the patch embedding has no bias before a norm.
    assert shape.stem_params == 384 * 3 * 5**2 + (1 + 3 + 16) * 384 + 2 * 384


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("deit_tiny_patch16_224", "deit_tiny_patch16_224"),
        ("deit_tiny_patch16_224.fb_in1k@224", "deit_tiny_patch16_224"),
        (
            "deit_tiny_patch16_224(depth=12,embed_dim=192,qkv_bias=true,mlp_ratio=4)@192",
            "deit_tiny_patch16_224@192",
        ),
        ("deit_tiny_patch16_224(depth=7,mlp_ratio=2)", None),
        ("vit(depth=2,embed_dim=192,mlp_ratio=2,num_heads=3)@32", None),
        # Mean pooling brings its norm along, and says so only where it differs.
        ("vit(depth=1,global_pool=avg,fc_norm=true)", "vit(depth=1,global_pool=avg)"),
        ("vit(depth=1,fc_norm=false,global_pool=avg)", None),
        ("vit(depth=1,init_values=0,reg_tokens=0)", "vit(depth=1)"),
        ("vit(depth=1,dia_reduction=2,in_chans=1,num_classes=10)", None),
        # Values that build one network are one.
        ("vit(depth=1,mlp_ratio=2.0001)", "vit(depth=1,mlp_ratio=2.0)"),
        ("ceit_tiny(mlp_ratio=3.001)", "ceit_tiny(mlp_ratio=3.0)"),
        ("pvt_tiny(mlp_ratios=8-8-4-4.001)", "pvt_tiny"),
        ("hvt_s_1(pool_block_width=13)", "hvt_s_1"),
        ("hvt(depth=5,pool_block_width=7)", "hvt(depth=5,pool_block_width=5)"),
        (
            "vit(class_token=false,global_pool=avg,no_embed_class=true,pool_include_prefix=true)",
            "vit(class_token=false,global_pool=avg)",
        ),
        ("vit(depth=1,final_norm=false,fc_norm=true)", "vit(depth=1,final_norm=false)"),
        ("pvt(depths=2,embed_dims=22,mlp_ratios=1.5,num_heads=2,sr_ratios=1)", None),
        (
            "pvt(depths=2,embed_dims=22,mlp_ratios=8.0,num_heads=2,sr_ratios=1)",
            "pvt(depths=2,embed_dims=22,mlp_ratios=8,num_heads=2,sr_ratios=1)",
        ),
    ],
)
def test_canonical(text: str, expected: str | None) -> None:
    small = canonical(BackboneSpec.parse(text))
    assert str(small) == (expected or text.replace("mlp_ratio=2", "mlp_ratio=2.0"))
    assert canonical(small) == small
    assert describe(small) == describe(BackboneSpec.parse(text))


@pytest.mark.parametrize("base_name", sorted(TINY))
def test_what_a_model_shows_builds_it_again(base_name: str) -> None:
    backbone = tiny_backbone(base_name)
    family = next(family for family in FAMILIES if family.base_name == base_name)

    def shown(backbone: BackboneSpec) -> dict[str, Keyword]:
        keywords = dict(backbone.keywords)
        rules = {key: family.keywords[key] for key in keywords}
        arguments = {r.argument or key: r.to_argument(keywords[key]) for key, r in rules.items()}
        make = family.names.get(base_name, family.model_class)
        if family.default_image_size is None:
            arguments["img_size"] = backbone.image_size
        return family.read_keywords(make(**arguments, in_chans=1, num_classes=2))

    values = shown(backbone)
    again = replace(backbone, keywords=tuple(values.items()))
    assert shown(again) == values
    assert describe(again) == describe(backbone)
    assert canonical(again) == canonical(backbone)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "vit(broadcasting_form=scaled,class_token_in_mean=false,dia_reduction=3,dia_start=one,"
            "external_expansion=2): V2E1/s7",
            "vit: V2E1/s7",
        ),
        ("vit(broadcasting_form=scaled,class_token_in_mean=false): V1/cb", None),
        ("vit(class_token_in_mean=false,dia_reduction=3): V1/dia1", None),
        ("vit(dia_start=one): V1/dia1", None),
        ("vit(external_expansion=2): E1/s7/mea", None),
        # Only the last stage of a pyramid has a class token.
        ("pvt(class_token_in_mean=false): V1/cb | V1 | V1 | V1", "pvt: V1/cb | V1 | V1 | V1"),
        ("pvt(class_token_in_mean=false): V1 | V1 | V1 | V1/cb", None),
        # Without a layer of the other shift between, both hand over the same scores.
        ("swin(handover=previous): V1 | V1 | V,E,L | V1", "swin: V1 | V1 | V1E1L1 | V1"),
        ("swin(handover=previous): V1 | V1 | V2L1 | V1", None),
        ("swin(handover=previous): V1 | V1 | V1L1 | V1", None),
    ],
)
def test_options_that_no_layer_uses_are_no_part_of_a_network(
    text: str, expected: str | None
) -> None:
    spec = resolve(NetworkSpec.parse(text))
    assert spec == NetworkSpec.parse(expected or text) == resolve(spec)
    with torch.device("meta"):
        given = build(NetworkSpec.parse(text)).state_dict()
        own = build(spec).state_dict()
    assert {n: w.shape for n, w in given.items()} == {n: w.shape for n, w in own.items()}


def test_resolve_gives_equal_networks_one_key() -> None:
    texts = ["vit(depth=2,mlp_ratio=2,qkv_bias=true)@64: V2", "vit(mlp_ratio=2.0,depth=2)@64: V,V"]
    keys = {resolve(NetworkSpec.parse(text)).key for text in texts}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vit(depth=2): V2 | V1", "has 2 stages, but vit has 1"),
        ("vit(depth=2): V3", "stage 1 of V3 has 3 layers, more than the 2 of vit.*vit.depth=3"),
        (
            "hvt_s_3: V1 | V5 | V4 | V3",
            "stage 2 of .* has 5 layers, more than the 4 of hvt_s_3; .* backbone$",
        ),
    ],
)
def test_placements_that_the_backbone_cannot_hold(text: str, message: str) -> None:
    spec = NetworkSpec.parse(text)
    for attempt in (resolve, build):
        with pytest.raises(InputError, match=message):
            attempt(spec)


@pytest.mark.parametrize(
    ("text", "deeper"),
    [
        ("vit(depth=2,mlp_ratio=2)@64: V3", "vit(depth=3,mlp_ratio=2)@64"),
        ("pvt_tiny: V1 | V3 | V1 | V4", "pvt_tiny(depths=2-3-2-4)"),
        (
            "pvt(depths=2,embed_dims=22,mlp_ratios=2,num_heads=2,sr_ratios=1): V3",
            "pvt(depths=3,embed_dims=22,mlp_ratios=2,num_heads=2,sr_ratios=1)",
        ),
    ],
)
def test_a_deeper_backbone_that_is_named_holds_the_placement(text: str, deeper: str) -> None:
    spec = NetworkSpec.parse(text)
    with pytest.raises(InputError, match=f"a deeper backbone such as {re.escape(deeper)}$"):
        resolve(spec)
    assert resolve(replace(spec, backbone=BackboneSpec.parse(deeper)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vti", "no backbone 'vti'; write vit.* or a name of timm's; did you mean vit"),
        ("qqqqqq", "no backbone 'qqqqqq'; write vit.* or a name of timm's$"),
        ("vit(foo=1)", "`foo` is no keyword of vit; known: class_token, depth"),
        ("vit(weight_init=jax)", "`weight_init` is no keyword of vit"),
        ("vit(depth=2.5)", "`depth` is of type int, but got 2.5"),
        ("vit(qkv_bias=1)", "`qkv_bias` is of type bool, but got 1"),
        ("vit(global_pool=1)", "`global_pool` is of type str, but got 1"),
        ("vit(mlp_ratio=true)", "`mlp_ratio` is of type float, but got True"),
        ("vit(depth=0)", "`depth`=0 is not a number above 0"),
        ("vit(reg_tokens=-1)", "`reg_tokens`=-1 is not a number of 0 or more"),
        ("vit(mlp_ratio=nan)", "`mlp_ratio`=nan is not a number above 0"),
        ("vit(init_values=inf)", "`init_values`=inf is more than 1,000,000"),
        ("vit(depth=1001)", "`depth`=1001 is more than 1,000"),
        ("pvt(depths=9999-2-2-2)", "'9999-2-2-2' has a number above 1,000; lower it$"),
        ("pvt(sr_ratios=9999999-4-2-1)", "'9999999-4.*' has a number above 1,000,000"),
        (
            "pvt(depths=true)",
            "`depths`=True is not one number per stage, such as 2-2-6-2",
        ),
        ("vit(mlp_ratio=1e300)", r"`mlp_ratio`=1e\+300 is more than 1,000,000"),
        ("vit(in_chans=1000001)", "`in_chans`=1000001 is more than 1,000,000"),
        ("vit(num_classes=1000001)", "`num_classes`=1000001 is more than 1,000,000"),
        ("vit@1000001", "`image_size`=1000001 is more than 1,000,000"),
        (
            "vit(embed_dim=999999,num_heads=1,mlp_ratio=1e6,patch_size=999999)@999999",
            r"cannot be built: [^\n]*$",
        ),
        (
            "vit(mlp_ratio=0.001)",
            "`mlp_ratio`=0.001 leaves no channel",
        ),
        (
            "pvt(mlp_ratios=8-8-4-0.001)",
            "`mlp_ratios`=8-8-4-0.001 leaves no channel",
        ),
        ("vit(embed_dim=65)", "cannot be built: dim should be divisible by num_heads"),
        ("vit(global_pool=sum)", "cannot be built: Only avg"),
        ("vit@8", "has 12 blocks and 0 patches"),
        ("vit(global_pool=max)", r"backbone 'vit\(global_pool=max\)': its blocks are not"),
    ],
)
def test_input_that_names_no_backbone(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe(BackboneSpec.parse(text))


def test_reading_sizes_draws_no_random_number() -> None:
    state = torch.get_rng_state()
    canonical(BackboneSpec.parse("vit(depth=3,embed_dim=22,num_heads=2)@41"))
    assert torch.equal(torch.get_rng_state(), state)


def test_stochastic_depth_follows_the_backbone_at_any_depth() -> None:
    backbone = BackboneSpec.parse("vit(depth=5,embed_dim=22,num_heads=2)@32")
    for text in ("V5", "V3"):
        network = build_network(backbone, Envelope.of(Placement.parse(text)), drop_path_rate=0.4)
        rates = [getattr(block.drop_path2, "drop_prob", 0.0) for block in network.blocks]
        assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4][: len(rates)])
