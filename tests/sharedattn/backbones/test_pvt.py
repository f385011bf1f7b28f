"""PVT of the first version, against a forward written from its description."""

from __future__ import annotations

import contract
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sharedattn.backbones import build, canonical, describe, resolve
from sharedattn.backbones.family import resample_positions
from sharedattn.backbones.pvt import PyramidVisionTransformer
from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement
from sharedattn.weights.interpolate import at_image_size

HEADS, RATIOS = (1, 2, 1, 2), (3, 2, 2, 1)
KEYWORDS = (
    "depths=2-3-1-2,embed_dims=6-10-14-22,num_heads=1-2-1-2,sr_ratios=3-2-2-1,"
    "mlp_ratios=1.5-2-1-1.5,in_chans=2,num_classes=3"
)
TINY = f"pvt({KEYWORDS})@84"


def published_forward(
    weights: dict[str, Tensor], heads: tuple[int, ...], ratios: tuple[int, ...], x: Tensor
) -> Tensor:
    """PVT as its paper and code describe it, on a state dict; epsilons are those of the code."""

    def linear(name: str, tokens: Tensor) -> Tensor:
        return F.linear(tokens, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def norm(name: str, tokens: Tensor, eps: float) -> Tensor:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.layer_norm(tokens, weight.shape, weight, bias, eps)

    def patches(name: str, grid: Tensor, size: int) -> Tensor:
        return F.conv2d(grid, weights[f"{name}.weight"], weights[f"{name}.bias"], stride=size)

    def split(tokens: Tensor, num_heads: int) -> Tensor:
        return tokens.unflatten(-1, (num_heads, -1)).transpose(1, 2)

    for i, (num_heads, ratio) in enumerate(zip(heads, ratios, strict=True), start=1):
        grid = patches(f"patch_embed{i}.proj", x, 4 if i == 1 else 2)
        tokens = norm(f"patch_embed{i}.norm", grid.flatten(2).mT, 1e-5)
        if i == len(heads):
            tokens = torch.cat([weights["cls_token"].expand(len(x), -1, -1), tokens], 1)
        tokens = tokens + weights[f"pos_embed{i}"]
        layer = 0
        while f"block{i}.{layer}.norm1.weight" in weights:
            name = f"block{i}.{layer}"
            normed = norm(f"{name}.norm1", tokens, 1e-6)
            keyed = normed
            if ratio > 1:
                reduced = patches(f"{name}.attn.sr", normed.mT.unflatten(2, grid.shape[2:]), ratio)
                keyed = norm(f"{name}.attn.norm", reduced.flatten(2).mT, 1e-5)
            q = split(linear(f"{name}.attn.q", normed), num_heads)
            k, v = linear(f"{name}.attn.kv", keyed).chunk(2, -1)
            scores = q @ split(k, num_heads).mT / q.shape[-1] ** 0.5
            mixed = (scores.softmax(-1) @ split(v, num_heads)).transpose(1, 2).flatten(2)
            tokens = tokens + linear(f"{name}.attn.proj", mixed)
            hidden = F.gelu(linear(f"{name}.mlp.fc1", norm(f"{name}.norm2", tokens, 1e-6)))
            tokens = tokens + linear(f"{name}.mlp.fc2", hidden)
            layer += 1
        x = tokens.mT.unflatten(2, grid.shape[2:]) if i < len(heads) else tokens
    return linear("head", norm("norm", x, 1e-6)[:, 0])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_equal_to_the_published_forward(qkv_bias: bool, fused: bool) -> None:
    text = TINY.replace("depths", f"qkv_bias={str(qkv_bias).lower()},depths")
    network = contract.randomised(
        build(NetworkSpec.parse(f"{text}: V2 | V3 | V1 | V2"), fused=fused)
    )
    x = contract.random_images(network.backbone)
    with torch.no_grad():
        expected = published_forward(network.state_dict(), HEADS, RATIOS, x)
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-9)


