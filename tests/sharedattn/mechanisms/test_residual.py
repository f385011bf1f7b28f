"""The attention residual against pooled scores written out, and in networks of several stages."""

from __future__ import annotations

import itertools

import contract
import pytest
import torch
from torch import Tensor, nn

from sharedattn.backbones import build, describe, resolve
from sharedattn.errors import InputError
from sharedattn.mechanisms import residual
from sharedattn.mechanisms.residual import AttentionResidual
from sharedattn.mechanisms.scores import Scores
from sharedattn.networks.network import Network
from sharedattn.placement import BackboneSpec, LayerChoice, NetworkSpec, Placement
from sharedattn.shape import AttentionShape, StageShape

NUMBERS = "embed_dims=6-10-14,num_heads=3-2-1,sr_ratios=2-1-1,mlp_ratios=1-1-1,in_chans=2"
PYRAMIDS = {
    # Grids of 12, 6 and 3 tokens a side, of 6, 6 and 3 keys; a class token in PVT's last stage.
    name: f"{name}(attention_residual=true,depths=2-3-2,{NUMBERS},num_classes=3)@48"
    for name in ("pvt_v2", "pvt")
}


def stage_shape(
    grid: tuple[int, int],
    key_grid: tuple[int, int],
    num_heads: int,
    *,
    prefix: int,
    windows: int = 1,
) -> StageShape:
    N = grid[0] * grid[1] + prefix
    M = key_grid[0] * key_grid[1] + prefix
    return StageShape(
        max_depth=1,
        num_tokens=N,
        num_prefix_tokens=prefix,
        grid=grid,
        embed_dim=num_heads * 5,
        num_heads=num_heads,
        attention=AttentionShape(
            num_windows=windows, num_queries=N, num_keys=M, key_grid=key_grid
        ),
        mlp_params=0,
        mlp_macs=0,
        qkv_bias=True,
        proj_bias=True,
        layer_scale=False,
    )


# Rows and columns differ, so that neither can stand for the other.
SHAPES = {
    "both grids": (
        stage_shape((4, 6), (4, 6), 3, prefix=0),
        stage_shape((2, 3), (2, 3), 2, prefix=1),
    ),
    "by different ratios": (
        stage_shape((6, 9), (2, 6), 2, prefix=1),
        stage_shape((2, 3), (1, 3), 3, prefix=0),
    ),
    "queries alone": (
        stage_shape((4, 6), (2, 3), 3, prefix=0),
        stage_shape((2, 3), (2, 3), 5, prefix=0),
    ),
    "neither": (
        stage_shape((2, 3), (2, 3), 3, prefix=2),
        stage_shape((2, 3), (2, 3), 2, prefix=1),
    ),
}


