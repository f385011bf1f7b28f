"""Global context: channels scaled by a bottleneck of one attention-weighted mean.

"GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond" (arXiv:1904.11492), as
built by timm, which scales by the context instead of adding it. One attention map, from a linear
map D -> 1 and a softmax over tokens or pixels, weights the mean; the bottleneck has floor(D / r)
channels and a layer norm.

Shape letters: B batch, D channels, P tokens or pixels, m bottleneck channels, r reduction.
"""

from __future__ import annotations

import torch
from timm.layers.global_context import GlobalContext
from torch import nn

from sharedattn.mechanisms.bottleneck import bottleneck_channels
from sharedattn.mechanisms.interface import Colors, Gate, GateCall, GateResult
from sharedattn.mechanisms.options import MechanismOptions
from sharedattn.shape import StageShape, layer_norm_macs

_LEAST_BOTTLENECK = 2
"""A layer norm of a single channel is constant."""


def bottleneck(channels: int, reduction: int) -> int:
    """m = floor(D / r).

    Raises:
        InputError: the norm in the bottleneck would be of fewer than 2 channels.
    """
    return bottleneck_channels(channels, reduction, "gc_reduction", least=_LEAST_BOTTLENECK)


def params(channels: int, reduction: int) -> int:
    """Parameters of one unit: D + 1, then 2 D m + m + D, and 2 m of the norm."""
    D, m = channels, channels // reduction
    return D + 1 + 2 * D * m + m + D + 2 * m


def macs(channels: int, reduction: int, num_counted: int) -> int:
    """Multiply-accumulates of one call: 2 P D + 2 D m, and 5 m of the norm.

    Args:
        channels: D.
        reduction: r.
        num_counted: P, the tokens or pixels that enter the mean.
    """
    D, m = channels, channels // reduction
    return 2 * num_counted * D + 2 * D * m + layer_norm_macs(1, m)


class GC(Gate):
    """The global-context unit: by default one for each layer."""

    name = "gc"
    code = "gc"
    cell_code = "g"
    title = "GC unit"
    rank = 43
    colors = Colors(fill="#44aa99", ink="#111111", dark_fill="#44aa99", dark_ink="#111111")
    network_options = frozenset({"gc_reduction"})
    one_per_layer = True
    parameters_without_effect = frozenset({"conv_attn.bias"})

    def check(self, stage: StageShape, network_options: MechanismOptions) -> None:
        """Check that the bottleneck has channels.

        Raises:
            InputError: it has fewer than 2.
        """
        bottleneck(stage.embed_dim, network_options.gc_reduction)

    def make_cell(self, stage: StageShape, network_options: MechanismOptions) -> nn.Module:
        """timm's module for the stage's width."""
        m = bottleneck(stage.embed_dim, network_options.gc_reduction)
        unit: nn.Module = GlobalContext(stage.embed_dim, rd_channels=m)
        return unit

    def run(self, call: GateCall) -> GateResult:
        """sigmoid of the bottleneck of the weighted mean."""
        x_BDP = call.counted
        weights_B1P = call.cell.conv_attn(x_BDP.unsqueeze(3)).squeeze(3).softmax(2)
        context_BD1 = x_BDP @ weights_B1P.transpose(1, 2)
        mapped_BD11 = call.cell.mlp_scale(context_BD1.unsqueeze(3))
        return call.scaled(torch.sigmoid(mapped_BD11).flatten(1))

    def cell_params(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """`params`."""
        return params(stage.embed_dim, network_options.gc_reduction)

    def macs(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """`macs`."""
        num_counted = stage.num_tokens - network_options.num_left_out(stage.num_prefix_tokens)
        return macs(stage.embed_dim, network_options.gc_reduction, num_counted)

    def norm_macs(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """Those of the bottleneck's norm."""
        return layer_norm_macs(1, stage.embed_dim // network_options.gc_reduction)


GC_GATE = GC()
