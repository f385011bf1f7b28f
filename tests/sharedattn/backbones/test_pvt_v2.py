"""PVTv2: timm's logits from timm's weights, sizes of any image, and every refusal."""

from __future__ import annotations

from functools import partial
from typing import Any

import contract
import pytest
import timm
import torch
from fvcore.nn import FlopCountAnalysis
from timm.layers import RmsNorm
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sharedattn.backbones import build, canonical, describe, resolve
from sharedattn.backbones.pvt_v2 import PVT_V2
from sharedattn.costs.model import Cost, CostModel
from sharedattn.errors import InputError
from sharedattn.image_size import ImageSize
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement
from sharedattn.weights.extract import extract

NUMBERS = {
    "depths": (2, 3, 1, 2),
    "embed_dims": (6, 10, 14, 22),
    "num_heads": (1, 2, 1, 2),
    "sr_ratios": (3, 2, 2, 1),
    "mlp_ratios": (1.5, 2, 1, 1.5),
}
KEYWORDS = ",".join(f"{name}={'-'.join(map(str, n))}" for name, n in NUMBERS.items())
TINY = f"pvt_v2({KEYWORDS},in_chans=2,num_classes=3)@53"


def make(**keywords: Any) -> PyramidVisionTransformerV2:
    return PyramidVisionTransformerV2(**{**NUMBERS, "in_chans": 2, "num_classes": 3, **keywords})


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_timms_weights_give_timms_logits(qkv_bias: bool) -> None:
    text = TINY.replace("depths", f"qkv_bias={str(qkv_bias).lower()},depths")
    contract.check_weights_of(make(qkv_bias=qkv_bias), text)


def test_weights_of_a_published_size() -> None:
    model = timm.create_model("pvt_v2_b0", num_classes=7)
    contract.check_weights_of(model, "pvt_v2_b0(num_classes=7)@64")


def test_built_as_timm_initialises_it() -> None:
    torch.manual_seed(7)
    network = build(NetworkSpec.parse(f"{TINY}: V2 | V3 | V1 | V2"))
    torch.manual_seed(7)
    model = make()
    assert list(network.state_dict()) == list(model.state_dict())
    for name, weight in model.state_dict().items():
        assert torch.equal(network.state_dict()[name], weight), name


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        # timm's own models, counted by fvcore with unfused attention.
        ("pvt_v2_b0", 3_666_760, 572_024_064),
        ("pvt_v2_b1", 14_009_000, 2_120_272_384),
        ("pvt_v2_b2", 25_362_856, 4_045_817_152),
        ("pvt_v2_b3", 45_238_696, 6_924_853_312),
        pytest.param("pvt_v2_b4", 62_556_072, 10_139_156_096, marks=pytest.mark.slow),
        pytest.param("pvt_v2_b5", 81_956_008, 11_762_403_008, marks=pytest.mark.slow),
    ],
)
def test_published_sizes(name: str, params: int, macs: int) -> None:
    total = all_vanilla(name)
    assert (total.params, total.macs) == (params, macs)
    with torch.device("meta"):
        published = timm.create_model(name)
    assert total.params == sum(p.numel() for p in published.parameters())


def all_vanilla(name: str) -> Cost:
    model = CostModel(BackboneSpec(name=name))
    return model.cost(Placement.all_vanilla(model.shape.depths))


def unfused(name: str) -> nn.Module:
    model = timm.create_model(name).eval()
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return model


@pytest.mark.parametrize(
    "name", ["pvt_v2_b0", *(pytest.param(f"pvt_v2_b{i}", marks=pytest.mark.slow) for i in (1, 2))]
)
def test_macs_are_those_of_timms_model(name: str) -> None:
    analysis = FlopCountAnalysis(unfused(name), torch.zeros(1, 3, 224, 224))
    analysis.unsupported_ops_warnings(False).tracer_warnings("none")
    assert analysis.total() == all_vanilla(name).macs


@pytest.mark.parametrize(
    "name",
    [
        *("pvt_v2_b0", "pvt_v2_b1", "pvt_v2_b2"),
        *(pytest.param(f"pvt_v2_b{i}", marks=pytest.mark.slow) for i in (3, 4, 5)),
    ],
)
def test_products_are_those_of_timms_model(name: str) -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        unfused(name)(torch.zeros(1, 3, 224, 224))
    assert counter.get_total_flops() == 2 * all_vanilla(name).matmul_macs


def test_sizes_of_any_image_are_those_that_timms_model_has() -> None:
    with torch.device("meta"):
        model = make().eval()
    grids: list[tuple[int, ...]] = []
    keys: list[int] = []
    for stage in model.stages:
        stage.register_forward_hook(lambda _m, _i, out: grids.append(tuple(out.shape[2:])))
        if stage.blocks[0].attn.norm is not None:
            stage.blocks[0].attn.norm.register_forward_hook(
                lambda _m, _i, out: keys.append(out.shape[1])
            )
    # Below 21 pixels, no 2 x 2 tokens are left to reduce in the third stage.
    for size in (21, 22, 37, 53, 64):
        model(torch.zeros(1, 2, size, size, device="meta"))
        stages = describe(BackboneSpec.parse(f"pvt_v2({KEYWORDS},in_chans=2)@{size}")).stages
        assert [stage.grid for stage in stages] == grids, size
        found = [stage.attention.num_keys for stage in stages]
        assert found == [*keys, stages[-1].num_tokens], size
        grids.clear()
        keys.clear()