def randomised(module: AttentionResidual) -> AttentionResidual:
    module = module.double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def cell(token: int, prefix: int, columns: int, ratio: int) -> tuple[int, int, int] | None:
    """The pooled token that a token goes to, with row and column in the kernel; None: nowhere."""
    if token < prefix:
        return None
    y, x = divmod(token - prefix, columns)
    return (y // ratio) * (columns // ratio) + x // ratio, y % ratio, x % ratio


def written_out(
    module: AttentionResidual, scores_BGNM: Tensor, before: StageShape, stage: StageShape
) -> Tensor:
    """The residual by its sums over the scores themselves."""
    B, G, N, M = scores_BGNM.shape
    r, s = residual.pooling_ratios(before, stage)
    old, new = before.num_prefix_tokens, stage.num_prefix_tokens
    one = torch.ones(G, 1, 1, dtype=torch.float64)
    over_queries = one if module.query_pool is None else module.query_pool
    over_keys = one if module.key_pool is None else module.key_pool
    sizes = stage.attention
    out = torch.zeros(B, stage.num_heads, sizes.num_queries, sizes.num_keys, dtype=torch.float64)
    for n, m in itertools.product(range(N), range(M)):
        query = cell(n, old, before.grid[1], r)
        key = cell(m, old, before.attention.key_grid[1], s)
        if query is None or key is None:
            continue
        weight_G = over_queries[:, query[1], query[2]] * over_keys[:, key[1], key[2]]
        out[:, :, new + query[0], new + key[0]] += (
            scores_BGNM[:, :, n, m] * weight_G
        ) @ module.mix.T
    return out


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("bias", ["none", "of all images", "of each image"])
def test_equal_to_pooled_scores_written_out(name: str, bias: str) -> None:
    before, stage = SHAPES[name]
    sizes, G = before.attention, before.num_heads
    N, M = sizes.num_queries, sizes.num_keys
    q = torch.randn(3, G, N, 5, dtype=torch.float64)
    k = torch.randn(3, G, M, 5, dtype=torch.float64)
    biases = {"none": None, "of all images": torch.randn(G, N, M, dtype=torch.float64)}
    biases["of each image"] = torch.randn(3, G, N, M, dtype=torch.float64)
    scores = Scores(q, k, 0.7, biases[bias])
    module = randomised(AttentionResidual(before, stage))
    with torch.no_grad():
        expected = written_out(module, scores.explicit(), before, stage)
        torch.testing.assert_close(module(scores), expected, rtol=0, atol=1e-12)
    assert expected.shape[-2:] == (stage.attention.num_queries, stage.attention.num_keys)
    prefix = stage.num_prefix_tokens
    assert not expected[..., :prefix, :].any() and not expected[..., :prefix].any()


@pytest.mark.parametrize("name", SHAPES)
def test_params_and_macs_by_their_terms(name: str) -> None:
    before, stage = SHAPES[name]
    module = AttentionResidual(before, stage)
    assert residual.params(before, stage) == sum(p.numel() for p in module.parameters())
    # Queries 4 x 6 -> 2 x 3 of 3 heads with 5 channels, keys likewise, to 2 heads.
    if name == "both grids":
        terms = 4 * 6 * 15 + 4 * 6 * 15 + 6 * 6 * 15 + 3 * 2 * 6 * 6
        assert residual.macs(before, stage, has_bias=False) == terms
        bias = 4 * 6 * 24 * 3 + 4 * 6 * 6 * 3
        assert residual.macs(before, stage, has_bias=True) == terms + bias


def test_begins_as_nothing_and_is_reset_to_it() -> None:
    before, stage = SHAPES["by different ratios"]
    module = AttentionResidual(before, stage)
    trained = randomised(AttentionResidual(before, stage))
    trained.reset_parameters()
    for one in (module, trained):
        assert not one.mix.any()
        assert torch.equal(one.query_pool, torch.full_like(one.query_pool, 1 / 9))
        assert torch.equal(one.key_pool, torch.full_like(one.key_pool, 1 / 4))


def test_grids_and_windows_that_do_not_pool() -> None:
    stage = SHAPES["both grids"][1]
    with pytest.raises(ValueError, match="a grid of 5 x 6 does not pool to 2 x 3"):
        AttentionResidual(stage_shape((5, 6), (5, 6), 3, prefix=0), stage)
    with pytest.raises(ValueError, match="a grid of 4 x 3 does not pool to 2 x 3"):
        AttentionResidual(stage_shape((4, 6), (4, 3), 3, prefix=0), stage)
    with pytest.raises(ValueError, match="scores of windows have no grid over the image"):
        AttentionResidual(stage_shape((4, 6), (4, 6), 3, prefix=0, windows=2), stage)


def network_of(name: str, placement: str) -> Network:
    return contract.randomised(build(NetworkSpec.parse(f"{PYRAMIDS[name]}: {placement}")))


@pytest.mark.parametrize("name", PYRAMIDS)
def test_a_new_network_is_one_without_residual(name: str) -> None:
    placement = "V1L1 | V1E1/s3 | V1L1"
    network = network_of(name, placement)
    plain_text = PYRAMIDS[name].replace("attention_residual=true,", "")
    plain = build(NetworkSpec.parse(f"{plain_text}: {placement}")).double().eval()
    weights = network.state_dict()
    plain.load_state_dict({n: w for n, w in weights.items() if not n.startswith("residuals")})
    x = contract.random_images(network.backbone)
    with torch.no_grad():
        assert not torch.allclose(network(x), plain(x))
        for module in network.residuals.values():
            module.reset_parameters()
        torch.testing.assert_close(network(x), plain(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", PYRAMIDS)
def test_every_vanilla_layer_takes_it_and_less_layers_map_it(name: str) -> None:
    network = network_of(name, "V2 | V1L1V1 | V1")
    vanilla, less = (LayerChoice(letter) for letter in "VL")
    with torch.no_grad():
        start = network.begin(contract.random_images(network.backbone))
        first = network.layer(0, 1).run(*network.layer(0, 0).run(*start, vanilla), vanilla)
        handed_on = network.residuals["1"](first[1].values["scores", 0])
        entered = network.enter_stage(1, network.leave_stage(0, first[0]))
        second = network.layer(1, 0).run(*first, vanilla)
        expected = own_scores(network, 1, 0, entered) + handed_on
        torch.testing.assert_close(second[1].values["scores", 0].explicit(), expected)
        third = network.layer(1, 1).run(*second, less)
        maps = network.block(1, 1).less
        psi, theta = (maps.psi + torch.eye(36), maps.theta + torch.eye(36))
        torch.testing.assert_close(
            third[1].values["scores", 0].explicit(), psi @ expected @ theta.T
        )
        last = network.layer(1, 2).run(*third, vanilla)
        expected = own_scores(network, 1, 2, third[0]) + handed_on
        torch.testing.assert_close(last[1].values["scores", 0].explicit(), expected)


def own_scores(network: Network, stage: int, index: int, tokens: Tensor) -> Tensor:
    """What a vanilla layer makes of its tokens, without residual."""
    block = network.block(stage, index)
    scores, _ = block.attn.scores_and_values(block.norm1(tokens))
    explicit: Tensor = scores.explicit()
    return explicit


@pytest.mark.parametrize("name", PYRAMIDS)
def test_fused_and_explicit_attention_agree(name: str) -> None:
    network = network_of(name, "V1L1 | V1L1V1 | V1L1")
    x = contract.random_images(network.backbone)
    with torch.no_grad():
        explicit = network.run(x, collect={"attention"}).logits
        torch.testing.assert_close(network(x), explicit, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", PYRAMIDS)
def test_no_difference_from_either_referee(name: str) -> None:
    contract.check_referees(PYRAMIDS[name], range(5))


def test_shared_and_extracted_weights_give_equal_logits() -> None:
    contract.check_extraction(PYRAMIDS["pvt_v2"], 3)


@pytest.mark.parametrize("name", PYRAMIDS)
def test_gradient_reaches_it(name: str) -> None:
    contract.check_gradients(PYRAMIDS[name], 7, measured=_reads_the_last_residual)


def _reads_the_last_residual(placement: Placement) -> bool:
    """Whether something reads what the last stage's residual changes.

    The class token of PVT, which alone is classified, has no residual. It meets the patches that
    have one in the stage's next layer, by a broadcast, or by a gate.
    """
    last = placement.stages[-1]
    first = next(i for i, layer in enumerate(last) if layer.branch.adds_residual)
    meets = [layer.cb or layer.gate is not None for layer in last]
    return meets[first] or any(
        meets[i] or last[i].branch.attends for i in range(first + 1, len(last))
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deit_tiny_patch16_224", "pools scores from stage to stage, but there is one"),
        (
            "pvt_v2_b0@248",
            "but a grid of 31 x 31 does not pool to 16 x 16; leave it out, or choose",
        ),
        ("swin_tiny_patch4_window7_224", "but scores of windows have no grid over the image"),
    ],
)
def test_backbones_without_it(text: str, message: str) -> None:
    name, _, size = text.partition("@")
    backbone = f"{name}(attention_residual=true)" + (f"@{size}" if size else "")
    with pytest.raises(InputError, match=f"attention_residual.*{message}"):
        describe(BackboneSpec.parse(backbone))


def test_a_stage_without_scores_is_refused() -> None:
    spec = NetworkSpec.parse(f"{PYRAMIDS['pvt']}: V1 | E1/s3 | V1")
    message = "stage 2 .* has no V.*put one there"
    for refusing in (resolve, build):
        with pytest.raises(InputError, match=message):
            refusing(spec)
