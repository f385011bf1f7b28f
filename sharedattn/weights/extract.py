"""Extract a placement's weights from a network over an envelope."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from sharedattn.backbones import build
from sharedattn.networks.network import Network
from sharedattn.placement import NetworkSpec, Placement


def extract(
    network: Network, placement: Placement, *, drop_path_rate: float | None = None
) -> Network:
    """Build the stand-alone network of a placement, with a copy of its share of the weights.

    Args:
        network: a network whose envelope contains the placement.
        placement: the placement.
        drop_path_rate: stochastic depth of the backbone's last block; defaults to that of
            `network`.

    Returns:
        A network of `placement` alone; its logits equal those of `network` run with it, to
        rounding. Device, dtype and mode are those of `network`.

    Raises:
        InputError: the placement is outside the network's envelope, or not legal on the backbone.
    """
    placement = network.accepted(placement)
    with torch.device("meta"):
        alone = build(
            NetworkSpec(network.backbone, placement),
            fused=network.fused,
            drop_path_rate=network.drop_path_rate if drop_path_rate is None else drop_path_rate,
            recorded=True,
        )
    shared = _as_used(network, placement)
    own = {}
    for name, like in alone.state_dict().items():
        weight = own_weight(shared, name, like.shape)
        assert weight is not None
        own[name] = weight.clone(memory_format=torch.contiguous_format)
    alone.load_state_dict(own, assign=True)
    _copy_constants(network, alone)
    return alone.train(network.training)


def _as_used(network: Network, placement: Placement) -> dict[str, Tensor]:
    """The state dict, with each layer's norm in use as `norm1`."""
    shared = dict(network.state_dict())
    names = {module: name for name, module in network.named_modules()}
    for stage, choices in enumerate(placement.stages):
        for index, choice in enumerate(choices):
            if choice.branch.reads_tokens:
                block = network.block(stage, index)
                norm = block.norm_of(choice.branch)
                if norm is None:
                    continue
                for leaf in norm.state_dict():
                    shared[f"{names[block]}.norm1.{leaf}"] = shared[f"{names[norm]}.{leaf}"]
    return shared


def _copy_constants(network: Network, alone: Network) -> None:
    """Copy buffers outside the state dict, which depend on the sizes alone."""
    constants = dict(network.named_buffers())
    for name, buffer in list(alone.named_buffers()):
        if buffer.is_meta:
            module, _, leaf = name.rpartition(".")
            setattr(alone.get_submodule(module), leaf, constants[name].clone())


def own_weight(shared: Mapping[str, Tensor], name: str, shape: torch.Size) -> Tensor | None:
    """A network's share of another's weights, as a view.

    Args:
        shared: the other's state dict; its envelope is larger, or it has other mechanisms.
        name: name of the weight in the network.
        shape: shape of the weight in the network.

    Returns:
        The weight in that shape, or None if the other has no counterpart.
    """
    if name in shared:
        # Memories are cut to their first slots; every other weight keeps its shape.
        return shared[name][tuple(slice(size) for size in shape)]
    # A supernet's separate norms start as the other's common norm.
    common = re.sub(r"\.norm1_\w+\.", ".norm1.", name)
    if common in shared:
        return shared[common]
    # A layer with less attention only has the value rows of the joint map, its last rows.
    module, _, leaf = name.rpartition(".v.")
    joints = (f"{module}.{joint}.{leaf}" for joint in ("qkv", "kv"))
    joint = next((name for name in joints if name in shared), None)
    return None if joint is None else shared[joint][-shape[0] :]
