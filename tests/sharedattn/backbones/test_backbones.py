"""The registry: sizes, canonical specs, and input that names no backbone."""

from __future__ import annotations

import pytest
import torch

from sharedattn.backbones import (
    BackboneShape,
    StageShape,
    build,
    build_network,
    canonical,
    describe,
    resolve,
)
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, Envelope, NetworkSpec, Placement
from sharedattn.shape import AttentionShape


def test_sizes_of_a_known_backbone() -> None:
    assert describe(BackboneSpec(name="deit_tiny_patch16_224")) == BackboneShape(
        image_size=224,
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
            "fc_norm=true)@23"
        )
    )
    [stage] = shape.stages
    assert (stage.num_tokens, stage.num_prefix_tokens) == (4**2 + 4, 4)
    assert stage.layer_scale and stage.head_dim == 64
    assert shape.image_size == 23
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
    ],
)
def test_canonical(text: str, expected: str | None) -> None:
    small = canonical(BackboneSpec.parse(text))
    assert str(small) == (expected or text.replace("mlp_ratio=2", "mlp_ratio=2.0"))
    assert canonical(small) == small
    assert describe(small) == describe(BackboneSpec.parse(text))


def test_resolve_gives_equal_networks_one_key() -> None:
    texts = ["vit(depth=2,mlp_ratio=2,qkv_bias=true)@64: V2", "vit(mlp_ratio=2.0,depth=2)@64: V,V"]
    keys = {resolve(NetworkSpec.parse(text)).key for text in texts}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vit(depth=2): V2 | V1", "as many stages as the backbone.*has 2 and vit has 1"),
        ("vit(depth=2): V3", "stage 1 of V3 has 3 and vit has 2.*vit.depth=3"),
    ],
)
def test_placements_that_the_backbone_cannot_hold(text: str, message: str) -> None:
    spec = NetworkSpec.parse(text)
    for attempt in (resolve, build):
        with pytest.raises(InputError, match=message.replace("of V3", "of (V3|the envelope)")):
            attempt(spec)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vti", "a backbone is vit.* or a name of timm's.*'vti'; did you mean vit"),
        ("qqqqqq", "a backbone is vit.* or a name of timm's.*'qqqqqq'$"),
        ("vit(foo=1)", "`foo` is no keyword of vit; known: class_token, depth"),
        ("vit(weight_init=jax)", "`weight_init` is no keyword of vit"),
        ("vit(depth=2.5)", "`depth` is of type int, but got 2.5"),
        ("vit(qkv_bias=1)", "`qkv_bias` is of type bool, but got 1"),
        ("vit(global_pool=1)", "`global_pool` is of type str, but got 1"),
        ("vit(mlp_ratio=true)", "`mlp_ratio` is of type float, but got True"),
        ("vit(depth=0)", "`depth > 0` must hold, but got depth=0"),
        ("vit(reg_tokens=-1)", "`reg_tokens >= 0` must hold, but got reg_tokens=-1"),
        ("vit(mlp_ratio=nan)", "`mlp_ratio > 0` must hold, but got mlp_ratio=nan"),
        ("vit(init_values=inf)", "`init_values >= 0` must hold, but got init_values=inf"),
        ("vit(embed_dim=65)", "cannot be built: dim should be divisible by num_heads"),
        ("vit(global_pool=sum)", "cannot be built: Only avg"),
        ("vit@8", "a network has blocks and patches.* 12 blocks and 0 patches"),
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