def test_the_published_names_and_shapes() -> None:
    network = build(NetworkSpec.parse("pvt_tiny: V2 | V2 | V2 | V2"))
    shapes = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    block = {
        "norm1.weight": (64,),
        "norm1.bias": (64,),
        "attn.q.weight": (64, 64),
        "attn.q.bias": (64,),
        "attn.kv.weight": (128, 64),
        "attn.kv.bias": (128,),
        "attn.proj.weight": (64, 64),
        "attn.proj.bias": (64,),
        "attn.sr.weight": (64, 64, 8, 8),
        "attn.sr.bias": (64,),
        "attn.norm.weight": (64,),
        "attn.norm.bias": (64,),
        "norm2.weight": (64,),
        "norm2.bias": (64,),
        "mlp.fc1.weight": (512, 64),
        "mlp.fc1.bias": (512,),
        "mlp.fc2.weight": (64, 512),
        "mlp.fc2.bias": (64,),
    }
    found = {
        name.removeprefix("block1.1."): shape
        for name, shape in shapes.items()
        if name.startswith("block1.1.")
    }
    assert found == block
    assert not any(name.startswith(("block4.0.attn.sr", "block4.0.attn.norm")) for name in shapes)
    around = {name: shape for name, shape in shapes.items() if not name.startswith("block")}
    for i, (tokens, D, C, P) in enumerate(
        [(3136, 64, 3, 4), (784, 128, 64, 2), (196, 320, 128, 2), (50, 512, 320, 2)], start=1
    ):
        assert around.pop(f"pos_embed{i}") == (1, tokens, D)
        assert around.pop(f"patch_embed{i}.proj.weight") == (D, C, P, P)
        for name in ("proj.bias", "norm.weight", "norm.bias"):
            assert around.pop(f"patch_embed{i}.{name}") == (D,)
    assert around == {
        "cls_token": (1, 1, 512),
        "norm.weight": (512,),
        "norm.bias": (512,),
        "head.weight": (1000, 512),
        "head.bias": (1000,),
    }


@pytest.mark.parametrize(
    ("name", "depths", "params", "matmul_macs"),
    [
        ("pvt_tiny", (2, 2, 2, 2), 13_229_288, 1.933e9),
        ("pvt_small", (3, 4, 6, 3), 24_485_864, 3.816e9),
        ("pvt_medium", (3, 4, 18, 3), 44_208_104, 6.659e9),
        ("pvt_large", (3, 8, 27, 3), 61_369_320, None),
    ],
)
def test_published_sizes(
    name: str, depths: tuple[int, ...], params: int, matmul_macs: float | None
) -> None:
    cost = CostModel(BackboneSpec(name=name)).cost(Placement.all_vanilla(depths))
    assert cost.params == params
    if matmul_macs is not None:
        assert round(cost.matmul_macs / 1e6) == matmul_macs / 1e6


@pytest.mark.parametrize("size", [84, 96, 108])
def test_sizes_of_any_image(size: int) -> None:
    text = f"pvt({KEYWORDS})@{size}"
    for i, stage in enumerate(describe(BackboneSpec.parse(text)).stages):
        side = size // 2 ** (i + 2)
        assert stage.grid == (side, side)
        assert stage.num_tokens == side**2 + (i == 3)
        assert stage.attention.num_keys == (side // RATIOS[i]) ** 2 + (i == 3)
    contract.check_referees(text, range(1))


def test_no_difference_from_either_referee() -> None:
    contract.check_referees(TINY, range(5))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    ["", "class_token_in_mean=false,broadcasting_form=scaled,dia_reduction=3,qkv_bias=false,"],
)
def test_no_difference_from_either_referee_on_many(options: str) -> None:
    contract.check_referees(TINY.replace("depths", f"{options}depths"), range(5, 20))


def test_shared_and_extracted_weights_give_equal_logits() -> None:
    contract.check_extraction(TINY, 7)


def test_two_interleaved_forwards_agree_with_separate_ones() -> None:
    contract.check_interleaved(TINY)


def alone_with_the_class_token(placement: Placement, name: str) -> bool:
    """What has no gradient where no layer of the last stage mixes tokens: all before that stage.

    The head reads the class token alone. It joins in the last stage, and meets patches in an
    attention branch or in a mean over tokens, so without either no patch bears on the logits.
    """
    mixes = any(c.kind != "N" or c.cb or c.gate is not None for c in placement.stages[-1])
    here = ("block4", "pos_embed4", "cls_token", "dia_cells.3", "norm", "head")
    return not mixes and not name.startswith(here)


