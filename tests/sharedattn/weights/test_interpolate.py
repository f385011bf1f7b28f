"""Networks at another image size: the maps' properties, position parameters, and refusals."""

from __future__ import annotations

import math

import contract
import pytest
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from sharedattn.backbones import build, build_network
from sharedattn.errors import InputError
from sharedattn.mechanisms.less import LowRankMaps, TokenMaps
from sharedattn.networks.network import Network
from sharedattn.placement import BackboneSpec, Envelope, NetworkSpec, Placement
from sharedattn.weights.interpolate import at_image_size, resampling

TINY = (
    "vit(embed_dim=22,depth=5,num_heads=2,patch_size=5,mlp_ratio=1.5,reg_tokens=2,num_classes=3)"
)
"""Three prefix tokens, on 3 x 3 patches at 15 px and 5 x 5 at 25 px."""

PREFIX, OLD, NEW = 3, 3, 5


def network_at_15(text: str) -> Network:
    network = build(NetworkSpec.parse(f"{TINY}@15: {text}")).double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def kernel(side: int, width: float) -> Tensor:
    """A smooth translation-invariant map over a grid of the unit square, (N, N).

    Its row sums are those of an integral, whatever the number of tokens.
    """
    centres = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    grid = torch.cartesian_prod(centres, centres)
    return (-torch.cdist(grid, grid).square() / (2 * width**2)).exp() / side**2


@pytest.mark.parametrize(("old", "new"), [((3, 5), (7, 11)), ((7, 11), (3, 5)), ((5, 3), (4, 7))])
def test_resampling_leaves_prefix_tokens_and_equal_tokens_alone(
    old: tuple[int, int], new: tuple[int, int]
) -> None:
    resample = resampling(2, old, new)
    assert resample.shape == (2 + math.prod(new), 2 + math.prod(old))
    torch.testing.assert_close(resample.sum(1), torch.ones(len(resample), dtype=torch.float64))
    assert torch.equal(resample[:2, :2], torch.eye(2, dtype=torch.float64))
    assert not resample[:2, 2:].any() and not resample[2:, :2].any()


def test_resampling_is_timms_of_position_embeddings() -> None:
    positions = torch.randn(1, 2 + 15, 11, dtype=torch.float64)
    expected = resample_abs_pos_embed(positions, [7, 4], [5, 3], num_prefix_tokens=2)
    resampled = resampling(2, (5, 3), (7, 4)) @ positions
    torch.testing.assert_close(resampled, expected, rtol=0, atol=1e-6)  # timm's is in float32


def test_an_equal_grid_is_the_identity() -> None:
    assert torch.equal(resampling(1, (3, 5), (3, 5)), torch.eye(16, dtype=torch.float64))


@pytest.mark.parametrize(("old", "new"), [(14, 21), (21, 14), (11, 13)])
def test_a_smooth_translation_invariant_map_is_the_same_on_every_grid(old: int, new: int) -> None:
    there = resampling(0, (old, old), (new, new))
    back = resampling(0, (new, new), (old, old))
    resampled = there @ kernel(old, 0.25) @ back
    error = (resampled - kernel(new, 0.25)).norm() / kernel(new, 0.25).norm()
    assert error.item() < 0.04
    # Not so without the change of the columns' scale: a token stands for less of the image.
    unscaled = there @ kernel(old, 0.25) @ there.t()
    assert (unscaled - kernel(new, 0.25)).norm() / kernel(new, 0.25).norm() > 0.2


def test_maps_become_their_resampled_difference() -> None:
    network = network_at_15("V,L/full,L/keys,L/lowrank2,L/reuse")
    larger = at_image_size(network, 25)
    there, back = (resampling(PREFIX, (a, a), (b, b)) for a, b in ((OLD, NEW), (NEW, OLD)))
    for index, form in ((1, "less"), (2, "less_keys")):
        old, new = (getattr(n.blocks[index], form) for n in (network, larger))
        assert isinstance(new, TokenMaps)
        for name, weight in new.named_parameters():
            assert weight.shape == (PREFIX + NEW**2,) * 2
            torch.testing.assert_close(weight, there @ getattr(old, name) @ back)
    assert larger.blocks[2].less_keys.psi is None
    old, new = network.blocks[3].less_lowrank2, larger.blocks[3].less_lowrank2
    assert isinstance(new, LowRankMaps)
    for side in ("psi", "theta"):
        difference = getattr(old, f"{side}_up") @ getattr(old, f"{side}_down")
        resampled = getattr(new, f"{side}_up") @ getattr(new, f"{side}_down")
        torch.testing.assert_close(resampled, there @ difference @ back)


