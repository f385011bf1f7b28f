"""Swin transformers: timm's logits, the hand-over between shifted windows, and every refusal."""

from __future__ import annotations

from typing import Any

import contract
import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from sharedattn.backbones import build, build_network, canonical, describe, resolve
from sharedattn.backbones.meta import without_storage
from sharedattn.backbones.swin import SWIN
from sharedattn.costs.flop_conventions import counted
from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, Envelope, NetworkSpec, Placement
from sharedattn.weights.extract import extract

SIZES = {"embed_dim": 10, "num_heads": (2, 5), "patch_size": 2, "in_chans": 2, "num_classes": 3}
TEXT = "embed_dim=10,num_heads=2-5,patch_size=2,in_chans=2,num_classes=3"
# Grids of 11 x 11 and 6 x 6: 16 windows of 9 tokens over 12 x 12, 4 windows of 25 over 10 x 10.
PADDED = f"swin(depths=4-3,window_size=3-5,mlp_ratio=1.5,{TEXT})@22"
# Grids of 6 x 6 and 3 x 3, each in one window.
WHOLE = f"swin(depths=2-3,window_size=7-7,{TEXT})@12"
# By timm's name: three stages of 9 x 9, 5 x 5 and 3 x 3 tokens; the first has 9 windows.
NAMED = (
    "swin_tiny_patch4_window7_224(depths=3-1-2,embed_dim=6,num_heads=3-2-4,window_size=4-5-3,"
    "patch_size=3,qkv_bias=false,broadcasting_form=scaled,external_expansion=2)@27"
)
IDS = ("padded", "previous", "whole", "residual", "named")
BACKBONES = (
    PADDED,
    PADDED.replace("(", "(handover=previous,"),
    WHOLE,
    WHOLE.replace("(", "(attention_residual=true,"),
    NAMED,
)


@pytest.mark.parametrize(
    ("image_size", "depths", "window_size"),
    [
        (22, (4, 3), (3, 5)),  # padded on the right and below, an odd grid merged
        (24, (2, 2), (3, 3)),  # windows that fit
        (26, (2, 3), (7, 7)),  # the second stage of 7 x 7 is one window
        (10, (2, 2), (7, 4)),  # windows larger than either grid
        (12, (3, 2), (2, 1)),  # a window of one token cannot be shifted
    ],
)
def test_timms_weights_load_unchanged_and_give_timms_logits(
    image_size: int, depths: tuple[int, ...], window_size: tuple[int, ...]
) -> None:
    model = SwinTransformer(
        **SIZES, img_size=image_size, depths=depths, window_size=tuple((w, w) for w in window_size)
    )
    written = {"depths": depths, "window_size": window_size}
    keywords = ",".join(f"{key}={'-'.join(map(str, v))}" for key, v in written.items())
    contract.check_weights_of(model, f"swin({keywords},{TEXT})@{image_size}")


def test_timms_names_load_timms_weights() -> None:
    keywords = {"depths": (1, 2, 1, 2), "embed_dim": 12, "img_size": 56, "num_classes": 3}
    for name in ("swin_tiny_patch4_window7_224", "swin_s3_tiny_224"):
        model = timm.create_model(name, **keywords)
        contract.check_weights_of(model, f"{name}(depths=1-2-1-2,embed_dim=12,num_classes=3)@56")


def test_keywords_mean_what_they_mean_in_timm() -> None:
    model = SwinTransformer(
        **SIZES, img_size=22, depths=(4, 3), window_size=((3, 3), (5, 5)), mlp_ratio=1.5
    )
    assert SWIN.read_keywords(model) == {
        "embed_dim": 10,
        "depths": "4-3",
        "num_heads": "2-5",
        "window_size": "3-5",
        "patch_size": 2,
        "mlp_ratio": 1.5,
        "qkv_bias": True,
    }
    no_bias = SwinTransformer(**SIZES, img_size=22, depths=(1, 1), qkv_bias=False)
    # A window beyond the grid is the grid.
    read = SWIN.read_keywords(no_bias)
    assert (read["qkv_bias"], read["window_size"]) == (False, "7-6")
    text = f"swin(depths=1-1,qkv_bias=false,window_size=7-7,{TEXT})@22"
    contract.check_weights_of(no_bias, text)