def test_gradient_reaches_what_a_placement_owns_and_no_other() -> None:
    contract.check_gradients(TINY, 9, without_gradient=alone_with_the_class_token)


def test_begins_as_published() -> None:
    network = build(NetworkSpec.parse("pvt_tiny(num_classes=7): V2 | V2 | V2 | V2"))
    tokens = {"cls_token", *(f"pos_embed{i}" for i in range(1, 5))}
    for round_of in ("built", "reset"):
        for name, weight in network.named_parameters():
            # Convolutions begin as torch makes them.
            if name in tokens or (weight.ndim == 2 and round_of == "built"):
                assert weight.std().item() == pytest.approx(0.02, rel=0.15), name
            elif name.endswith("bias") and "proj" not in name.replace("attn.proj", ""):
                assert "attn.sr" in name or not weight.any(), name
        for name in tokens:
            torch.nn.init.ones_(network.get_parameter(name))
        network.reset_parameters()


def test_stochastic_depth_grows_over_all_layers() -> None:
    model = PyramidVisionTransformer(79, depths=(1, 2, 1, 1), drop_path_rate=0.4)
    blocks = [block for i in range(1, 5) for block in getattr(model, f"block{i}")]
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("text", "smallest"),
    [
        ("pvt_tiny(depths=2-2-2-2,sr_ratios=8-4-2-1)@224", "pvt_tiny"),
        ("pvt_medium(depths=3-4-6-3)", "pvt_medium(depths=3-4-6-3)"),
        ("pvt(mlp_ratios=8.0-8-4-4)@197", "pvt@197"),
    ],
)
def test_one_text_for_each_backbone(text: str, smallest: str) -> None:
    assert str(canonical(BackboneSpec.parse(text))) == smallest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pvt_tiny(sr_ratios=8-4-2-2)", "`sr_ratios` ends in 2, but.* end it in 1"),
        (
            "pvt_tiny@31",
            "an image of 31 pixels leaves no patch in stage 4",
        ),
        ("pvt_tiny@3", "3 pixels leaves no patch in stage 1; raise the image size"),
        (
            "pvt_tiny(sr_ratios=8-4-9-1)@63",
            "ratio of 9 leaves no keys .* 3 x 3",
        ),
        ("pvt_tiny(depths=2-2)", "with depths=2-2, give embed_dims, num_heads, sr_ratios, mlp"),
        ("pvt_tiny(num_heads=1-2-7-8)", "dim 320 should be divided by num_heads 7"),
    ],
)
def test_backbones_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe(BackboneSpec.parse(text))


def test_full_maps_beyond_the_bound_are_refused() -> None:
    with pytest.raises(InputError, match="layer 2 of stage 1 .*; write /keys"):
        resolve(NetworkSpec.parse("pvt_tiny: V1L1/full | V2 | V2 | V2"))


def test_positions_at_another_image_size() -> None:
    network = contract.randomised(build(NetworkSpec.parse(f"{TINY}: V2 | V3 | V1 | V2")))
    larger = at_image_size(network, 96)
    for i, (old, new) in enumerate(zip(network.shape.stages, larger.shape.stages, strict=True)):
        before, after = (getattr(one, f"pos_embed{i + 1}") for one in (network, larger))
        assert after.shape == (1, new.num_tokens, new.embed_dim) != before.shape
        expected = resample_positions(before, old.grid, new.grid)
        assert torch.equal(after, expected)
    assert torch.equal(larger.pos_embed4[:, 0], network.pos_embed4[:, 0])
    assert larger(contract.random_images(larger.backbone)).isfinite().all()


def test_what_is_no_position_is_not_resampled() -> None:
    small, large = (build(NetworkSpec.parse(f"pvt_tiny@{size}: V1|V1|V1|V1")) for size in (64, 96))
    with pytest.raises(
        InputError, match=r"cls_token cannot be resampled from \(1, 1, 512\) at 64 px"
    ):
        small.resample_position("cls_token", small.cls_token, large)