def test_row_sums_of_the_differences_are_kept() -> None:
    """Equal tokens are mapped to what they were: a row sum is resampled, not scaled."""
    network = network_at_15("V1L1")
    nn.init.normal_(network.blocks[1].less.theta)
    theta = network.blocks[1].less.theta
    theta.data -= theta.mean(1, keepdim=True) - 0.25 / len(theta)  # each row sums to 1/4
    resampled = at_image_size(network, 25).blocks[1].less.theta
    torch.testing.assert_close(resampled.sum(1), torch.full((28,), 0.25, dtype=torch.float64))
    # The class token's part of a row is its own: what it takes of itself stays.
    torch.testing.assert_close(resampled[:PREFIX, :PREFIX], theta[:PREFIX, :PREFIX])
    torch.testing.assert_close(resampled[:PREFIX, PREFIX:].sum(1), theta[:PREFIX, PREFIX:].sum(1))


def test_an_equal_size_is_the_identity() -> None:
    network = network_at_15("V1L1E1L1/keys/s3/dia1/cb")
    same = at_image_size(network, 15)
    assert same.state_dict().keys() == network.state_dict().keys()
    for name, weight in network.state_dict().items():
        assert torch.equal(same.state_dict()[name], weight), name
        assert same.state_dict()[name].data_ptr() != weight.data_ptr()
    images = torch.randn(2, 3, 15, 15, dtype=torch.float64)
    assert torch.equal(same(images), network(images))


def test_plain_reuse_stays_plain_reuse() -> None:
    spec = NetworkSpec.parse(f"{TINY}@15: V,L/full,L/lowrank2")
    larger = at_image_size(build(spec), 25)
    assert not larger.blocks[1].less.psi.any() and not larger.blocks[1].less.theta.any()
    assert not larger.blocks[2].less_lowrank2.psi_up.any()


def test_positions_are_resampled_and_all_else_is_copied() -> None:
    network = network_at_15("V1L1E1/s3/dia1/cb")
    larger = at_image_size(network, 25)
    expected = resample_abs_pos_embed(network.pos_embed, [5, 5], [3, 3], num_prefix_tokens=PREFIX)
    assert torch.equal(larger.pos_embed, expected)
    followed = {"pos_embed", "blocks.1.less.psi", "blocks.1.less.theta"}
    for name, weight in larger.state_dict().items():
        if name not in followed:
            assert torch.equal(weight, network.state_dict()[name]), name
    images = torch.randn(2, 3, 25, 25, dtype=torch.float64)
    assert larger(images).shape == (2, 3)
    assert (larger.shape.image_size, larger.backbone.image_size) == ((25, 25), 25)


def test_positions_of_patches_alone() -> None:
    text = TINY.replace("reg_tokens=2", "reg_tokens=2,no_embed_class=true")
    network = build(NetworkSpec.parse(f"{text}@15: V1"))
    larger = at_image_size(network, 25)
    expected = resample_abs_pos_embed(network.pos_embed, [5, 5], [3, 3], num_prefix_tokens=0)
    assert torch.equal(larger.pos_embed, expected) and expected.shape == (1, 25, 22)


def test_fixed_positions_are_made_anew() -> None:
    text = "t2t_ea(embed_dim=22,depth=2,num_heads=2,token_dim=7,num_classes=3)"
    network, larger = (build(NetworkSpec.parse(f"{text}@{size}: V1L1")) for size in (45, 64))
    resampled = at_image_size(network, 64)
    assert torch.equal(resampled.pos_embed, larger.pos_embed)
    assert not resampled.pos_embed.requires_grad and resampled.cls_token.requires_grad


