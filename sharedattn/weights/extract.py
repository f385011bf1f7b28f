"""Extract a placement's weights from the shared weights of a network over an envelope."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from sharedattn.backbones import build, resolve
from sharedattn.networks.network import Network
from sharedattn.placement import NetworkSpec, Placement


def extract(
    network: Network, placement: Placement, *, drop_path_rate: float | None = None
) -> Network:
    """The stand-alone network of a placement, with a copy of its share of the weights.

    Args:
        network: a network whose envelope holds the placement.
        placement: what each layer does.
        drop_path_rate: stochastic depth of the backbone's last block; None: as in `network`.

    Returns:
        A network of `placement` alone; its logits are those of `network` run with it, to
        rounding. Device, dtype and mode are those of `network`.

    Raises:
        InputError: the placement lies outside the network's envelope, or the backbone cannot
            carry it.
    """
    placement = network.accepted(placement)
    with torch.device("meta"):
        alone = build(
            resolve(NetworkSpec(network.backbone, placement), recorded=True),
            fused=network.fused,
            drop_path_rate=network.drop_path_rate if drop_path_rate is None else drop_path_rate,
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
    """The state dict, where `norm1` is the norm that the layer uses of those that it has."""
    shared = dict(network.state_dict())
    names = {module: name for name, module in network.named_modules()}
    for stage, choices in enumerate(placement.stages):
        for index, choice in enumerate(choices):
            if choice.branch.reads_tokens:
                block = network.block(stage, index)
                norm = block.norm_of(choice.branch)
                for leaf in norm.state_dict():
                    shared[f"{names[block]}.norm1.{leaf}"] = shared[f"{names[norm]}.{leaf}"]
    return shared


def _copy_constants(network: Network, alone: Network) -> None:
    """Buffers outside the state dict follow from the sizes: `alone` has those of `network`."""
    constants = dict(network.named_buffers())
    for name, buffer in list(alone.named_buffers()):
        if buffer.is_meta:
            module, _, leaf = name.rpartition(".")
            setattr(alone.get_submodule(module), leaf, constants[name].clone())


def own_weight(shared: Mapping[str, Tensor], name: str, shape: torch.Size) -> Tensor | None:
    """A network's share of the weights of another, a view of them.

    Args:
        shared: the other's state dict, whose envelope is larger or has other mechanisms.
        name: of the weight in the network.
        shape: of the weight in the network.

    Returns:
        The weight in that shape; None: the other has nothing that it could be.
    """
    if name in shared:
        # Memories shrink to their first slots; every other weight keeps its shape.
        return shared[name][tuple(slice(size) for size in shape)]
    # Norms that are apart in a supernet begin as the one that the other has for all.
    common = re.sub(r"\.norm1_\w+\.", ".norm1.", name)
    if common in shared:
        return shared[common]
    # A layer that is less attention alone owns the value rows of the joint map, the last.
    module, _, leaf = name.rpartition(".v.")
    joints = (f"{module}.{joint}.{leaf}" for joint in ("qkv", "kv"))
    joint = next((name for name in joints if name in shared), None)
    return None if joint is None else shared[joint][-shape[0] :]