def test_no_difference_from_either_referee() -> None:
    contract.check_referees(TINY, range(7))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        "",
        "external_expansion=2,broadcasting_form=scaled,dia_reduction=3,qkv_bias=false,",
    ],
)
def test_no_difference_from_either_referee_on_many(options: str) -> None:
    contract.check_referees(TINY.replace("depths", f"{options}depths"), range(7, 20))


def test_shared_and_extracted_weights_give_equal_logits() -> None:
    contract.check_extraction(TINY, 7)


def test_gradient_reaches_what_a_placement_owns_and_no_other() -> None:
    contract.check_gradients(TINY, 7)


def test_two_interleaved_forwards_agree_with_separate_ones() -> None:
    contract.check_interleaved(TINY)


def test_a_layer_of_less_attention_alone_keeps_its_reduction() -> None:
    placement = Placement.parse("V1L1 | V1 | V1 | V1")
    shared = build(NetworkSpec.parse(f"{TINY}: V2 | V1 | V1 | V1"))
    alone = build(NetworkSpec(BackboneSpec.parse(TINY), placement))
    names = {name for name, _ in alone.block(0, 1).attn.named_parameters()}
    modules = {name.rpartition(".")[0] for name in names}
    assert modules == {"v", "sr", "norm", "proj"}
    assert alone.block(0, 1).less.psi is None
    assert alone.block(0, 1).less.theta.shape == (16, 16)
    with pytest.raises(InputError, match="outside the network's envelope"):
        extract(shared, placement)


def test_full_maps_beyond_the_bound_name_the_nearest_form() -> None:
    spec = NetworkSpec.parse("pvt_v2_b1: V1L1/full | V2 | V2 | V2")
    message = (
        "layer 2 of stage 1 of .* `/full` over 3,136 tokens has a map of 9,834,496 parameters "
        r"\(9,836,897 in all\), and a map has at most 2,097,152; write /keys"
    )
    for refusing in (resolve, build):
        with pytest.raises(InputError, match=message):
            refusing(spec)
    assert resolve(NetworkSpec.parse("pvt_v2_b1: V1L1/keys | V2 | V2 | V2")) == resolve(
        NetworkSpec.parse("pvt_v2_b1: V1L1 | V2 | V2 | V2")
    )


@pytest.mark.parametrize(
    ("text", "smallest"),
    [
        ("pvt_v2_b1(depths=2-2-2-2)@224", "pvt_v2_b1"),
        ("pvt_v2(mlp_ratios=08-8.0-4-4)", "pvt_v2"),
        ("pvt_v2(num_heads=1-2-4-16,sr_ratios=8-4-2-1)", "pvt_v2(num_heads=1-2-4-16)"),
        # 65 * 1.3077 = 85.0005 and 65 * 1.31 = 85.15 are both 85 channels.
        (
            "pvt_v2(depths=1-1,embed_dims=65-6,num_heads=5-2,sr_ratios=3-1,mlp_ratios=1.3077-3)",
            "pvt_v2(depths=1-1,embed_dims=65-6,mlp_ratios=1.31-3,num_heads=5-2,sr_ratios=3-1)",
        ),
    ],
)
def test_one_text_for_each_backbone(text: str, smallest: str) -> None:
    assert str(canonical(BackboneSpec.parse(text))) == smallest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pvt_v2_b2_li", "pvt_v2_b2_li.* its attention is linear: keys and values of pooled"),
        (
            "pvt_v2@16",
            "ratio of 8 leaves no keys on a grid of 4 x 4; lower",
        ),
        ("pvt_v2(depths=2-2)", "AssertionError; with depths=2-2, give embed_dims, num_heads, sr"),
        ("pvt_v2(num_heads=1-2)", "`num_heads`=1-2 is not .* as depths=3-4-6-3 has"),
        ("pvt_v2(depths=2-2-0-2)", "'2-2-0-2' is not one whole number above 0 per stage"),
        ("pvt_v2(depths=2-2-1.5-2)", "'2-2-1.5-2' is not one whole number above 0 per stage"),
        ("pvt_v2(mlp_ratios=8-8-x-4)", "'8-8-x-4' is not one number above 0 per stage"),
        ("pvt_v2(mlp_ratios=8-8-inf-4)", "'8-8-inf-4' is not one number above 0 per stage"),
        ("pvt_v2(num_heads=3-2-4-8)", "dim 64 should be divided by num_heads 3"),
        ("pvt_v2(depths=2)", "cannot be built.*; with depths=2, give embed_dims, num_heads"),
    ],
)
def test_backbones_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe(BackboneSpec.parse(text))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"linear": True}, "its attention is linear"),
        ({"norm_layer": RmsNorm}, "its norm1 is a RmsNorm"),
        ({"norm_layer": partial(nn.LayerNorm, bias=False)}, "its norm1 is a LayerNorm"),
        ({"global_pool": ""}, "it pools by ''"),
    ],
)
def test_parts_that_are_refused(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"its blocks are not understood: {message}"):
        PVT_V2.describe(make(**keywords), ImageSize(53, 53))


def test_another_activation_is_refused() -> None:
    model = make()
    model.stages[1].blocks[2].mlp.act = nn.ReLU()
    with pytest.raises(InputError, match="its MLP's activation is a ReLU"):
        PVT_V2.describe(model, ImageSize(53, 53))
