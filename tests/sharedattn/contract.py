"""What the networks of every family must pass; a family's test calls these on a tiny backbone.

A backbone is given as text, with prime sizes. Placements are drawn from all that are legal on it:
every kind, form, DIA grouping and broadcasting, of any depth.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sharedattn.backbones import build, build_network, describe
from sharedattn.networks.network import Network
from sharedattn.placement import (
    BackboneSpec,
    Envelope,
    NetworkSpec,
    Placement,
)
from sharedattn.testing import mechanisms
from sharedattn.testing.mechanisms import check_costs, random_images, randomised
from sharedattn.testing.placements import random_placement, random_placements
from sharedattn.weights.extract import extract

__all__ = [
    "check_extraction",
    "check_gradients",
    "check_interleaved",
    "check_referees",
    "check_weights_of",
    "random_images",
    "random_placement",
    "random_placements",
    "randomised",
]

BOTTLENECK_BIASES = ("net.0.bias", "fc1.bias")

ZERO = 1e-11
"""Gradients below are zero: far above rounding, and below what is left of some behind gates."""

WithoutGradient = Callable[[Placement, str], bool]
"""Whether a whole parameter, by name, has no gradient in a placement, whatever the data."""


def check_weights_of(model: nn.Module, backbone_text: str, *, atol: float = 1e-5) -> None:
    """The model's random weights, saved and loaded, give its logits in the all-vanilla placement.

    Args:
        model: the published model, or an independent writing of it, that the text names.
        backbone_text: the backbone.
        atol: the most that logits may differ, in float32.
    """
    backbone = BackboneSpec.parse(backbone_text)
    shape = describe(backbone)
    placement = Placement.all_vanilla(shape.depths)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = random_images(backbone).float()
    with torch.no_grad():
        expected = model.eval()(x)
        for fused in (True, False):
            network = build(NetworkSpec(backbone, placement), fused=fused).eval()
            assert network.state_dict().keys() == model.state_dict().keys()
            network.load_state_dict(model.state_dict())
            torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=atol)


def check_referees(backbone_text: str, numbers: range) -> None:
    """Closed-form params and MACs equal both referees' on the random placements of these numbers.

    The numbers are of one list, so that a quick test and a slow one count none twice.
    """
    backbone = BackboneSpec.parse(backbone_text)
    check_costs(backbone, random_placements(backbone, 2, numbers.stop)[numbers.start :])


def check_extraction(backbone_text: str, num: int) -> None:
    """Shared and extracted weights give equal logits on so many random placements."""
    backbone = BackboneSpec.parse(backbone_text)
    mechanisms.check_extraction(backbone, random_placements(backbone, 3, num))


def check_interleaved(backbone_text: str) -> None:
    """Two forwards whose layers take turns give what each gives alone."""
    backbone = BackboneSpec.parse(backbone_text)
    placements = random_placements(backbone, 5, 2)
    network = randomised(build_network(backbone, Envelope.of(*placements)))
    batches = [random_images(backbone, size) for size in (2, 3)]
    with torch.no_grad():
        alone = [network(x, p) for x, p in zip(batches, placements, strict=True)]
        runs = [network.begin(x) for x in batches]
        for stage, sizes in enumerate(network.shape.stages):
            for index in range(sizes.max_depth):
                for i, placement in enumerate(placements):
                    if index < placement.depths[stage]:
                        choice = placement.stages[stage][index]
                        runs[i] = network.layer(stage, index).run(*runs[i], choice)
        for (tokens, _), logits in zip(runs, alone, strict=True):
            assert torch.equal(network.finish(tokens), logits)
        assert not torch.equal(alone[0], network(batches[0], placements[1]))


def check_gradients(
    backbone_text: str,
    num: int,
    *,
    without_gradient: WithoutGradient = lambda placement, name: False,
    measured: Callable[[Placement], bool] = lambda placement: True,
) -> None:
    """A placement's gradient reaches every parameter that it owns, and no other.

    Args:
        backbone_text: the backbone.
        num: random placements.
        without_gradient: the parameters of the family that have none, beyond those that no family
            has (`_zero_entries`); each must be proven where it is listed.
        measured: which of the random placements to measure, by default all.
    """
    backbone = BackboneSpec.parse(backbone_text)
    placements = [*filter(measured, random_placements(backbone, 7, num))]
    assert len(placements) >= 3
    shared = randomised(build_network(backbone, Envelope.of(*placements)))
    for name, parameter in shared.named_parameters():
        if name.endswith(BOTTLENECK_BIASES) and "_cells." in name:
            nn.init.constant_(parameter, 9.0)  # no bottleneck whose ReLUs are all closed
    x = random_images(backbone)
    for placement in placements:
        shared.zero_grad()
        (shared(x, placement) ** 2).sum().backward()
        alone = extract(shared, placement)
        (alone(x) ** 2).sum().backward()
        positions = _positions(alone, placement)
        owned = {n: p for n, p in alone.named_parameters() if p.requires_grad}
        for name, parameter in owned.items():
            where = (str(placement), name)
            gradient = parameter.grad
            assert gradient is not None, where
            if without_gradient(placement, name):
                assert not gradient.abs().gt(ZERO).any(), where
                continue
            zero = _zero_entries(alone, placement, positions.get(name), name, gradient)
            assert not gradient[zero].abs().gt(ZERO).any(), where
            if not zero.all():
                assert gradient.abs().max() > ZERO, where
            _check_rows(gradient, zero, name, where)
        for name, parameter in shared.named_parameters():
            if parameter.grad is not None and parameter.grad.abs().max() > ZERO:
                own_values = name.replace(".qkv.", ".v.").replace(".kv.", ".v.")
                assert name in owned or own_values in owned, (str(placement), name)


def _positions(network: Network, placement: Placement) -> dict[str, tuple[int, int]]:
    """Stage and index of the layer that each parameter of a block belongs to, by name."""
    names = {id(p): name for name, p in network.named_parameters()}
    return {
        names[id(parameter)]: (stage, index)
        for stage, choices in enumerate(placement.stages)
        for index in range(len(choices))
        for parameter in network.block(stage, index).parameters()
    }


def _zero_entries(
    network: Network,
    placement: Placement,
    position: tuple[int, int] | None,
    name: str,
    gradient: Tensor,
) -> Tensor:
    """Which entries of a parameter's gradient are zero in every family, whatever the data.

    - Key bias: it adds q . b to all scores of a query, which softmax ignores; not so where a less
      layer maps the keys, with rows that do not sum to 1.
    - In an external layer the norm's shift, and in the multi-head form the query's and the key
      memory's bias, add a constant along tokens, which the softmax over tokens ignores.
    - A DIA cell's call with h = 0 does not see the hidden net's first weight, and one with c = 0
      does not see the forget gate; in a group of one block there is no other call.
    """
    zero = torch.zeros_like(gradient, dtype=torch.bool)
    if name.startswith("dia_cells"):
        _, stage, cell, net = name.split(".", 3)
        if sum(c.cell_of("dia") == int(cell) for c in placement.stages[int(stage)]) == 1:
            zero[:] = net == "hidden_net.0.weight"
            if net.split(".")[1] == "2":
                D = len(gradient) // 4
                zero[D : 2 * D] = True
    if position is None:
        if name.endswith(".qkv.bias"):  # of attention in the head: nobody maps its keys
            D = len(gradient) // 3
            zero[D : 2 * D] = True
        return zero
    stage, index = position[0], position[1]
    choices = placement.stages[stage]
    if choices[index].kind == "E":
        zero[:] = name.endswith(("norm1.bias", "query.bias", "memory_key.bias"))
    if name.endswith((".qkv.bias", ".kv.bias")):
        D = network.shape.stages[stage].embed_dim
        zero[-2 * D : -D] = not _keys_are_mapped(network, placement, stage, index)
    return zero


def _keys_are_mapped(network: Network, placement: Placement, stage: int, index: int) -> bool:
    """Whether a less layer maps the keys that a vanilla layer makes.

    The attention residual hands a stage's last scores on to every vanilla layer of the next one:
    the bias of pooled keys is still the same for all of them, but prefix tokens have none.
    """
    choices, groups = placement.stages[stage], network.shape.stages[stage].attention
    later = [
        choices[j]
        for j in range(index + 1, len(choices))
        if choices[j].kind in "VL" and groups.score_group(j) == groups.score_group(index)
    ]
    chain = list(itertools.takewhile(lambda choice: choice.kind == "L", later))
    if any(choice.option("form") != "reuse" for choice in chain):
        return True
    if len(chain) < len(later) or str(stage + 1) not in network.residuals:
        return False
    return network.shape.stages[stage + 1].num_prefix_tokens > 0 or any(
        _keys_are_mapped(network, placement, stage + 1, j)
        for j, choice in enumerate(placement.stages[stage + 1])
        if choice.kind == "V"
    )


def _check_rows(gradient: Tensor, zero: Tensor, name: str, where: Any) -> None:
    """Row by row: a joint map whose queries or keys got nothing would pass as a whole."""
    for joint, parts in (("qkv", 3), ("kv", 2)):
        if name.endswith((f".{joint}.weight", f".{joint}.bias")):
            rows = gradient.reshape(parts, -1).abs().amax(1) > ZERO
            expected = [True] * (parts - 2) + [not zero.any().item(), True]
            assert rows.tolist() == expected, where