def test_built_as_timm_initialises_it() -> None:
    torch.manual_seed(7)
    network = build(NetworkSpec.parse(f"{WHOLE}: V2 | V3"))
    torch.manual_seed(7)
    model = SwinTransformer(**SIZES, img_size=12, depths=(2, 3), window_size=((7, 7), (7, 7)))
    for name, weight in model.state_dict().items():
        assert torch.equal(network.state_dict()[name], weight), name


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        # fvcore's own counts of timm's models with unfused attention, to 0.1 M, and its params.
        ("swin_tiny_patch4_window7_224", 28_288_354, 4.5092e9),
        ("swin_small_patch4_window7_224", 49_606_258, 8.7685e9),
    ],
)
def test_known_backbones(name: str, params: int, macs: float) -> None:
    backbone = BackboneSpec.parse(name)
    depths = [stage.max_depth for stage in describe(backbone).stages]
    cost = CostModel(backbone).cost(Placement.all_vanilla(depths))
    assert cost.params == params
    assert cost.macs == pytest.approx(macs, abs=5e4)


def test_timms_own_model_counts_alike() -> None:
    # fvcore on timm's unfused model itself, of which ours is another writing.
    from fvcore.nn import FlopCountAnalysis

    model = SwinTransformer(
        **SIZES, img_size=22, depths=(4, 3), window_size=((3, 3), (5, 5)), mlp_ratio=1.5
    ).eval()
    analysis = FlopCountAnalysis(model, torch.zeros(1, 2, 22, 22))
    analysis.unsupported_ops_warnings(False).tracer_warnings("none")
    cost = CostModel(BackboneSpec.parse(PADDED)).cost(Placement.parse("V4 | V3"))
    assert cost.macs == analysis.total()
    assert cost.params == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "numbers", [range(4), pytest.param(range(4, 10), marks=pytest.mark.slow)], ids=len
)
@pytest.mark.parametrize("text", BACKBONES, ids=IDS)
def test_no_difference_from_either_referee(text: str, numbers: range) -> None:
    contract.check_referees(text, numbers)


@pytest.mark.parametrize("text", BACKBONES, ids=IDS)
def test_shared_and_extracted_weights_give_equal_logits(text: str) -> None:
    contract.check_extraction(text, 4)


@pytest.mark.parametrize("text", BACKBONES, ids=IDS)
def test_gradient_reaches_every_parameter_of_a_placement_and_no_other(text: str) -> None:
    # The bias table has a gradient wherever it stands: no window has one token alone, and its own
    # layer attends with it, whether or not a layer behind reuses it.
    contract.check_gradients(text, 4)


@pytest.mark.parametrize("text", BACKBONES, ids=IDS)
def test_two_interleaved_forwards_agree_with_separate_ones(text: str) -> None:
    contract.check_interleaved(text)


def test_sizes() -> None:
    first, second = describe(BackboneSpec.parse(PADDED)).stages
    assert (first.num_tokens, first.grid, first.embed_dim) == (121, (11, 11), 10)
    assert (first.attention.num_windows, first.attention.num_queries) == (16, 9)
    assert first.attention.score_groups == (0, 1, 0, 1)
    assert first.attention.position_params == 2 * 5**2
    assert (second.num_tokens, second.grid, second.embed_dim) == (36, (6, 6), 20)
    assert (second.attention.num_windows, second.attention.num_keys) == (4, 25)
    assert second.attention.score_groups == (0, 1, 0)
    assert second.frame_params == 2 * 40 + 40 * 20
    assert second.frame_macs == 36 * (5 * 40 + 40 * 20)


def test_the_last_stage_at_224_pixels_is_not_shifted() -> None:
    stages = describe(BackboneSpec.parse("swin_tiny_patch4_window7_224")).stages
    groups = [stage.attention.score_groups for stage in stages]
    assert groups == [(0, 1), (0, 1), (0, 1, 0, 1, 0, 1), ()]


