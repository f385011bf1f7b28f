"""Vision transformers: timm's logits from timm's weights, and every refusal."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
from timm.layers import LayerNorm, QuickGELU, RmsNorm, SwiGLU
from timm.layers.diff_attention import DiffAttention
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from torch import nn

from sharedattn.backbones import build, describe
from sharedattn.backbones.meta import without_storage
from sharedattn.backbones.vit import VIT
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, NetworkSpec

SMALL = {"embed_dim": 22, "depth": 2, "num_heads": 2, "patch_size": 5, "img_size": 15}
UNDERSTOOD = (
    "vit",
    "deit_tiny_patch16_224",
    "deit3_small_patch16_224",  # layer scale, positions for patches alone
    "vit_base_patch32_clip_224",  # norm before the blocks
    "vit_medium_patch16_reg4_gap_256",  # registers, no class token, mean pooling
    "vit_so150m_patch16_reg4_gap_256",  # the final norm before mean pooling
    "vit_base_patch16_radio_v3",  # no final norm
    "vit_small_patch14_dinov2",
    "flexivit_small",
    "eva_large_patch14_196",  # mean pooling beside a class token
)


def randomised(model: nn.Module) -> nn.Module:
    """The model with weights that make every part matter."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_timms_weights_load_unchanged_and_give_timms_logits(name: str) -> None:
    make = VisionTransformer if name == "vit" else partial(timm.create_model, name)
    model = randomised(make(**SMALL, num_classes=3))
    keywords = {key: value for key, value in SMALL.items() if key != "img_size"}
    backbone = BackboneSpec(
        name=name, keywords=tuple(keywords.items()), image_size=15, num_classes=3
    )
    images = torch.randn(3, 3, 15, 15)
    for fused in (True, False):
        network = build(
            NetworkSpec(backbone, NetworkSpec.parse("vit: V2").placement), fused=fused
        ).eval()
        assert list(network.state_dict()) == list(model.state_dict())
        network.load_state_dict(model.state_dict())
        torch.testing.assert_close(network(images), model(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "keywords",
    [
        {"qkv_bias": False, "proj_bias": False},
        {"class_token": False, "global_pool": "avg", "fc_norm": False},
        {"reg_tokens": 2, "no_embed_class": True, "init_values": 0.5},
        {"pos_embed": "none", "pre_norm": True, "final_norm": False},
        {"global_pool": "avg", "pool_include_prefix": True, "mlp_ratio": 1.5},
    ],
)
def test_keywords_mean_what_they_mean_in_timm(keywords: dict[str, Any]) -> None:
    model = randomised(VisionTransformer(**SMALL, **keywords, in_chans=2, num_classes=3))
    own = {key: value for key, value in {**SMALL, **keywords}.items() if key != "img_size"}
    spec = NetworkSpec(
        BackboneSpec(
            name="vit", keywords=tuple(own.items()), image_size=15, in_chans=2, num_classes=3
        ),
        NetworkSpec.parse("vit: V2").placement,
    )
    network = build(spec).eval()
    network.load_state_dict(model.state_dict())
    images = torch.randn(3, 2, 15, 15)
    torch.testing.assert_close(network(images), model(images), rtol=1e-5, atol=1e-5)
    assert {key: VIT.read_keywords(model)[key] for key in keywords} == keywords


def test_built_as_timm_initialises_it() -> None:
    spec = NetworkSpec.parse("vit(embed_dim=22,depth=2,num_heads=2,patch_size=5)@15: V2")
    torch.manual_seed(7)
    network = build(spec)
    torch.manual_seed(7)
    model = VisionTransformer(**SMALL)
    for name, weight in model.state_dict().items():
        assert torch.equal(network.state_dict()[name], weight), name


def test_stem_tokens_reset_as_timm_initialises_them() -> None:
    backbone = "vit(embed_dim=222,depth=1,num_heads=2,patch_size=5,reg_tokens=3)@45"
    network = build(NetworkSpec.parse(f"{backbone}: V1"))
    for token in (network.cls_token, network.reg_token, network.pos_embed):
        nn.init.ones_(token)
    network.reset_parameters()
    assert network.pos_embed.std().item() == pytest.approx(0.02, rel=0.05)
    assert network.cls_token.std().item() == pytest.approx(1e-6, rel=0.3)
    assert network.reg_token.std().item() == pytest.approx(1e-6, rel=0.3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_base_patch16_xp_224", "a block is a ParallelScalingBlock"),
        ("vit_small_patch16_18x2_224", "a block is a ParallelThingsBlock"),
        ("vit_base_patch16_rpn_224", "a block is a ResPostBlock"),
        ("vit_dpwee_patch16_reg1_gap_256", "a block is a DiffParallelScalingBlock"),
        ("vit_dwee_patch16_reg1_gap_256", "its attention is a DiffAttention"),
        ("vit_base_patch16_siglip_224", "it pools by 'map'"),
        ("vit_base_patch32_clip_quickgelu_224", "its MLP's activation is a QuickGELU"),
        ("aimv2_large_patch14_224", "its MLP is a SwiGLU"),
        ("vit_giant_patch14_dinov2", "its MLP is a GluMlp"),
        ("beit3_base_patch16_224", "its attention's output norm is a LayerNorm"),
        ("test_vit", "its image size is dynamic"),
        ("deit_tiny_distilled_patch16_224", "is a VisionTransformerDistilled"),
        ("eva02_tiny_patch14_224", "is a Eva"),
        ("vit_relpos_small_patch16_224", "is a VisionTransformerRelPos"),
        ("convnext_atto", "is a ConvNeXt"),
    ],
)
def test_names_that_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=f"{name}.* {message}"):
        describe(BackboneSpec(name=name))


