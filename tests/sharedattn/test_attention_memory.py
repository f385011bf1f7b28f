"""`attention_bytes` against the tensors that hooks see in a run without the fused kernel."""

from __future__ import annotations

from typing import Any

import contract
import pytest
import torch
from torch import Tensor, nn

from sharedattn.backbones import FAMILIES, build
from sharedattn.backbones.deepvit import ReAttention
from sharedattn.costs.model import CostModel
from sharedattn.mechanisms.external import ExternalAttention, MultiHeadExternalAttention
from sharedattn.mechanisms.residual import AttentionResidual
from sharedattn.mechanisms.scores import Scores
from sharedattn.mechanisms.vanilla import ScoredAttention
from sharedattn.networks.block import LayerBlock
from sharedattn.networks.network import Network
from sharedattn.networks.state import State
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement


def num_elements(state: State, *, with_residual: bool) -> int:
    """Of all that a state holds for later layers of a stage, each tensor once."""
    tensors = [state.residual] if with_residual else []
    for scores in (value for key, value in state.values.items() if key[0] == "scores"):
        tensors += [scores.q_BHNK, scores.k_BHMK, scores.bias]
    return sum({id(t): t.numel() for t in tensors if t is not None}.values())


def seen_bytes(network: Network, placement: Placement, *, with_maps: bool) -> int:
    """The most that hooks see alive in one layer, with one image.

    Of each layer its maps and its memories, and the state that the next layer is handed.
    """
    layers: list[int] = []
    residuals: list[Tensor] = []

    def enter(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        state: State = arguments[1]
        if layers:
            # Made on the way into this layer's stage, the residual was not there before.
            fresh = bool(residuals) and state.residual is residuals.pop()
            layers[-1] += num_elements(state, with_residual=not fresh)
        layers.append(0)

    def enter_stage(_: nn.Module, arguments: tuple[Scores, ...], residual: Tensor) -> None:
        layers[-1] += num_elements(State({("scores", 0): arguments[0]}), with_residual=False)
        residuals.append(residual)

    def attended(module: nn.Module, _: object, output: tuple[Tensor, Tensor | None]) -> None:
        layers[-1] += 0 if output[1] is None else output[1].numel()
        if isinstance(module, ExternalAttention | MultiHeadExternalAttention):
            memories = (p for name, p in module.named_parameters() if name.startswith("memory"))
            layers[-1] += sum(p.numel() for p in memories if p.dim() == 2)

    def mixed(_: nn.Module, arguments: tuple[Tensor], output: Tensor) -> None:
        layers[-1] += arguments[0].numel() + output.numel()

    for module in network.modules():
        if isinstance(module, ReAttention):
            # Its own maps are mixed in `attend_own`; those it reuses, in a call.
            module.reatten_matrix.register_forward_hook(mixed)
        if isinstance(module, LayerBlock):
            module.register_forward_pre_hook(enter)
        elif isinstance(module, AttentionResidual):
            module.register_forward_hook(enter_stage)
        elif isinstance(module, ScoredAttention | ExternalAttention | MultiHeadExternalAttention):
            module.register_forward_hook(attended)
    with torch.no_grad():
        image = torch.zeros(1, network.backbone.in_chans, *network.shape.image_size)
        network.eval().run(image, placement, collect={"attention"} if with_maps else ())
    return 4 * max(layers)


BACKBONES = (
    "vit(embed_dim=22,depth=5,num_heads=2,patch_size=5,mlp_ratio=1.5,in_chans=2,num_classes=3)@15",
    "pvt_v2(depths=2-3-1-2,embed_dims=6-10-14-22,num_heads=1-2-1-2,sr_ratios=3-2-2-1,"
    "mlp_ratios=1.5-2-1-1.5,num_classes=3)@53",
    "pvt(depths=2-3-2-2,embed_dims=6-10-14-22,num_heads=1-2-1-2,sr_ratios=3-2-2-1,"
    "mlp_ratios=1.5-2-1-1.5,num_classes=3)@84",
    # Grids that divide, so that scores are handed from stage to stage.
    "pvt_v2(attention_residual=true,depths=2-3-2-2,embed_dims=6-10-14-22,num_heads=1-2-1-2,"
    "sr_ratios=4-2-2-1,mlp_ratios=1.5-2-1-1.5,num_classes=3)@64",
    "swin(depths=3-2-4,embed_dim=6,num_heads=1-2-3,window_size=3-3-3,patch_size=2,"
    "num_classes=3)@36",
    "swin(handover=previous,depths=3-2-4,embed_dim=6,num_heads=1-2-3,window_size=3-3-3,"
    "patch_size=2,num_classes=3)@36",
    "deepvit(embed_dim=26,depth=5,num_heads=2,patch_size=5,mlp_ratio=1.5,num_classes=3)@15",
    "ceit(embed_dim=22,depth=5,num_heads=2,patch_size=2,mlp_ratio=1.5,num_classes=3)@23",
    "hvt(embed_dim=22,depth=6,num_heads=2,patch_size=5,mlp_ratio=1.5,pool_block_width=3,"
    "num_classes=3)@35",
    "t2t_ea(embed_dim=22,depth=5,num_heads=2,mlp_ratio=1.5,token_dim=7,num_classes=3)@45",
    "unet2d(head_dim=3,layers_per_block=2,norm_groups=3,widths=6-15)@6x10",
    # Without attention.
    "resnet(depths=2-3,widths=6-10,num_classes=3)@35",
    "resnet_cifar(depths=2-3,inner_widths=6-10,widths=6-10,num_classes=3)@13",
)


def test_every_family_is_here() -> None:
    names = {text.partition("(")[0] for text in BACKBONES}
    assert names == {family.base_name for family in FAMILIES}


@pytest.mark.parametrize("text", BACKBONES, ids=lambda text: text.partition(",")[0])
def test_closed_form_equals_what_hooks_see(text: str) -> None:
    backbone = BackboneSpec.parse(text)
    costs = CostModel(backbone)
    for placement in contract.random_placements(backbone, 3, 8):
        expected = costs.attention_bytes(placement)
        unfused = build(NetworkSpec(backbone, placement), fused=False)
        assert seen_bytes(unfused, placement, with_maps=True) == expected, str(placement)
        fused = build(NetworkSpec(backbone, placement))
        assert seen_bytes(fused, placement, with_maps=False) <= expected, str(placement)


RESIDUAL = BackboneSpec.parse(
    "pvt_v2(attention_residual=true,depths=1-4,embed_dims=4-14,num_heads=1-7,mlp_ratios=1-1,"
    "sr_ratios=2-1,in_chans=1,num_classes=2)@64"
)
"""64 queries and keys in the second stage, whose 7 maps are dearer than all of the first."""

MAPS, QUERIES_AND_KEYS = 7 * 64**2, 2 * 64 * 14


@pytest.mark.parametrize(
    ("second_stage", "elements"),
    [
        # Nothing is held after the last V, though layers follow.
        ("V1E1N1/s3", MAPS),
        ("N1V1", MAPS),
        ("V2", 2 * MAPS),
        ("V1E1V1/s3", 2 * MAPS),
        # Scores that are held have the residual for their bias, and it is held for the last V.
        ("V1L1V1", 2 * MAPS + QUERIES_AND_KEYS),
        ("V,L/reuse,L,V", 2 * MAPS + QUERIES_AND_KEYS),
        # A bias that is mapped is another tensor.
        ("V1L2V1", 3 * MAPS + QUERIES_AND_KEYS),
        ("V1L2N1", 2 * MAPS + QUERIES_AND_KEYS),
    ],
)
def test_the_attention_residual_is_held_up_to_the_last_v(second_stage: str, elements: int) -> None:
    placement = Placement.parse(f"V1 | {second_stage}")
    assert CostModel(RESIDUAL).attention_bytes(placement) == 4 * elements
    network = build(NetworkSpec(RESIDUAL, placement), fused=False)
    assert seen_bytes(network, placement, with_maps=True) == 4 * elements


def test_layers_behind_the_last_v_are_handed_no_residual() -> None:
    network = build(NetworkSpec(RESIDUAL, Placement.parse("V1 | N1V1E1N1/s3")))
    handed: list[bool] = []

    def enter(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        handed.append(arguments[1].residual is not None)

    for index in range(4):
        network.block(1, index).register_forward_pre_hook(enter)
    network(torch.zeros(1, 1, 64, 64))
    assert handed == [True, True, False, False]
