"""Efficient channel attention: each channel is scaled by the means of its neighbours.

"ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks" (arXiv:1910.03151),
as built by timm: a convolution along channels, whose kernel grows with their number.

Shape letters: B batch, D channels, P tokens or pixels, k kernel size.
"""

from __future__ import annotations

import torch
from timm.layers.eca import EcaModule
from torch import nn

from sharedattn.mechanisms.interface import Colors, Gate, GateCall, GateResult
from sharedattn.mechanisms.options import MechanismOptions
from sharedattn.shape import StageShape


def params(channels: int) -> int:
    """Parameters of one unit, k: 3 below 128 channels, 5 below 2,048, 7 below 32,768.

    It is the odd number of t and t + 1, at least 3, with t = floor((log2(D) + 1) / 2).
    """
    t = channels.bit_length() // 2
    return max(t if t % 2 else t + 1, 3)


def macs(channels: int) -> int:
    """Multiply-accumulates of one call: k D."""
    return params(channels) * channels


class ECA(Gate):
    """The ECA unit: by default one for each layer."""

    name = "eca"
    code = "eca"
    cell_code = "e"
    title = "ECA unit"
    rank = 41
    colors = Colors(fill="#56b4e9", ink="#111111", dark_fill="#56b4e9", dark_ink="#111111")
    one_per_layer = True

    def make_cell(self, stage: StageShape, network_options: MechanismOptions) -> nn.Module:
        """timm's module for the stage's width."""
        unit: nn.Module = EcaModule(stage.embed_dim)
        return unit

    def run(self, call: GateCall) -> GateResult:
        """sigmoid of the convolved means."""
        gate_B1D = torch.sigmoid(call.cell.conv(call.mean.unsqueeze(1)))
        return call.scaled(gate_B1D.squeeze(1))

    def cell_params(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """`params`."""
        return params(stage.embed_dim)

    def macs(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """`macs`."""
        return macs(stage.embed_dim)


ECA_GATE = ECA()
