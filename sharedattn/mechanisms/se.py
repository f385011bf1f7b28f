"""Squeeze-and-excitation: the channels of a branch scaled by a bottleneck of their means.

"Squeeze-and-Excitation Networks" (arXiv:1709.01507): one unit for each block, or one shared by a
group of blocks, as in generic dense-and-implicit attention (arXiv:2210.16101). Units carry nothing
from block to block. The bottleneck has floor(D / r) channels, as published; timm's rounds them to
a multiple of 8.

Shape letters: B batch, D channels, m bottleneck channels, r reduction.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharedattn.mechanisms.bottleneck import bottleneck_channels
from sharedattn.mechanisms.interface import Colors, Gate, GateCall, GateResult
from sharedattn.mechanisms.options import MechanismOptions
from sharedattn.shape import StageShape


class SEUnit(nn.Module):
    """sigmoid(W2 ReLU(W1 s)), with biases, of the means s.

    Attributes:
        fc1: D -> m.
        fc2: m -> D.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        """Make a unit for D `channels` with m = floor(D / `reduction`).

        Raises:
            InputError: the bottleneck would have no channels.
        """
        super().__init__()
        m = bottleneck_channels(channels, reduction, "se_reduction")
        self.fc1 = nn.Linear(channels, m)
        self.fc2 = nn.Linear(m, channels)

    def forward(self, s_BD: Tensor) -> Tensor:
        """The gate (B, D) of means (B, D)."""
        return torch.sigmoid(self.fc2(F.relu(self.fc1(s_BD))))


def params(channels: int, reduction: int) -> int:
    """Parameters of one unit, however many blocks share it: 2 D m + m + D."""
    D, m = channels, channels // reduction
    return 2 * D * m + m + D


def macs(channels: int, reduction: int) -> int:
    """Multiply-accumulates of one call, of which each gated block makes one: 2 D m."""
    return 2 * channels * (channels // reduction)


class SE(Gate):
    """The SE unit: by default one for each layer."""

    name = "se"
    code = "se"
    cell_code = "u"
    title = "SE unit"
    rank = 40
    colors = Colors(fill="#d55e00", ink="#ffffff", dark_fill="#d55e00", dark_ink="#ffffff")
    network_options = frozenset({"se_reduction"})
    one_per_layer = True

    def check(self, stage: StageShape, network_options: MechanismOptions) -> None:
        """Check that the bottleneck has channels.

        Raises:
            InputError: the reduction is above the stage's width.
        """
        bottleneck_channels(stage.embed_dim, network_options.se_reduction, "se_reduction")

    def make_cell(self, stage: StageShape, network_options: MechanismOptions) -> SEUnit:
        """A unit of the stage's width."""
        return SEUnit(stage.embed_dim, network_options.se_reduction)

    def run(self, call: GateCall) -> GateResult:
        """Call the unit; nothing is carried on."""
        return call.scaled(call.cell(call.mean))

    def cell_params(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """`params`."""
        return params(stage.embed_dim, network_options.se_reduction)

    def macs(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """`macs`."""
        return macs(stage.embed_dim, network_options.se_reduction)


SE_GATE = SE()
