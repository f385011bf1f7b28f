"""Parts of independent writings of published networks: functions of weights by name, in eval mode.

Nothing here is the library's or timm's; each function is the formula of its paper.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Weights = Mapping[str, Tensor]


def part(weights: Weights, name: str) -> dict[str, Tensor]:
    """The weights of the module called `name`, by their names inside it."""
    return {key[len(name) + 1 :]: w for key, w in weights.items() if key.startswith(f"{name}.")}


def linear(x: Tensor, weights: Weights) -> Tensor:
    return x @ weights["weight"].flatten(1).T + weights.get("bias", torch.zeros(()))


def layer_norm(x: Tensor, weights: Weights) -> Tensor:
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
    return (x - mean) / (var + 1e-6).sqrt() * weights["weight"] + weights["bias"]


def batch_norm(x_BCYX: Tensor, weights: Weights) -> Tensor:
    mean, var, scale, shift = (
        weights[name][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (x_BCYX - mean) / (var + 1e-5).sqrt() * scale + shift


def mlp(x: Tensor, weights: Weights) -> Tensor:
    return linear(F.gelu(linear(x, part(weights, "fc1"))), part(weights, "fc2"))


def heads(x_BND: Tensor, num_heads: int) -> Tensor:
    return x_BND.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def patches(images: Tensor, weights: Weights) -> Tensor:
    """Patches of the size of the kernel, each through one linear map: (B, N, D)."""
    size = weights["weight"].shape[-1]
    columns = F.unfold(images, size, stride=size).transpose(1, 2)
    return linear(columns, weights)


def with_statistics(network: nn.Module) -> nn.Module:
    """The network with batch norms that have seen something."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network