def test_the_most_less_layers_of_two_block_stages() -> None:
    # By equal shift, a stage of blocks (unshifted, shifted) has none: only stages 3 and 4 do.
    name = "swin_tiny_patch4_window7_224"
    resolve(NetworkSpec.parse(f"{name}: V2 | V2 | V2L4 | V1L1"))
    for text in ("V1L1 | V2 | V6 | V2", "V2 | V1L1 | V6 | V2", "V2 | V2 | V1L5 | V2"):
        with pytest.raises(InputError, match="of equal shift before it.*with handover=previous"):
            resolve(NetworkSpec.parse(f"{name}: {text}"))
        resolve(NetworkSpec.parse(f"{name}(handover=previous): {text}"))


def test_savings_of_less_attention_by_convention() -> None:
    # Per cent of Swin-T's MACs; the paper says -11.1 without saying which layers or how counted.
    name = "swin_tiny_patch4_window7_224"
    full = counted(NetworkSpec.parse(f"{name}: V2 | V2 | V6 | V2")).macs
    shares = {
        text: [
            round(100 * (counted(NetworkSpec.parse(text), maps=maps).macs / full - 1), 1)
            for maps in ("free", "factored", "paper")
        ]
        for text in (
            f"{name}: V2 | V2 | V2L4 | V1L1",
            f"{name}(handover=previous): V1L1 | V1L1 | V1L5 | V1L1",
        )
    }
    equal_shift, previous = shares.values()
    assert equal_shift == [-6.8, -5.3, -5.7]
    assert previous == [-11.2, -7.9, -8.3]


def scores_of_layers(network: Any, placement: Placement, x: torch.Tensor) -> list[Any]:
    """The state after each layer of the first stage."""
    tokens, state = network.begin(x)
    states = []
    for index, choice in enumerate(placement.stages[0]):
        tokens, state = network.layer(0, index).run(tokens, state, choice)
        states.append(state)
    return states


@pytest.mark.parametrize(("option", "sources"), [("equal_shift", (0, 1)), ("previous", (1, 2))])
def test_whose_scores_a_less_layer_takes(option: str, sources: tuple[int, int]) -> None:
    text = PADDED.replace("(", f"(handover={option},")
    placement = Placement.parse("V2L2/reuse | V1")
    network = contract.randomised(build(NetworkSpec(BackboneSpec.parse(text), placement)))
    states = scores_of_layers(network, placement, contract.random_images(network.backbone))
    for index, source in zip((2, 3), sources, strict=True):
        group = network.shape.stages[0].attention.score_group(index)
        taken = states[index].values["scores", group]
        assert torch.equal(taken.q_BHNK, states[source].values["scores", group].q_BHNK)
        # The bias goes with the scores, the mask does not.
        assert torch.equal(taken.bias, states[source].values["scores", group].bias)
        assert taken.bias.isfinite().all() and taken.bias.shape == (2, 9, 9)


def test_a_less_layer_masks_by_its_own_windows() -> None:
    backbone = BackboneSpec.parse(PADDED.replace("(", "(handover=previous,"))
    placement = Placement.parse("V1L1V1L1 | V1")
    network = contract.randomised(build(NetworkSpec(backbone, placement)))
    maps = network.run(contract.random_images(backbone), collect={"attention"}).attention
    for index in range(4):
        mask = network.block(0, index).attn.mask_WMM
        hidden = (maps[index] == 0).view(3, 16, 2, 9, 9).all(2).all(0)
        assert torch.equal(hidden, torch.zeros_like(hidden) if mask is None else mask < 0)


@pytest.mark.parametrize(
    ("choice", "num_changed"),
    [("V", 9), ("V/cb", 121), ("V/d0", 121), ("E/s7", 121), ("E/s7/mea", 121), ("N", 1)],
)
def test_windows_bound_vanilla_and_less_attention_alone(choice: str, num_changed: int) -> None:
    # One token of the image changes: how many does a layer change?
    spec = NetworkSpec.parse(f"{PADDED}: {choice} | N1")
    network = contract.randomised(build(spec))
    tokens, state = network.begin(contract.random_images(spec.backbone, 1))
    other = tokens.clone()
    other[:, 60, 3] += 1  # not all channels: the norm would take it away
    after, after_other = (
        network.layer(0, 0).run(x, state, spec.placement.layers[0])[0] for x in (tokens, other)
    )
    assert ((after - after_other).abs() > 1e-12).any(-1).sum() == num_changed


