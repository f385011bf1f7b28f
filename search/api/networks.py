"""Single networks: compute the cost of one, build it, or load an exported one."""

from __future__ import annotations

from pathlib import Path

from sharedattn.backbones import build as build_resolved
from sharedattn.backbones import resolve
from sharedattn.costs.model import Cost, CostModel
from sharedattn.networks.network import Network
from sharedattn.placement import NetworkSpec, ResolvedSpec
from sharedattn.results.export.folder import load_network


def spec_of(network: NetworkSpec | str) -> ResolvedSpec:
    """Resolve a network spec, which checks it and makes it canonical.

    Args:
        network: the spec, or its text, such as `deit_tiny_patch16_224: V6L6/cb`.

    Raises:
        InputError: not a spec, or the placement is not legal on the backbone.
    """
    return resolve(NetworkSpec.parse(network) if isinstance(network, str) else network)


def cost(network: NetworkSpec | str) -> Cost:
    """Compute params, MACs and attention memory of a network, in closed form for one image.

    Args:
        network: the spec, or its text, such as `deit_tiny_patch16_224: V6L6/cb`.

    Raises:
        InputError: not a spec, or the placement is not legal on the backbone.
    """
    spec = spec_of(network)
    return CostModel(spec.backbone).cost(spec.placement)


def build(network: NetworkSpec | str, *, drop_path_rate: float = 0.0) -> Network:
    """Build a network, initialised from torch's generator, in training mode.

    It maps images (B, C, H, W) to logits (B, classes).

    Args:
        network: the spec, or its text, such as `deit_tiny_patch16_224: V6L6/cb`.
        drop_path_rate: stochastic depth of the last block, a fraction.

    Raises:
        InputError: not a spec, or the placement is not legal on the backbone.
    """
    return build_resolved(spec_of(network), drop_path_rate=drop_path_rate)


def load(folder: str | Path) -> Network:
    """Load an exported network with its weights, in eval mode on the CPU.

    Args:
        folder: an exported folder.

    Raises:
        InputError: not an export, or the weights are not the recorded ones.
    """
    return load_network(folder)
