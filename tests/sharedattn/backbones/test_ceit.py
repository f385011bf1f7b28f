"""CeiT against an independent writing of the published network, and its published figures."""

from __future__ import annotations

import contract
import pytest
import torch
from reference import (
    Weights,
    batch_norm,
    heads,
    layer_norm,
    linear,
    mlp,
    part,
    patches,
    with_statistics,
)
from torch import Tensor
from torch.nn import functional as F

from sharedattn.backbones import build, describe
from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.mechanisms import vanilla
from sharedattn.networks.network import Network
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement

TINY = (
    "ceit(embed_dim=22,depth=5,num_heads=2,patch_size=2,mlp_ratio=1.5,in_chans=2,num_classes=3)@23"
)
"""12 x 12 after the convolution, 6 x 6 pooled, 3 x 3 patches and a class token."""

D, H, M, L = 22, 2, 33, 5


def published_names(network: Network) -> dict[str, Tensor]:
    """The weights by the names of the published code."""
    renamed = {}
    for name, weight in network.state_dict().items():
        name = name.replace("patch_embed.", "i2t.").replace("lca.mlp", "lca.feedforward")
        renamed[name.replace(".mlp.", ".leff.")] = weight
    return renamed


def attend(q: Tensor, k: Tensor, v: Tensor, weights: Weights) -> Tensor:
    maps = (heads(q, H) @ heads(k, H).mT / (D / H) ** 0.5).softmax(-1)
    return linear((maps @ heads(v, H)).transpose(1, 2).flatten(2), part(weights, "proj"))


def locally_enhanced(x: Tensor, weights: Weights) -> Tensor:
    """Up, depthwise and down over patches (B, P, D), each with a batch norm."""
    grid = x.transpose(1, 2).unflatten(2, (3, 3))
    for i in (1, 2, 3):
        conv = part(weights, f"conv{i}")
        padding, groups = (1, M) if i == 2 else (0, 1)
        grid = F.conv2d(grid, conv["weight"], conv["bias"], padding=padding, groups=groups)
        grid = batch_norm(grid, part(weights, f"bn{i}"))
        grid = F.gelu(grid) if i < 3 else grid
    return grid.flatten(2).transpose(1, 2)


def published_forward(images: Tensor, weights: Weights, depth: int) -> Tensor:
    """Logits of so many layers, all vanilla."""
    stem = part(weights, "i2t")
    x = F.conv2d(images, stem["backbone.conv.weight"], stride=2, padding=3)
    x = F.max_pool2d(batch_norm(x, part(stem, "backbone.bn")), 3, stride=2, padding=1)
    x = patches(x, part(stem, "proj"))
    x = torch.cat([weights["cls_token"].repeat(len(x), 1, 1), x], 1) + weights["pos_embed"]
    class_tokens = []
    for i in range(depth):
        block = part(weights, f"blocks.{i}")
        normed = layer_norm(x, part(block, "norm1"))
        q, k, v = linear(normed, part(block, "attn.qkv")).split(D, dim=-1)
        x = x + attend(q, k, v, part(block, "attn"))
        token, rest = layer_norm(x, part(block, "norm2")).split([1, 9], dim=1)
        x = x + torch.cat([token, locally_enhanced(rest, part(block, "leff"))], 1)
        class_tokens.append(x[:, 0])
    # Our reading: a layer that is not there leaves its tokens alone.
    class_tokens += class_tokens[-1:] * (L - depth)
    lca = part(weights, "lca")
    x = torch.stack(class_tokens, 1) + weights["pos_layer_embed"]
    q, k, v = linear(layer_norm(x, part(lca, "norm1")), part(lca, "attn.qkv")).split(D, dim=-1)
    x = x[:, -1:] + attend(q[:, -1:], k, v, part(lca, "attn"))
    x = x + mlp(layer_norm(x, part(lca, "norm2")), part(lca, "feedforward"))
    return linear(layer_norm(x[:, 0], part(weights, "norm")), part(weights, "head"))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("depth", [5, 3, 1])
