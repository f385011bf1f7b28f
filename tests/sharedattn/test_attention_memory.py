"""`attention_bytes` against the tensors that hooks see in a run without the fused kernel."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sharedattn.attention.external import ExternalAttention, MultiHeadExternalAttention
from sharedattn.attention.residual import AttentionResidual
from sharedattn.attention.scores import Scores
from sharedattn.attention.vanilla import SelfAttention
from sharedattn.backbones import build
from sharedattn.block import Block
from sharedattn.cost import CostModel
from sharedattn.network import Network
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement
from sharedattn.state import State

RandomPlacement = Callable[[random.Random, int], Placement]


def num_elements(scores: Scores) -> int:
    bias = 0 if scores.bias is None else scores.bias.numel()
    return scores.q_BHNK.numel() + scores.k_BHMK.numel() + bias


def seen_bytes(network: Network, placement: Placement, *, with_maps: bool) -> int:
    """The most that hooks see alive in one layer, with one image.

    Of each layer its maps and its memories, and the scores that the next layer is handed.
    """
    layers: list[int] = []

    def enter(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        state: State = arguments[1]
        if layers:
            layers[-1] += sum(map(num_elements, state.scores.values()))
        layers.append(0)

    def enter_stage(_: nn.Module, arguments: tuple[Scores, ...]) -> None:
        layers[-1] += num_elements(arguments[0])

    def attended(module: nn.Module, _: object, output: tuple[Tensor, Tensor | None]) -> None:
        layers[-1] += 0 if output[1] is None else output[1].numel()
        if isinstance(module, ExternalAttention | MultiHeadExternalAttention):
            memories = (p for name, p in module.named_parameters() if name.startswith("memory"))
            layers[-1] += sum(p.numel() for p in memories if p.dim() == 2)

    for module in network.modules():
        if isinstance(module, Block):
            module.register_forward_pre_hook(enter)
        elif isinstance(module, AttentionResidual):
            module.register_forward_pre_hook(enter_stage)
        elif isinstance(module, SelfAttention | ExternalAttention | MultiHeadExternalAttention):
            module.register_forward_hook(attended)
    size = network.shape.image_size
    with torch.no_grad():
        image = torch.zeros(1, network.backbone.in_chans, size, size)
        network.eval().run(image, placement, collect={"attention"} if with_maps else ())
    return 4 * max(layers)


def test_closed_form_equals_what_hooks_see(
    tiny: BackboneSpec, random_placement: RandomPlacement
) -> None:
    rng = random.Random(3)
    costs = CostModel(tiny)
    for _ in range(25):
        placement = random_placement(rng, 5)
        expected = costs.attention_bytes(placement)
        unfused = build(NetworkSpec(tiny, placement), fused=False)
        assert seen_bytes(unfused, placement, with_maps=True) == expected, str(placement)
        fused = build(NetworkSpec(tiny, placement))
        saved = expected - seen_bytes(fused, placement, with_maps=False)
        assert saved >= 0, str(placement)