def with_gate(model: Any) -> None:
    model.blocks[1].attn.gate = nn.Linear(22, 22)


def wider_heads(model: Any) -> None:
    model.blocks[1].attn.attn_dim = 44


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"qk_norm": True}, "its query norm is a LayerNorm"),
        ({"scale_attn_norm": True}, "its attention's output norm is a LayerNorm"),
        ({"scale_mlp_norm": True}, "its MLP's norm is a LayerNorm"),
        ({"norm_layer": RmsNorm}, "its norm1 is a RmsNorm"),
        ({"norm_layer": partial(LayerNorm, affine=False)}, "its norm1 has no scale or no shift"),
        ({"act_layer": QuickGELU}, "its MLP's activation is a QuickGELU"),
        ({"mlp_layer": SwiGLU}, "its MLP is a SwiGLU"),
        ({"attn_layer": DiffAttention}, "its attention is a DiffAttention"),
        ({"block_fn": ResPostBlock}, "a block is a ResPostBlock"),
        ({"embed_norm_layer": LayerNorm}, "the patch embedding's norm is a LayerNorm"),
        ({"patch_drop_rate": 0.5}, "the patch dropout is a PatchDropout"),
        ({"global_pool": "max"}, "it pools by 'max'"),
        ({"global_pool": ""}, "it pools by ''"),
        ({"dynamic_img_size": True}, "its image size is dynamic"),
        ({"patch_size": (5, 3)}, "its patches are not square"),
    ],
)
def test_parts_that_are_refused(keywords: dict[str, Any], message: str) -> None:
    model = VisionTransformer(**{**SMALL, **keywords})
    with pytest.raises(InputError, match=f"its blocks are not understood: {message}"):
        VIT.describe(model)


@pytest.mark.parametrize("change", [with_gate, wider_heads])
def test_attention_beyond_timms_plain_form_is_refused(change: Callable[[Any], None]) -> None:
    model = VisionTransformer(**SMALL)
    change(model)
    with pytest.raises(InputError, match="its attention is gated, or of another width"):
        VIT.describe(model)


def test_there_is_no_second_stage() -> None:
    network = build(NetworkSpec.parse("vit(embed_dim=22,depth=1,num_heads=2)@32: V1"))
    with pytest.raises(AssertionError, match="has one stage, but stage 1 was entered"):
        network.enter_stage(1, torch.zeros(1))


@pytest.mark.slow
def test_every_name_of_the_family_is_understood_or_refused() -> None:
    names = timm.list_models(module="vision_transformer") + timm.list_models(module="deit")
    understood = 0
    for name in names:
        # Of one block: what stands around the blocks is the same, and forty take their time.
        try:
            shape = describe(BackboneSpec.parse(f"{name}(depth=1)"))
        except InputError as error:
            assert name in str(error)
            continue
        with without_storage():
            model = timm.create_model(name, num_classes=1000, depth=1)
        around = shape.stem_params + shape.head_params
        blocks = sum(p.numel() for p in model.blocks.parameters())
        assert around + blocks == sum(p.numel() for p in model.parameters()), name
        understood += 1
    assert understood >= 100