def test_logits_are_those_of_the_published_network(depth: int, fused: bool) -> None:
    network = build(NetworkSpec.parse(f"{TINY}: V{depth}"), fused=fused)
    with_statistics(contract.randomised(network))
    images = contract.random_images(network.backbone)
    expected = published_forward(images, published_names(network), depth)
    torch.testing.assert_close(network(images), expected, rtol=0, atol=1e-10)


def test_weights_have_the_published_names_but_for_three_modules() -> None:
    statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    pairs = ("weight", "bias")
    attention = ("norm1", "attn.qkv", "attn.proj", "norm2")
    block = {f"{name}.{leaf}" for name in attention for leaf in pairs}
    leff = {f"leff.conv{i}.{leaf}" for i in (1, 2, 3) for leaf in pairs}
    leff |= {f"leff.bn{i}.{leaf}" for i in (1, 2, 3) for leaf in statistics}
    feedforward = {f"feedforward.fc{i}.{leaf}" for i in (1, 2) for leaf in pairs}
    expected = {"cls_token", "pos_embed", "pos_layer_embed", "i2t.backbone.conv.weight"}
    expected |= {f"i2t.backbone.bn.{leaf}" for leaf in statistics}
    expected |= {f"{name}.{leaf}" for name in ("i2t.proj", "norm", "head") for leaf in pairs}
    expected |= {f"blocks.{i}.{name}" for i in range(2) for name in block | leff}
    expected |= {f"lca.{name}" for name in block | feedforward}
    assert set(published_names(build(NetworkSpec.parse(f"{TINY}: V2")))) == expected


def test_class_tokens_travel_behind_the_tokens_of_the_image() -> None:
    network = contract.randomised(build(NetworkSpec.parse(f"{TINY}: V3")))
    images = contract.random_images(network.backbone)
    tokens, state = network.begin(images)
    for index in range(3):
        tokens, state = network.layer(0, index).run(
            tokens, state, network.only_placement.layers[0]
        )
        assert tokens.shape == (3, 10 + index + 1, D)
        assert torch.equal(tokens[:, -1], tokens[:, 0])
    assert torch.equal(network.run(images).tokens, tokens)


def full_attention_over_class_tokens(depth: int, embed_dim: int) -> int:
    """What LCA costs more where every class token is a query and goes through the MLP."""
    one = vanilla.macs(1, embed_dim, num_keys=depth) + 8 * embed_dim**2
    return vanilla.macs(depth, embed_dim) + depth * 8 * embed_dim**2 - one


@pytest.mark.parametrize(
    ("name", "params", "matmul_macs", "printed", "printed_in_full"),
    [
        ("ceit_tiny", 6_356_904, 1_395_307_008, 1.40, 1.40),
        ("ceit_small", 24_204_840, 4_759_544_832, 4.76, 4.78),
    ],
)
def test_cost_of_published_networks(
    name: str, params: int, matmul_macs: int, printed: float, printed_in_full: float
) -> None:
    model = CostModel(BackboneSpec(name=name))
    cost = model.cost(Placement.all_vanilla([12]))
    width = model.shape.stages[0].embed_dim
    assert (cost.params, cost.matmul_macs) == (params, matmul_macs)
    assert round(cost.matmul_macs / 1e9, 2) == printed
    # The first published code, before LCA had a query alone.
    in_full = cost.matmul_macs + full_attention_over_class_tokens(12, width)
    assert round(in_full / 1e9, 2) == printed_in_full


