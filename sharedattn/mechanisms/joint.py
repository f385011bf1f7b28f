"""Joint maps with separate parameters for their parts, for training with shared weights.

timm's joint maps compute queries, keys and values (`qkv`), or keys and values (`kv`), by one
matrix. In a step that only runs layers that use the values, the rows of queries and keys would
have a gradient of zero, and still be decayed and moved by momentum. With separate parameters,
unused parts have no gradient, and an optimiser leaves them alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharedattn.mechanisms.vanilla import ScoredAttention

JOINT_MAPS = ("qkv", "kv")


class SplitLinear(nn.Module):
    """A linear map from D channels whose rows are P parts of D, each a linear map of its own.

    It loads a state dict of the joint map (`weight`, `bias`) as well as one of the parts.

    Attributes:
        parts: linear maps D -> D, in the order of the joint map's rows.
        in_features: D.
    """

    def __init__(self, joint: nn.Linear) -> None:
        """Copy the rows of `joint`, D -> P D, into P parts."""
        super().__init__()
        D = self.in_features = joint.in_features
        like = {"device": joint.weight.device, "dtype": joint.weight.dtype}
        self.parts = nn.ModuleList(
            nn.Linear(D, D, bias=joint.bias is not None, **like)
            for _ in range(joint.out_features // D)
        )
        self.register_load_state_dict_pre_hook(_split_joint)  # type: ignore[no-untyped-call]
        self.load_state_dict(joint.state_dict())

    @property
    def weight(self) -> Tensor:
        """The joint map's weight, (P D, D), concatenated from the parts."""
        return torch.cat([part.get_parameter("weight") for part in self.parts])

    @property
    def bias(self) -> Tensor | None:
        """The joint map's bias, (P D,), concatenated from the parts, or None."""
        if self.parts[0].bias is None:
            return None
        return torch.cat([part.get_parameter("bias") for part in self.parts])

    def forward(self, x_BND: Tensor) -> Tensor:
        """All parts concatenated, (B, N, P D)."""
        return F.linear(x_BND, self.weight, self.bias)

    def last(self, x_BND: Tensor) -> Tensor:
        """The last part alone, (B, N, D)."""
        last_BND: Tensor = self.parts[-1](x_BND)
        return last_BND

    def joined(self) -> nn.Linear:
        """Convert back to the joint map."""
        with torch.device("meta"):
            joint = nn.Linear(
                self.in_features, len(self.parts) * self.in_features, bias=self.bias is not None
            )
        joint.load_state_dict(
            {
                name: tensor.detach()
                for name, tensor in (("weight", self.weight), ("bias", self.bias))
                if tensor is not None
            },
            assign=True,
        )
        return joint.requires_grad_(True)


def split_joint_maps(network: nn.Module) -> None:
    """Split a network's joint maps into parts with their own parameters, in place."""
    for module in network.modules():
        if isinstance(module, ScoredAttention):
            for name in JOINT_MAPS:
                joint = getattr(module, name, None)
                if isinstance(joint, nn.Linear):
                    setattr(module, name, SplitLinear(joint))


def join_joint_maps(network: nn.Module) -> None:
    """Join split maps again, in place, so that the state dict has timm's names."""
    for module in network.modules():
        if isinstance(module, ScoredAttention):
            for name in JOINT_MAPS:
                split = getattr(module, name, None)
                if isinstance(split, SplitLinear):
                    setattr(module, name, split.joined())


def joint_name(name: str) -> str:
    """The name of a part's parameter in the joint map's state dict."""
    pieces = name.split(".")
    if "parts" in pieces:
        at = pieces.index("parts")
        if pieces[at - 1] in JOINT_MAPS:
            del pieces[at : at + 2]
    return ".".join(pieces)


def _split_joint(module: SplitLinear, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
    """Split the joint map's weights in a state dict into those of the parts, in place."""
    for leaf in ("weight", "bias"):
        joint = state_dict.pop(f"{prefix}{leaf}", None)
        if joint is not None:
            for i, part in enumerate(joint.split(module.in_features)):
                state_dict[f"{prefix}parts.{i}.{leaf}"] = part