def test_fused_and_explicit_attention_agree() -> None:
    for text in (PADDED, WHOLE.replace("(", "(attention_residual=true,")):
        for placement in ("V2L2 | V2L1/keys", "V2 | V3"):
            if "residual" in text and placement.startswith("V2L2"):
                placement = "V1L1 | V1L2/lowrank3"
            spec = NetworkSpec(BackboneSpec.parse(text), Placement.parse(placement))
            fused = contract.randomised(build(spec))
            explicit = build(spec, fused=False).double().eval()
            explicit.load_state_dict(fused.state_dict())
            x = contract.random_images(spec.backbone)
            torch.testing.assert_close(fused(x), explicit(x), rtol=0, atol=1e-12)


def test_extraction_keeps_what_follows_from_the_sizes() -> None:
    backbone = BackboneSpec.parse(PADDED)
    placements = [Placement.parse(text) for text in ("V4 | V3", "V2L2 | V1", "E1 | V2L1")]
    shared = build_network(backbone, Envelope.of(*placements)).double()
    theirs = dict(shared.named_buffers())
    for placement in placements:
        own = dict(extract(shared, placement).named_buffers())
        expected = dict(build(NetworkSpec(backbone, placement)).double().named_buffers())
        assert own.keys() == expected.keys()
        for name, buffer in own.items():
            assert torch.equal(buffer, expected[name]) and buffer.dtype == expected[name].dtype
            assert buffer.data_ptr() != theirs[name].data_ptr()


@pytest.mark.slow
def test_a_stand_alone_network_compiles_and_exports_whole() -> None:
    spec = NetworkSpec.parse(f"{PADDED}: V2L1E1/s3/cb1 | V1N1V1/dia1")
    network = contract.randomised(build(spec))
    x = contract.random_images(spec.backbone)
    with torch.no_grad():
        expected = network(x)
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), expected)
        exported = torch.export.export(network, (x,))
        torch.testing.assert_close(exported.module()(x), expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "swin(depths=1-2,embed_dim=96,num_heads=3-6,window_size=7-7,patch_size=4)@224",
            "swin(depths=1-2)",
        ),
        ("swin(depths=1-1,num_heads=3-2,window_size=9-5)", None),
        # Windows beyond the grids of 7 and 4 tokens a side.
        ("swin(depths=1-1,window_size=9-9)@28", "swin(depths=1-1)@28"),
        ("swin(depths=1-1,window_size=9-9)@32", "swin(depths=1-1,window_size=8-4)@32"),
        ("swin(depths=1-1,mlp_ratio=2)", "swin(depths=1-1,mlp_ratio=2.0)"),
        ("swin(depths=1-1,mlp_ratio=2.0001)", "swin(depths=1-1,mlp_ratio=2.0)"),
        ("swin(mlp_ratio=2.003)", None),
    ],
)
def test_canonical(text: str, expected: str | None) -> None:
    small = canonical(BackboneSpec.parse(text))
    assert str(small) == (expected or text)
    assert canonical(small) == small
    assert describe(small) == describe(BackboneSpec.parse(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("swin(depths=2-0-6-2)", "'2-0-6-2' is not one whole number above 0 per stage"),
        ("swin(window_size=7-x-7-7)", "'7-x-7-7' is not one whole number above 0 per stage"),
        ("swin(window_size=7-7)", "`window_size`=7-7 is not one number per stage.*depths=2-2-6-2"),
        ("swin(window_size=7)", "`window_size`=7 is not one number per stage, such as 2-2-6-2"),
        ("swin(depths=2-2-2-2-2)", "cannot be built: tuple index out of range"),
        ("swin(embed_dim=97)", "its heads are not of the width of the tokens together"),
        ("swin@3", "an image of 3 pixels has no patch of 4"),
        (
            "swin(mlp_ratio=0.001)",
            "`mlp_ratio`=0.001 leaves no channel",
        ),
        ("swin(mlp_ratio=0.007)", "96 to 96, 192 to 1, 384 to 2, 768 to 5 channels, by no one"),
        ("swin(head_dim=16)", "`head_dim` is no keyword of swin"),
        ("swinv2_tiny_window8_256", "is a SwinTransformerV2"),
        ("swinv2_cr_tiny_224", "is a SwinTransformerV2Cr"),
        (
            "swin(handover=previous,window_size=56-28-14-7)",
            "without shifted windows.*leave it out",
        ),
        ("swin(attention_residual=true)", "scores of windows have no grid over the image"),
        (
            "swin(attention_residual=true,window_size=56-28-14-7)@200",
            "a grid of 25 x 25 does not pool to 13 x 13",
        ),
    ],
)
def test_input_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe(BackboneSpec.parse(text))


