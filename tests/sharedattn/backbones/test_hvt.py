"""HVT against an independent writing of the published network, and its published figures."""

from __future__ import annotations

import contract
import pytest
import torch
from reference import Weights, heads, layer_norm, linear, mlp, part, patches
from torch import Tensor, nn

from sharedattn.backbones import build, canonical, describe
from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement

TINY = (
    "hvt(embed_dim=22,depth=6,num_heads=2,patch_size=5,mlp_ratio=1.5,pool_block_width=3,"
    "in_chans=2,num_classes=3)@35"
)
"""Stages of 1, 3 and 2 blocks, on 49, 24 and 11 tokens."""

D, H, M = 22, 2, 33


def published_forward(images: Tensor, weights: Weights, depths: tuple[int, ...]) -> Tensor:
    """Logits of all-vanilla stages with so many of their blocks."""
    x = patches(images, part(weights, "patch_embed.proj")) + weights["pos_embed"]
    for stage, (first, depth) in enumerate(zip((0, 1, 4), depths, strict=True)):
        if stage:
            # Three tokens to one, at every second token.
            x = torch.stack([x[:, i : i + 3].amax(1) for i in range(0, x.shape[1] - 2, 2)], 1)
            x = x + weights[f"stage_pos_embeds.{stage - 1}"]
        for i in range(first, first + depth):
            block = part(weights, f"blocks.{i}")
            normed = layer_norm(x, part(block, "norm1"))
            q, k, v = (
                heads(y, H) for y in linear(normed, part(block, "attn.qkv")).split(D, dim=-1)
            )
            out = (q @ k.mT / (D / H) ** 0.5).softmax(-1) @ v
            x = x + linear(out.transpose(1, 2).flatten(2), part(block, "attn.proj"))
            x = x + mlp(layer_norm(x, part(block, "norm2")), part(block, "mlp"))
    return linear(layer_norm(x, part(weights, "norm")).mean(1), part(weights, "head"))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("depths", [(1, 3, 2), (1, 2, 1)])
def test_logits_are_those_of_the_published_network(depths: tuple[int, ...], fused: bool) -> None:
    spec = NetworkSpec(BackboneSpec.parse(TINY), Placement.all_vanilla(depths))
    network = contract.randomised(build(spec, fused=fused))
    images = contract.random_images(spec.backbone)
    expected = published_forward(images, network.state_dict(), depths)
    torch.testing.assert_close(network(images), expected, rtol=0, atol=1e-10)


def test_weights_have_the_published_names_but_for_pooled_positions() -> None:
    parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    expected = {"pos_embed", "stage_pos_embeds.0", "stage_pos_embeds.1"}
    expected |= {
        f"{name}.{leaf}"
        for name in (
            *("patch_embed.proj", "norm", "head"),
            *(f"blocks.{i}.{part}" for i in (0, 1, 2, 4) for part in parts),
        )
        for leaf in ("weight", "bias")
    }
    assert set(build(NetworkSpec.parse(f"{TINY}: V1 | V2 | V1")).state_dict()) == expected


@pytest.mark.parametrize(
    ("name", "depths", "tokens", "printed"),
    [
        ("hvt", (1, 4, 4, 3), (196, 97, 48, 23), 0.436),
        ("hvt_ti_1", (1, 11), (196, 97), 0.642),
        ("hvt_s_3", (1, 4, 4, 3), (196, 97, 48, 23), 1.620),
        ("hvt_s_1", (1, 11), (196, 97), 2.402),
        ("hvt_s_2", (1, 6, 5), (196, 97, 48), 1.941),
        ("scale_hvt_ti_4", (1, 3, 3, 3, 2), (196, 97, 48, 23, 11), 1.394),
    ],
)
def test_published_configurations(
    name: str, depths: tuple[int, ...], tokens: tuple[int, ...], printed: float
) -> None:
    model = CostModel(BackboneSpec(name=name))
    stages = model.shape.stages
    assert tuple(stage.max_depth for stage in stages) == depths
    assert tuple(stage.num_tokens for stage in stages) == tokens
    assert {(stage.head_dim, stage.num_prefix_tokens) for stage in stages} == {(64, 0)}
    cost = model.cost(Placement.all_vanilla(depths))
    width = stages[0].embed_dim
    blocks = sum(
        depth * (12 * N * width**2 + 2 * N**2 * width)
        for depth, N in zip(depths, tokens, strict=True)
    )
    assert cost.matmul_macs == blocks + 196 * 768 * width + 1000 * width
    assert round(cost.matmul_macs / 1e9, 3) == printed


