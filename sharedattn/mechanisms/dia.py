"""Dense-and-implicit attention: one small recurrent cell gates the channels of many blocks.

DIANet (AAAI 2020, arXiv:1905.10671) and its generic form (arXiv:2210.16101). The blocks of a group
share one cell. Each calls it once with the token mean of its own branch, passes the state on to
the next block of the group, and scales the channels of the branch by the cell's output.

The wiring in a transformer (token mean of the MLP's branch instead of global average pooling) is
ours; the cell is the published one, by its code and its parameter counts.

Its gates start near a quarter, which changes a trained network too much. The start `one` is ours
as well: the gate is four times the published one, and the last maps start at zero, so that every
gate of a new cell is exactly 1.

DIA-LSTM Light is named in the generic form's abstract, "retaining most benefits while minimizing
overhead"; its definition was not available. `dia_form=light` is our reading: one net of the sum of
input and carried state in place of a net for each, with half of the parameters and products.

Shape letters: B batch, D channels, m bottleneck channels, r reduction.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import Colors, Gate, GateCall, GateResult
from sharedattn.mechanisms.options import MechanismOptions
from sharedattn.shape import StageShape


class DIACell(nn.Module):
    """The DIA-LSTM cell: an LSTM cell with bottlenecks whose output is the channel gate.

    With s the input, h and c the carried state and two nets D -> m -> 4 D (ReLU between):

        i, f, u, o = split(input_net(s) + hidden_net(h))
        c' = sigmoid(f) c + sigmoid(i) tanh(u)
        h' = scale sigmoid(o) sigmoid(c')

    h' is the gate, with scale 1 as published, and scale 4 with the start `one`. The last sigmoid,
    where an LSTM has tanh, keeps it in (0, scale). In the form `light`, which is ours, what is
    split is input_net(s + h) alone.

    Attributes:
        scale: scale of the gate.
        input_net: D -> m -> 4 D, applied to the input.
        hidden_net: D -> m -> 4 D, applied to the carried h, or None in the form `light`.
    """

    def __init__(
        self,
        channels: int,
        reduction: int,
        start: Literal["paper", "one"] = "paper",
        form: Literal["paper", "light"] = "paper",
    ) -> None:
        """Make a cell for D `channels` with m = floor(D / `reduction`).

        Args:
            channels: D.
            reduction: r.
            start: `one` for gates of exactly 1 until the cell is trained, whatever the input;
                `paper` as published.
            form: `light` for one net of s + h, `paper` for a net of each.

        Raises:
            InputError: the bottleneck would have no channels.
        """
        super().__init__()
        _check_bottleneck(channels, reduction)
        bottleneck = channels // reduction
        self.scale = 4.0 if start == "one" else 1.0
        last = _ZeroLinear if start == "one" else nn.Linear
        self.input_net = _bottleneck_net(channels, bottleneck, last)
        is_light = form == "light"
        self.hidden_net = None if is_light else _bottleneck_net(channels, bottleneck, last)

    def forward(self, s_BD: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Compute one gate.

        Args:
            s_BD: (B, D), the block's mean over tokens.
            state: h and c, each (B, D), from the group's previous block, or None for zeros at its
                first.

        Returns:
            The new h, which is the gate, and the new c; each (B, D).
        """
        if state is None:
            state = (torch.zeros_like(s_BD), torch.zeros_like(s_BD))
        h_BD, c_BD = state
        gates_B4D = (
            self.input_net(s_BD + h_BD)
            if self.hidden_net is None
            else self.input_net(s_BD) + self.hidden_net(h_BD)
        )
        i_BD, f_BD, u_BD, o_BD = gates_B4D.chunk(4, dim=-1)
        c_BD = torch.sigmoid(f_BD) * c_BD + torch.sigmoid(i_BD) * torch.tanh(u_BD)
        h_BD = torch.sigmoid(o_BD) * torch.sigmoid(c_BD)
        return h_BD if self.scale == 1 else self.scale * h_BD, c_BD


class _ZeroLinear(nn.Linear):
    """A linear map that is initialised at zero."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


def _bottleneck_net(channels: int, bottleneck: int, last: type[nn.Linear]) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, bottleneck), nn.ReLU(), last(bottleneck, 4 * channels)
    )


def params(channels: int, reduction: int, *, light: bool = False) -> int:
    """Parameters of one cell, however many blocks share it: 10 D m + 2 m + 8 D, half if light."""
    D, m = channels, channels // reduction
    return (5 * D * m + m + 4 * D) * (1 if light else 2)


def macs(channels: int, reduction: int, *, light: bool = False) -> int:
    """Multiply-accumulates of one call: 10 D m, half if light; each gated block makes one."""
    return 5 * channels * (channels // reduction) * (1 if light else 2)


def _check_bottleneck(channels: int, reduction: int) -> None:
    if reduction > channels:
        raise InputError(
            f"`dia_reduction` is {reduction}, more than `embed_dim`, {channels}, which leaves no "
            f"channel; the most that fits is dia_reduction={channels}"
        )


class DIA(Gate):
    """The DIA cell, whose state passes from layer to layer within a group."""

    name = "dia"
    code = "dia"
    cell_code = "d"
    title = "DIA unit"
    rank = 10
    colors = Colors(fill="#009e73", ink="#ffffff", dark_fill="#009e73", dark_ink="#ffffff")
    network_options = frozenset({"dia_form", "dia_reduction", "dia_start"})

    def check(self, stage: StageShape, network_options: MechanismOptions) -> None:
        """Check that the bottleneck has channels.

        Raises:
            InputError: the reduction is above the stage's width.
        """
        _check_bottleneck(stage.embed_dim, network_options.dia_reduction)

    def make_cell(self, stage: StageShape, network_options: MechanismOptions) -> DIACell:
        """A cell of the stage's width."""
        return DIACell(
            stage.embed_dim,
            network_options.dia_reduction,
            network_options.dia_start,
            network_options.dia_form,
        )

    def run(self, call: GateCall) -> GateResult:
        """Call the cell once; h, which is the gate, and c, each (B, D), are carried on."""
        gate_BD, c_BD = call.cell(call.mean, call.carried)
        return call.scaled(gate_BD, (gate_BD, c_BD))

    def cell_params(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """`params`."""
        light = network_options.dia_form == "light"
        return params(stage.embed_dim, network_options.dia_reduction, light=light)

    def macs(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """`macs`."""
        light = network_options.dia_form == "light"
        return macs(stage.embed_dim, network_options.dia_reduction, light=light)


DIA_GATE = DIA()