class OtherBlock(nn.Module):
    """No block of Swin's."""


def with_other_block(model: Any) -> None:
    model.layers[1].blocks[0] = OtherBlock()


def with_other_attention(model: Any) -> None:
    model.layers[1].blocks[0].attn = OtherBlock()


def with_other_mlp(model: Any) -> None:
    model.layers[1].blocks[0].mlp = OtherBlock()


def with_other_activation(model: Any) -> None:
    model.layers[1].blocks[0].mlp.act = nn.ReLU()


def with_norm_in_mlp(model: Any) -> None:
    model.layers[1].blocks[0].mlp.norm = nn.LayerNorm(3)


def with_other_merging(model: Any) -> None:
    model.layers[1].downsample = OtherBlock()


def with_other_head(model: Any) -> None:
    model.head = OtherBlock()


def with_plain_norm(model: Any) -> None:
    model.norm = nn.LayerNorm(20, elementwise_affine=False)


def with_other_embedding(model: Any) -> None:
    model.patch_embed.__class__ = type("OtherEmbed", (type(model.patch_embed),), {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_other_block, "a block is a OtherBlock, understood is SwinTransformerBlock"),
        (with_other_attention, "its attention is a OtherBlock, understood is WindowAttention"),
        (with_other_mlp, "its MLP is a OtherBlock, understood is Mlp"),
        (with_other_activation, "its MLP's activation is a ReLU"),
        (with_norm_in_mlp, "its MLP's norm is a LayerNorm"),
        (with_other_merging, "what leads into a stage is a OtherBlock"),
        (with_other_head, "its head is a OtherBlock"),
        (with_plain_norm, "its norm has no scale or no shift"),
        (with_other_embedding, "the patch embedding is a OtherEmbed"),
    ],
)
def test_parts_that_are_refused(change: Any, message: str) -> None:
    model = SwinTransformer(**SIZES, img_size=22, depths=(2, 2), window_size=3)
    SWIN.describe(model, None)
    change(model)
    with pytest.raises(InputError, match=f"its blocks are not understood: {message}"):
        SWIN.describe(model, None)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"always_partition": True}, "its windows are larger than the grid .always_partition"),
        ({"dynamic_img_size": True}, "its image size is dynamic"),
        ({"strict_img_size": False}, "its image size is dynamic"),
        ({"head_dim": 3}, "its heads are not of the width"),
        ({"global_pool": "max"}, "it pools by 'max', understood is avg"),
        ({"global_pool": ""}, "it pools by '', understood is avg"),
        ({"patch_size": (2, 3)}, "its patches are not square"),
        ({"window_size": (3, 5)}, "its windows are not square"),
        ({"norm_layer": nn.RMSNorm}, "the patch embedding's norm is a RMSNorm"),
    ],
)
def test_models_that_are_refused(keywords: dict[str, Any], message: str) -> None:
    sizes = {**SIZES, "img_size": 22, "depths": (2, 2), "window_size": 3}
    model = SwinTransformer(**{**sizes, **keywords})
    with pytest.raises(InputError, match=f"its blocks are not understood: {message}"):
        SWIN.describe(model, None)


@pytest.mark.slow
def test_every_name_of_the_family_is_understood() -> None:
    names = timm.list_models(module="swin_transformer")
    for name in names:
        backbone = BackboneSpec(name=name)
        with without_storage():
            model = timm.create_model(name)
        depths = [len(layer.blocks) for layer in model.layers]
        cost = CostModel(backbone).cost(Placement.all_vanilla(depths))
        assert cost.params == sum(p.numel() for p in model.parameters()), name
    assert len(names) >= 9