def test_cost_by_hand() -> None:
    shape = describe(BackboneSpec.parse(TINY))
    first, second, third = shape.stages
    assert (first.grid, second.grid, third.grid) == ((7, 7), (1, 24), (1, 11))
    assert (first.frame_params, second.frame_params, third.frame_params) == (0, 24 * D, 11 * D)
    assert (second.mlp_macs, third.mlp_macs) == (2 * 24 * D * M, 2 * 11 * D * M)
    attention = second.attention
    assert (attention.num_queries, attention.num_keys, attention.key_grid) == (24, 24, (1, 24))
    assert (shape.head_macs, shape.head_norm_macs) == (3 * D + 5 * 11 * D, 5 * 11 * D)
    assert shape.stem_params == 25 * 2 * D + D + 49 * D


def test_the_width_of_pooling_is_a_keyword() -> None:
    backbone = BackboneSpec.parse("hvt_ti_1(pool_block_width=12)")
    assert str(canonical(backbone)) == "hvt_ti_1"
    other = describe(BackboneSpec.parse("hvt_ti_1(pool_block_width=4)"))
    assert other == describe(BackboneSpec(name="hvt"))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ("depth=13", "`depth`=13 ends with a pooling.* after block 1"),
        ("pool_block_width=1", "after every 1 more; change depth or pool_block_width"),
        (
            "pool_block_width=2,patch_size=56",
            "a pooling takes 3 tokens or more, but 1 are left after 3",
        ),
        ("patch_size=225", "3 tokens or more, but 0 are left after 0 poolings; raise `pool"),
    ],
)
def test_poolings_that_are_refused(keywords: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe(BackboneSpec.parse(f"hvt({keywords})"))


def test_pooled_tokens_have_no_grid_for_the_attention_residual() -> None:
    with pytest.raises(InputError, match="grid of 7 x 7 does not pool to 1 x 24"):
        describe(BackboneSpec.parse(TINY.replace("depth", "attention_residual=true,depth")))


def test_positions_of_pooled_tokens_are_not_resampled() -> None:
    small, large = (build(NetworkSpec.parse(f"{TINY[:-2]}{size}: V1|V1|V1")) for size in (35, 45))
    resampled = small.resample_position("pos_embed", small.pos_embed, large)
    assert resampled.shape == large.pos_embed.shape == (1, 81, D)
    name = "stage_pos_embeds.0"
    with pytest.raises(
        InputError, match=rf"{name} .* from \(1, 24, 22\) at 35 px to \(1, 40, 22\)"
    ):
        small.resample_position(name, small.stage_pos_embeds[0], large)


def test_positions_are_reset() -> None:
    network = build(NetworkSpec.parse("hvt(embed_dim=222): V1|V1|V1|V1"))
    for positions in (network.pos_embed, *network.stage_pos_embeds):
        assert positions.std().item() == pytest.approx(0.02, rel=0.05)
        nn.init.ones_(positions)
    network.reset_parameters()
    for positions in (network.pos_embed, *network.stage_pos_embeds):
        assert positions.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    "numbers", [range(7), pytest.param(range(7, 30), marks=pytest.mark.slow)], ids=len
)
def test_referees(numbers: range) -> None:
    contract.check_referees(TINY, numbers)


def test_shared_and_extracted_weights() -> None:
    contract.check_extraction(TINY, 12)


def test_gradients() -> None:
    contract.check_gradients(TINY, 8)


def test_interleaved_runs() -> None:
    contract.check_interleaved(TINY)


@pytest.mark.slow
def test_a_stand_alone_network_compiles_whole() -> None:
    network = contract.randomised(build(NetworkSpec.parse(f"{TINY}: V1|V1L1E1/s3/dia1/cb|V1")))
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    images = contract.random_images(network.backbone)
    torch.testing.assert_close(compiled(images), network(images))
