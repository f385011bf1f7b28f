"""T2T-ViT and EAMLP against an independent writing of the published network, and their figures."""

from __future__ import annotations

from collections.abc import Mapping

import contract
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharedattn.backbones import build, describe
from sharedattn.backbones.t2t import T2TViT, sinusoids
from sharedattn.costs.flop_counters import matmul_macs
from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement

TINY = (
    "t2t_ea(embed_dim=22,depth=5,num_heads=2,mlp_ratio=1.5,token_dim=7,in_chans=2,num_classes=3)"
    "@45"
)
"""Splits of 11 x 11, 6 x 6 and 3 x 3 tokens."""

Weights = Mapping[str, Tensor]

MEMORY_NAMES = {
    "attn.trans_dims": "external_mea.query",
    "attn.linear_0": "external_mea.memory_key",
    "attn.linear_1": "external_mea.memory_value",
    "attn.proj": "external_mea.proj",
}
"""The published names of a block's external attention, and ours."""


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", torch.zeros(()))


def norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
    scaled = (x - mean) / (var + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def mlp(x: Tensor, weights: Weights, name: str) -> Tensor:
    return linear(F.gelu(linear(x, weights, f"{name}.fc1")), weights, f"{name}.fc2")


def memory(q: Tensor, weights: Weights, name: str) -> Tensor:
    """Softmax over tokens, division by the sum over slots: (..., N, K) to (..., N, K)."""
    maps = linear(q, weights, f"{name}.linear_0").softmax(-2)
    maps = maps / (1e-9 + maps.sum(-1, keepdim=True))
    return linear(maps, weights, f"{name}.linear_1")


def split(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Overlapping patches (B, N, C * kernel^2) of (B, C, Y, X), channels slowest."""
    x = F.pad(x, [padding] * 4)
    patches = x.unfold(2, kernel, stride).unfold(3, kernel, stride)
    return patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def published_forward(images: Tensor, weights: Weights, *, depth: int, num_heads: int) -> Tensor:
    """EAMLP's logits of weights by their published names."""
    x = split(images, 7, 4, 2)
    for number in (1, 2):
        name = f"tokens_to_token.attention{number}"
        q = linear(norm(x, weights, f"{name}.norm1"), weights, f"{name}.attn.q_linear")
        x = q + linear(memory(q, weights, f"{name}.attn"), weights, f"{name}.attn.proj")
        x = x + mlp(norm(x, weights, f"{name}.norm2"), weights, f"{name}.mlp")
        side = int(x.shape[1] ** 0.5)
        x = split(x.transpose(1, 2).unflatten(2, (side, side)), 3, 2, 1)
    x = linear(x, weights, "tokens_to_token.project")
    x = torch.cat([weights["cls_token"].repeat(len(x), 1, 1), x], 1) + weights["pos_embed"]
    for i in range(depth):
        name = f"blocks.{i}"
        q = linear(norm(x, weights, f"{name}.norm1"), weights, f"{name}.attn.trans_dims")
        heads = q.unflatten(-1, (4 * num_heads, -1)).transpose(1, 2)
        read = memory(heads, weights, f"{name}.attn").transpose(1, 2).flatten(2)
        x = x + linear(read, weights, f"{name}.attn.proj")
        x = x + mlp(norm(x, weights, f"{name}.norm2"), weights, f"{name}.mlp")
    return linear(norm(x, weights, "norm")[:, 0], weights, "head")


class SelfAttentionReference(nn.Module):
    """The published network with timm-like self-attention, run on its own weights."""

    def __init__(self) -> None:
        super().__init__()
        self.model = T2TViT(
            45, 2, 3, embed_dim=22, depth=5, num_heads=2, mlp_ratio=1.5, token_dim=7
        )

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, Tensor]:
        return self.model.state_dict()

    def forward(self, images: Tensor) -> Tensor:
        model = self.model
        x = model.tokens_to_token(images)
        x = torch.cat([model.cls_token.repeat(len(x), 1, 1), x], 1) + model.pos_embed
        for block in model.blocks:
            x = block(x)
        return model.head(model.norm(x)[:, 0])


def test_published_names_and_logits_of_external_attention() -> None:
    spec = NetworkSpec.parse(f"{TINY}: E5/s7/mea")
    network = contract.randomised(build(spec))
    weights = network.state_dict()
    for theirs, ours in MEMORY_NAMES.items():
        weights = {name.replace(ours, theirs): weight for name, weight in weights.items()}
    images = contract.random_images(spec.backbone)
    expected = published_forward(images, weights, depth=5, num_heads=2)
    torch.testing.assert_close(network(images), expected, rtol=1e-7, atol=1e-7)


def test_weights_of_self_attention_load_unchanged() -> None:
    contract.check_weights_of(SelfAttentionReference(), TINY, atol=1e-4)


@pytest.mark.parametrize(
    ("depth", "trainable", "total_m", "self_m", "gmacs", "self_gmacs"),
    [
        (7, 6_096_206, 6.147, 4.196, 1.465, 1.062),
        (14, 29_801_422, 29.877, 21.406, 6.450, 4.699),
        (19, 54_470_798, 54.559, 39.025, 11.598, 8.395),
    ],
)
def test_published_sizes(
    depth: int, trainable: int, total_m: float, self_m: float, gmacs: float, self_gmacs: float
) -> None:
    spec = NetworkSpec.parse(f"t2t_ea_{depth}: E{depth}/mea")
    model = CostModel(spec.backbone)
    cost = model.cost(spec.placement)
    assert cost.trainable_params == trainable
    assert round(cost.params / 1e6, 3) == total_m
    assert round(cost.matmul_macs / 1e9, 3) == gmacs
    vanilla = model.cost(Placement.parse(f"V{depth}"))
    assert round(vanilla.trainable_params / 1e6, 3) == self_m
    assert round(vanilla.matmul_macs / 1e9, 3) == self_gmacs
    with torch.device("meta"):
        network = build(spec)
    parameters = list(network.parameters())
    assert sum(p.numel() for p in parameters if p.requires_grad) == trainable
    assert sum(p.numel() for p in parameters) == cost.params
    assert matmul_macs(network) == cost.matmul_macs


@pytest.mark.parametrize("depth", [7, 10, 12, 14, 19, 24])
def test_sizes_by_name(depth: int) -> None:
    [stage] = describe(BackboneSpec(name=f"t2t_ea_{depth}")).stages
    width, ratio = {14: (384, 3), 19: (448, 3), 24: (512, 3)}.get(depth, (256, 2))
    assert (stage.max_depth, stage.embed_dim, stage.head_dim) == (depth, width, 64)
    assert stage.mlp_params == 2 * ratio * width**2 + (ratio + 1) * width
    assert (stage.num_tokens, stage.grid) == (197, (14, 14))
    assert not stage.qkv_bias


def test_memories_begin_as_copies_that_learn_on_their_own() -> None:
    model = T2TViT(45, embed_dim=22, depth=1, num_heads=2, token_dim=7)
    for block in (model.tokens_to_token.attention1, model.tokens_to_token.attention2):
        key, value = block.attn.linear_0.weight, block.attn.linear_1.weight
        assert torch.equal(key, value.t()) and key.data_ptr() != value.data_ptr()
        assert 0.01 < key.std() < 0.03


def test_positions_are_fixed_sinusoids() -> None:
    assert sinusoids(3, 5).shape == (1, 3, 5)
    # Position 2 on channels 0 to 4: rates 1, 1, 10000^-0.4, 10000^-0.4, 10000^-0.8.
    slow, slowest = 2 * 10_000**-0.4, 2 * 10_000**-0.8
    angles = torch.tensor([2.0, 2.0, slow, slow, slowest])
    expected = torch.stack(
        [angles[0].sin(), angles[1].cos(), angles[2].sin(), angles[3].cos(), angles[4].sin()]
    )
    torch.testing.assert_close(sinusoids(3, 5)[0, 2], expected)
    network = build(NetworkSpec.parse(f"{TINY}: V1"))
    assert torch.equal(network.pos_embed, sinusoids(10, 22))
    frozen = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert frozen == ["pos_embed"]


def test_stem_tokens_reset_as_the_backbone_initialises_them() -> None:
    network = build(NetworkSpec.parse("t2t_ea(embed_dim=222,depth=1,num_heads=2)@45: V1"))
    nn.init.ones_(network.cls_token)
    nn.init.ones_(network.pos_embed)
    network.reset_parameters()
    assert network.cls_token.std().item() == pytest.approx(0.02, rel=0.15)
    assert torch.equal(network.pos_embed, sinusoids(10, 222))


@pytest.mark.parametrize(
    "numbers", [range(7), pytest.param(range(7, 30), marks=pytest.mark.slow)], ids=len
)
def test_cost_of_random_placements(numbers: range) -> None:
    contract.check_referees(TINY, numbers)


def test_extraction_keeps_logits_and_what_is_frozen() -> None:
    contract.check_extraction(TINY, 12)


def test_gradients() -> None:
    contract.check_gradients(TINY, 8)


def test_interleaved_runs() -> None:
    contract.check_interleaved(TINY)


def test_a_size_without_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="has 5 blocks at 2 px, but needs"):
        describe(BackboneSpec.parse(TINY.replace("@45", "@2")))


def test_there_is_no_second_stage() -> None:
    network = build(NetworkSpec.parse(f"{TINY}: V1"))
    with pytest.raises(AssertionError, match="has one stage, but stage 1 was entered"):
        network.enter_stage(1, torch.zeros(1))