def test_relative_positions_of_windows() -> None:
    text = (
        "swin(embed_dim=22,depths=2-2,num_heads=2-2,window_size=3-3,patch_size=2,num_classes=3)"
        "@{}: V2 | V1L1"
    )
    # Windows of 3 x 3, but of 2 x 2 where the grid is no larger.
    network = build(NetworkSpec.parse(text.format(8))).eval()
    assert [stage.attention.key_grid for stage in network.shape.stages] == [(3, 3), (2, 2)]
    larger = at_image_size(network, 12)
    assert [stage.attention.key_grid for stage in larger.shape.stages] == [(3, 3), (3, 3)]
    name = "layers.{}.blocks.0.attn.relative_position_bias_table"
    old, new = network.state_dict(), larger.state_dict()
    assert torch.equal(new[name.format(0)], old[name.format(0)])
    table, resampled = old[name.format(1)], new[name.format(1)]
    assert (table.shape, resampled.shape) == ((9, 2), (25, 2))
    # The bias of a token on itself stays, and what lies to its left stays to its left.
    torch.testing.assert_close(resampled[12], table[4])
    assert torch.equal((resampled[11] > table[4]), table[3] > table[4])
    assert larger(torch.randn(2, 3, 12, 12)).isfinite().all()


@pytest.mark.parametrize(
    "text",
    [
        "ceit(depth=2,embed_dim=14,num_heads=2,patch_size=1)@{}: V1L1",
        "deepvit(depth=2,embed_dim=14,num_heads=2,patch_size=4)@{}: V1L1",
        "pvt(depths=2-2,embed_dims=6-10,mlp_ratios=2-1,num_heads=1-2,sr_ratios=2-1)@{}: "
        "V1L1 | V1L1",
        "pvt_v2(depths=2-2,embed_dims=6-10,mlp_ratios=2-1,num_heads=1-2,sr_ratios=2-1)@{}: "
        "V1L1 | V1L1",
        "swin(depths=1-3,embed_dim=6,num_heads=1-2,patch_size=2,window_size=2-5)@{}: V1 | V1N1L1",
        "t2t_ea(depth=2,embed_dim=14,num_heads=2,token_dim=5)@{}: V1L1",
    ],
)
def test_every_family_on_grids_can_be_resampled(text: str) -> None:
    network = contract.randomised(build(NetworkSpec.parse(text.format(16))))
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert torch.equal(at_image_size(network, 16)(images), network(images))
    larger = at_image_size(network, 32)
    made = contract.randomised(build(NetworkSpec.parse(text.format(32))))
    assert larger.shape == made.shape
    assert {name: w.shape for name, w in larger.state_dict().items()} == {
        name: w.shape for name, w in made.state_dict().items()
    }
    assert larger(images.repeat(1, 1, 2, 2)).isfinite().all()
    changed = [
        n for n, w in network.state_dict().items() if w.shape != larger.state_dict()[n].shape
    ]
    assert any("less" in name for name in changed)


def test_supernets_are_resampled_whole() -> None:
    backbone = BackboneSpec.parse(f"{TINY}@15")
    placements = [Placement.parse(text) for text in ("V1L1/keys", "V2", "V1L1E1/s3")]
    supernet = build_network(backbone, Envelope.of(*placements)).eval()
    larger = at_image_size(supernet, 25)
    assert larger.envelope == supernet.envelope
    for placement in placements:
        assert larger(torch.randn(2, 3, 25, 25), placement).isfinite().all()


def test_mode_dtype_options_and_random_numbers_stay() -> None:
    spec = NetworkSpec.parse(f"{TINY}@15: V1L1")
    network = build(spec, fused=False, drop_path_rate=0.3).double()
    network.grad_checkpointing = True
    state = torch.get_rng_state()
    larger = at_image_size(network, 25)
    assert torch.equal(torch.get_rng_state(), state)
    assert larger.training and not at_image_size(network.eval(), 25).training
    assert (larger.fused, larger.drop_path_rate, larger.grad_checkpointing) == (False, 0.3, True)
    assert {weight.dtype for weight in larger.parameters()} == {torch.float64}
    assert all(weight.requires_grad for weight in larger.parameters())


