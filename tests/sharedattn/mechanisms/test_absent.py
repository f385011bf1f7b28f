"""Whole layers left out: nothing of their blocks is there, and the others keep theirs."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from contract import random_images, randomised
from torch import Tensor, nn

from sharedattn.backbones import build, build_network, describe
from sharedattn.costs.flop_counters import fvcore_macs, matmul_macs
from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.mechanisms.absent import ABSENT, Absent
from sharedattn.mechanisms.interface import NO_COST, OUTPUT
from sharedattn.placement import BackboneSpec, Envelope, LayerChoice, NetworkSpec, Placement
from sharedattn.testing import check_mechanism, registered
from sharedattn.testing.tiny_backbones import TINY, tiny_backbone
from sharedattn.weights.branch_fit import fit_branches
from sharedattn.weights.extract import extract
from sharedattn.weights.pretrained import start_from

X = LayerChoice("X")


class Skipped(nn.Module):
    """What a block of timm's is replaced by where it is left out."""

    def forward(self, x: Tensor, *grid: Any) -> Tensor:
        return x


# No layer of a UNet is left out: see the tests of its family.
@pytest.mark.parametrize("name", [name for name in TINY if name != "unet2d"])
def test_it_passes_the_contract_on_every_family(name: str) -> None:
    check_mechanism(ABSENT, backbones=(name,), num_placements=3)


CUT = {
    "vit": "V1X1V1",
    "t2t_ea": "V1X1V1/dia1/cb1",
    "swin": "V1 | V1X1L1",
    "pvt": "X1V1 | V2",
    "pvt_v2": "V2 | X1V1/cb",
    "deepvit": "X1V1L1",
    "ceit": "X1V1X1",
    "hvt": "V1 | X1V1 | V1",
    "resnet": "V1X1V1 | V2/dia1",
    "resnet_cifar": "V1X1V1/dia1 | V2",
}


@pytest.mark.parametrize("name", CUT)
def test_it_costs_nothing_by_both_referees(name: str) -> None:
    spec = NetworkSpec(tiny_backbone(name), Placement.parse(CUT[name]))
    model, network = CostModel(spec.backbone), build(spec)
    assert all(model.layer(i, X) == NO_COST for i in range(len(model.shape.stages)))
    cost = model.cost(spec.placement)
    assert cost.params == sum(p.numel() for p in network.parameters())
    assert cost.macs == fvcore_macs(network)
    assert cost.matmul_macs == matmul_macs(network)
    others = Placement(
        tuple(tuple(layer for layer in stage if layer != X) for stage in spec.placement.stages)
    )
    assert model.totals(spec.placement) == model.totals(others)


TIMM = {
    "V1X1V1": ("deit_tiny_patch16_224", {"depth": 3, "embed_dim": 22, "num_heads": 2}, 32),
    "V2X2V1": ("deit3_small_patch16_224", {"depth": 5, "embed_dim": 22, "num_heads": 2}, 32),
    "X1V1 | V1X2V1": (
        "swin_tiny_patch4_window7_224",
        {"depths": (2, 4), "embed_dim": 6, "num_heads": (1, 2), "window_size": 2},
        32,
    ),
    "V1 | V1X1V1": (
        "pvt_v2_b0",
        {
            "depths": (1, 3),
            "embed_dims": (6, 10),
            "num_heads": (1, 2),
            "sr_ratios": (2, 1),
            "mlp_ratios": (2, 1),
        },
        32,
    ),
}


def _text(keywords: dict[str, Any], stages: int) -> str:
    def value(of: Any) -> str:
        return "-".join(map(str, of)) if isinstance(of, tuple) else str(of)

    own = {key: value(of) for key, of in keywords.items()}
    if "window_size" in own:
        own["window_size"] = "-".join([own["window_size"]] * stages)
    return ",".join(f"{key}={own[key]}" for key in own)


def _blocks(model: Any) -> list[Any]:
    for name in ("layers", "stages"):
        if hasattr(model, name):
            return [stage.blocks for stage in getattr(model, name)]
    return [model.blocks]


@pytest.mark.parametrize("text", TIMM)
def test_it_is_timms_model_with_its_blocks_replaced_by_nothing(text: str) -> None:
    name, keywords, size = TIMM[text]
    placement = Placement.parse(text)
    sized = {} if name.startswith("pvt") else {"img_size": size}
    model = timm.create_model(name, num_classes=5, **keywords, **sized)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    inside = f"{_text(keywords, len(placement.stages))},num_classes=5"
    backbone = BackboneSpec.parse(f"{name}({inside})@{size}")
    network = build(NetworkSpec(backbone, placement)).eval()
    start_from(network, model.state_dict())
    left_out = []
    for stage, (blocks, choices) in enumerate(zip(_blocks(model), placement.stages, strict=True)):
        for index, choice in enumerate(choices):
            if choice == X:
                left_out.append(blocks[index])
                blocks[index] = Skipped()
                assert not list(network.block(stage, index).parameters())
    # Those that stay keep their names, and so their numbers.
    assert network.state_dict().keys() == model.state_dict().keys()
    assert left_out
    x = random_images(backbone).float()
    with torch.no_grad():
        torch.testing.assert_close(network(x), model.eval()(x), rtol=1e-5, atol=1e-5)