def test_cost_by_hand() -> None:
    shape = describe(BackboneSpec.parse(TINY))
    [stage] = shape.stages
    assert (stage.num_tokens, stage.grid) == (10, (3, 3))
    assert stage.mlp_params == 2 * D * M + M + D + 10 * M + 2 * (M + M + D)
    assert stage.mlp_norm_macs == 2 * 9 * (M + M + D)
    assert stage.mlp_macs == 9 * (2 * D * M + 9 * M) + stage.mlp_norm_macs
    conv, bn, proj = 64 * 2 * 49, 2 * 64, 4 * 64 * D
    assert shape.stem_params == conv + bn + proj + D + D + 10 * D
    assert shape.stem_norm_macs == 2 * 144 * 64
    assert shape.stem_macs == 144 * conv + 9 * proj + shape.stem_norm_macs
    lca_macs = (2 + 2 * L) * D**2 + 2 * L * D + 2 * D * M
    lca_params = 4 * D**2 + 4 * D + 2 * D * M + D + M + 4 * D
    assert shape.head_norm_macs == 5 * D * (L + 1 + 1)
    assert shape.head_macs == lca_macs + 3 * D + shape.head_norm_macs
    assert shape.head_params == lca_params + L * D + 2 * D + 3 * D + 3


@pytest.mark.parametrize(
    ("size", "side"), [(21, 3), (22, 3), (24, 3), (25, 3), (26, 3), (29, 4), (32, 4), (9, 1)]
)
def test_the_grid_of_any_image_size(size: int, side: int) -> None:
    spec = NetworkSpec.parse(f"{TINY[:-2]}{size}: V1")
    network = contract.randomised(build(spec))
    assert network.shape.stages[0].grid == (side, side)
    assert network.shape.image_size == (size, size)
    assert network(contract.random_images(spec.backbone)).shape == (3, 3)


def test_an_image_without_patches_is_refused() -> None:
    with pytest.raises(
        InputError, match="and 0 patches, but needs one of each; raise the depth or"
    ):
        describe(BackboneSpec.parse(f"{TINY[:-2]}4"))


def test_stem_tokens_and_positions_are_reset() -> None:
    network = contract.randomised(build(NetworkSpec.parse(f"{TINY}: V1")))
    network.reset_parameters()
    assert network.pos_layer_embed.abs().max() == 0
    assert 0 < network.pos_embed.abs().max() < 0.1


def without_gradient(placement: Placement, name: str) -> bool:
    """The MLP of the last layer, unless broadcasting or a gate takes its mean over tokens.

    The head sees class tokens alone, and a class token passes an MLP by.
    """
    last = placement.layers[-1]
    in_last_mlp = name.startswith(f"blocks.{len(placement.layers) - 1}.mlp.")
    return in_last_mlp and not last.cb and last.gate is None


def test_gradients() -> None:
    contract.check_gradients(TINY, 8, without_gradient=without_gradient)


def test_in_training_biases_before_batch_norms_have_no_gradient() -> None:
    # A batch norm subtracts the mean of each channel, and with it the bias.
    placement = Placement.parse("V2/cb")
    network = contract.randomised(build(NetworkSpec(BackboneSpec.parse(TINY), placement))).train()
    (network(contract.random_images(network.backbone)) ** 2).sum().backward()
    for name, parameter in network.named_parameters():
        dead = ".mlp.conv" in name and name.endswith("bias")
        assert (parameter.grad.abs().max() < 1e-9) == dead, name


@pytest.mark.parametrize(
    "numbers", [range(7), pytest.param(range(7, 30), marks=pytest.mark.slow)], ids=len
)
def test_referees(numbers: range) -> None:
    contract.check_referees(TINY, numbers)


def test_shared_and_extracted_weights() -> None:
    contract.check_extraction(TINY, 12)


def test_interleaved_runs() -> None:
    contract.check_interleaved(TINY)


@pytest.mark.slow
def test_a_stand_alone_network_compiles_whole() -> None:
    network = contract.randomised(build(NetworkSpec.parse(f"{TINY}: V1L1E1/s3/dia1/cb")))
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    images = contract.random_images(network.backbone)
    torch.testing.assert_close(compiled(images), network(images))