def test_there_and_back_is_near_where_it_began() -> None:
    spec = NetworkSpec.parse("vit(embed_dim=22,depth=2,num_heads=2,patch_size=2)@22: V1L1")
    network = build(spec).double().eval()
    nn.init.zeros_(network.blocks[1].less.psi)
    theta = network.blocks[1].less.theta
    theta.data[1:, 1:] = kernel(11, 0.25)
    back = at_image_size(at_image_size(network, 34), 22).blocks[1].less.theta
    assert ((back - theta).norm() / theta.norm()).item() < 0.05


@pytest.mark.parametrize("image_size", [25, 17])
def test_images_of_another_size_are_refused(image_size: int) -> None:
    network = network_at_15("V1L1")
    images = torch.randn(1, 3, image_size, 15, dtype=torch.float64)
    with pytest.raises(InputError, match=f"has {image_size} x 15 pixels, but .* takes 15 x 15"):
        network(images)


def test_a_size_at_which_windows_are_shifted_and_less_attention_has_no_scores() -> None:
    text = "swin(embed_dim=22,depths=2-2,num_heads=2-2,window_size=3-3,patch_size=2)@6"
    network = build(NetworkSpec.parse(f"{text}: V1L1 | V1"))
    with pytest.raises(InputError, match="reuses the scores of a layer of equal shift before"):
        at_image_size(network, 12)


def test_pooled_tokens_without_a_grid_are_refused() -> None:
    text = "hvt(depth=4,embed_dim=14,num_heads=2,patch_size=4,pool_block_width=2)@16: V1 | V1 | V1"
    with pytest.raises(
        InputError, match=r"stage_pos_embeds.0 cannot be resampled from \(1, 7, 14\) at 16 px to"
    ):
        at_image_size(build(NetworkSpec.parse(text)), 32)


RESIDUAL = "attention_residual=true,depths=1-1,embed_dims=4-8,mlp_ratios=1-1,num_heads=1-2"


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        # Keys on 2 x 2 and 1 x 1, then on 2 x 2 and 2 x 2: no kernel any more.
        (
            f"pvt_v2({RESIDUAL},sr_ratios=3-2)@24: V1|V1",
            32,
            "into stage 2 by 2 and 2 at 24 px, but by 2 and 1 at 32 px; choose a size at which",
        ),
        # Tokens on 2 x 2 and 1 x 1, then on 3 x 3 and 1 x 1: a larger kernel.
        (
            f"pvt({RESIDUAL},sr_ratios=1-1)@8: V1|V1",
            12,
            "into stage 2 by 2 and 2 at 8 px, but by 3 and 3 at 12 px; choose a size at which",
        ),
    ],
)
def test_a_size_at_which_the_attention_residual_pools_otherwise(
    text: str, size: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        at_image_size(build(NetworkSpec.parse(text)), size)


def test_an_attention_residual_at_a_size_of_equal_ratios() -> None:
    text = f"pvt({RESIDUAL},sr_ratios=1-1)@8: V1|V1"
    network = contract.randomised(build(NetworkSpec.parse(text)))
    larger = at_image_size(network, 16)
    for name, weight in network.residuals.named_parameters():
        assert torch.equal(larger.residuals.get_parameter(name), weight)
    assert larger(torch.randn(2, 3, 16, 16, dtype=torch.float64)).isfinite().all()


def test_a_weight_that_cannot_be_resampled() -> None:
    text = "vit(embed_dim=22,depth=1,num_heads=2)@{}: V1"
    network, larger = (build(NetworkSpec.parse(text.format(size))) for size in (32, 64))
    rule = r"pos_embed .* from \(1, 5, 22\) at 32 px to \(1, 17, 22\) at 64 px; choose a size"
    with pytest.raises(InputError, match=rule):
        Network.resample_position(network, "pos_embed", network.pos_embed, larger)


def test_a_size_at_which_the_maps_are_too_large() -> None:
    with pytest.raises(InputError, match="at most 2,097,152.* write /lowrank16 or /reuse"):
        at_image_size(build(NetworkSpec.parse(f"{TINY}@15: V1L1")), 200)