def test_the_layers_after_it_keep_their_stochastic_depth() -> None:
    backbone = tiny_backbone("vit", "init_values=0.1")
    network = build(NetworkSpec(backbone, Placement.parse("V1X1V1")), drop_path_rate=0.4)
    whole = build(NetworkSpec(backbone, Placement.parse("V3")), drop_path_rate=0.4)
    rates = [whole.block(0, i).drop_path1.drop_prob for i in (1, 2)]
    assert rates == pytest.approx([0.2, 0.4])
    assert network.block(0, 2).drop_path1.drop_prob == rates[1]
    assert network.block(0, 2).ls1.gamma.shape == whole.block(0, 2).ls1.gamma.shape


def test_a_class_token_that_ceit_looks_at_is_that_of_the_layer_before() -> None:
    backbone = tiny_backbone("ceit")
    placements = [Placement.parse(text) for text in ("V1X1V1", "V1", "V3")]
    network = randomised(build_network(backbone, Envelope.of(*placements)))
    x = random_images(backbone)
    with torch.no_grad():
        tokens, state = network.begin(x)
        N = network.shape.stages[0].num_tokens
        tokens, state = network.layer(0, 0).run(tokens, state, LayerChoice("V"))
        after, _ = network.layer(0, 1).run(tokens, state, X)
        assert torch.equal(after[:, :N], tokens[:, :N])
        assert torch.equal(after[:, -1], tokens[:, 0])
        # LCA takes a missing layer's token for the same: V1 is V1 with its others left out.
        assert torch.equal(network.finish(tokens), network(x, placements[1]))
        assert torch.allclose(network.finish(after), network.finish(tokens))


def test_less_attention_takes_the_scores_from_before_it() -> None:
    backbone = tiny_backbone("vit")
    network = randomised(
        build_network(backbone, Envelope.of(*map(Placement.parse, ("V1X1L1", "V1E1L1/s3"))))
    )
    seen = []
    network.block(0, 2).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    x = random_images(backbone)
    with torch.no_grad():
        network(x, Placement.parse("V1X1L1"))
        network(x, Placement.parse("V1E1L1/s3"))
    [(_, one)], [(_, other)] = (list(state.values.items()) for state in seen)
    assert torch.equal(one.q_BHNK, other.q_BHNK)
    assert torch.equal(one.k_BHMK, other.k_BHMK)


def test_memory_is_held_across_it() -> None:
    model = CostModel(tiny_backbone("vit"))
    sizes = model.shape.stages[0]
    N, D, H = sizes.num_tokens, sizes.embed_dim, sizes.num_heads
    # In V1X1L1 the map of the V, or of the L, beside nothing but the scores.
    assert model.attention_bytes(Placement.parse("V1X1L1")) == 4 * (H * N * N + 2 * N * D)
    assert model.attention_bytes(Placement.parse("V1X1V1")) == 4 * H * N * N


def test_training_reaches_what_is_there_alone() -> None:
    backbone = tiny_backbone("vit")
    network = build_network(
        backbone, Envelope.of(*map(Placement.parse, ("V3", "V1X1V1", "N1/cb")))
    ).train()
    x = random_images(backbone).float()
    for checkpointed in (False, True):
        network.grad_checkpointing = checkpointed
        network.zero_grad()
        network(x, Placement.parse("V1X1V1")).square().sum().backward()
        without = {
            name.split(".")[1]
            for name, p in network.named_parameters()
            if name.startswith("blocks.") and p.grad is None
        }
        assert without == {"1"}


def test_fits_pass_by_a_layer_that_may_be_left_out() -> None:
    backbone = tiny_backbone("vit")
    network = build_network(
        backbone, Envelope.of(*map(Placement.parse, ("V3", "V1X1V1", "E3/s5")))
    )
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    fit_branches(network, torch.randn(4, 1, 16, 16))
    changed = {
        name for name, weight in network.state_dict().items() if not weight.equal(before[name])
    }
    assert changed
    assert all(".external." in name for name in changed)
    alone = extract(network, Placement.parse("V1X1V1"))
    assert not [name for name in alone.state_dict() if name.startswith("blocks.1.")]


def test_a_stage_that_nothing_is_left_of_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"^stage 2 leaves out every layer \(X3\); write at"):
        Placement.parse("V1 | X3/dia1/cb")
    with pytest.raises(InputError, match=r"^stage 1 leaves out every layer \(X1\)"):
        Placement.from_json([[["X", None, None, None]]])


@pytest.mark.parametrize("text", ["X/cb,V", "X/d0,V"])
def test_it_has_neither_gate_nor_broadcasting(text: str) -> None:
    with pytest.raises(InputError, match=r"a layer of kind X \(layer left out\) has no branch"):
        Placement.parse(text)


def test_what_leaves_out_layers_has_nothing_else() -> None:
    class Leaving(Absent):
        letter, name, rank = "P", "leaving", 91
        leaves = (OUTPUT,)

    with pytest.raises(InputError, match="leaves out whole layers by P, but has options, or"):
        with registered(Leaving()):
            pass


def test_more_layers_than_the_backbone_has_are_refused() -> None:
    backbone = tiny_backbone("vit")
    assert describe(backbone).depths == (3,)
    with pytest.raises(InputError, match="has 4 layers, more than the 3 of"):
        build(NetworkSpec(backbone, Placement.parse("V1X2V1")))
    assert NetworkSpec(backbone, Placement.parse("V2X7")).key == (
        NetworkSpec(backbone, Placement.parse("V2")).key
    )
