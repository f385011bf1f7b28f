"""Squeeze-and-excitation with one pair of maps for many layers.

"Squeeze-and-Excitation Networks" (CVPR 2018, arXiv:1709.01507): a gate of each channel from the
token mean s, sigmoid(W_2 ReLU(W_1 s)), with a bottleneck of floor(D / 4) channels. Layers of a
group share the maps, as those of a DIA unit share its cell, and hand nothing on.

Shape letters: B batch, D channels, m bottleneck channels.
"""

from __future__ import annotations

from torch import nn

from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import Colors, Gate, GateCall, GateResult
from sharedattn.mechanisms.options import MechanismOptions
from sharedattn.shape import StageShape

REDUCTION = 4


class SharedSqueeze(Gate):
    """The gate; `/xse2` splits a stage into two groups."""

    name = "squeeze"
    code = "xse"
    cell_code = "x"
    title = "squeeze-and-excitation"
    rank = 50
    colors = Colors(fill="#f0e442", ink="#2b2800", dark_fill="#f0e442", dark_ink="#2b2800")

    def check(self, stage: StageShape, network_options: MechanismOptions) -> None:
        """Refuse a stage whose bottleneck would have no channel."""
        if stage.embed_dim < REDUCTION:
            raise InputError(
                f"`/xse` needs at least {REDUCTION} channels, and the stage has "
                f"{stage.embed_dim}; leave it out there"
            )

    def make_cell(self, stage: StageShape, network_options: MechanismOptions) -> nn.Module:
        """W_1, D -> m, and W_2, m -> D, each with a bias."""
        D, m = stage.embed_dim, stage.embed_dim // REDUCTION
        return nn.Sequential(nn.Linear(D, m), nn.ReLU(), nn.Linear(m, D), nn.Sigmoid())

    def run(self, call: GateCall) -> GateResult:
        """The gate of the mean alone."""
        return call.scaled(call.cell(call.mean))

    def cell_params(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """2 D m + m + D."""
        D, m = stage.embed_dim, stage.embed_dim // REDUCTION
        return 2 * D * m + m + D

    def macs(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """2 D m."""
        return 2 * stage.embed_dim * (stage.embed_dim // REDUCTION)


SQUEEZE = SharedSqueeze()
