"""SkipAT: a layer maps the attention output of the layer before instead of attending.

"Skip-Attention: Improving Vision Transformers by Paying Less Attention" (arXiv:2301.02240). Of the
patch tokens of the branch output z that the layer before left,

    ECA(W_2 GELU(DW_5x5(GELU(W_1 z))))

with W_1: D -> 2 D, a depthwise 5 x 5 convolution over the grid, W_2: 2 D -> D, and efficient
channel attention: a convolution of 3 over the channels' means, through a sigmoid. Prefix tokens
keep the output of the layer before. Layers chain.

Shape letters: B batch, N tokens, T patch tokens, P prefix tokens, D embed_dim, Y x X grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sharedattn.mechanisms.interface import (
    OUTPUT,
    Branch,
    BranchCall,
    BranchResult,
    Colors,
    Options,
    PartCost,
)
from sharedattn.mechanisms.options import MechanismOptions
from sharedattn.shape import StageShape

KERNEL = 5
CHANNEL_KERNEL = 3


class OutputMap(nn.Module):
    """SkipAT's function of the layer before's attention output.

    Attributes:
        up: W_1, D -> 2 D.
        spatial: the depthwise convolution, of 2 D channels.
        down: W_2, 2 D -> D.
        channels: the convolution over the channels' means.
    """

    def __init__(self, embed_dim: int, grid: tuple[int, int], num_prefix_tokens: int) -> None:
        """For tokens of a grid, behind so many prefix tokens."""
        super().__init__()
        D = embed_dim
        self.grid = grid
        self.num_prefix_tokens = num_prefix_tokens
        self.up = nn.Linear(D, 2 * D)
        self.spatial = nn.Conv2d(2 * D, 2 * D, KERNEL, padding=KERNEL // 2, groups=2 * D)
        self.down = nn.Linear(2 * D, D)
        self.channels = nn.Conv1d(1, 1, CHANNEL_KERNEL, padding=CHANNEL_KERNEL // 2, bias=False)
        self.act = nn.GELU()

    def forward(self, z_BND: Tensor) -> Tensor:
        """The branch output (B, N, D), of that of the layer before."""
        P = self.num_prefix_tokens
        prefix_BPD, z_BTD = z_BND[:, :P], z_BND[:, P:]
        x_BTC = self.act(self.up(z_BTD))
        x_BCYX = self.spatial(x_BTC.transpose(1, 2).unflatten(2, self.grid))
        x_BTD = self.down(self.act(x_BCYX.flatten(2).transpose(1, 2)))
        gate_BD = torch.sigmoid(self.channels(x_BTD.mean(1).unsqueeze(1)).squeeze(1))
        return torch.cat([prefix_BPD, x_BTD * gate_BD.unsqueeze(1)], 1)


class SkipAttention(Branch):
    """The branch, which takes the last attention output and leaves its own."""

    letter = "S"
    name = "skipat"
    title = "skip attention"
    rank = 35
    colors = Colors(fill="#cc79a7", ink="#2b0f20", dark_fill="#cc79a7", dark_ink="#2b0f20")
    reads_tokens = False
    takes = (OUTPUT,)
    leaves = (OUTPUT,)
    free_operators = frozenset({"aten::unflatten"})

    def make(
        self, options: Options, stage: StageShape, network_options: MechanismOptions
    ) -> nn.Module:
        """The function of the stage's grid."""
        return OutputMap(stage.embed_dim, stage.grid, stage.num_prefix_tokens)

    def run(self, call: BranchCall) -> BranchResult:
        """The function of what the layer before left; the layer's own tokens are not read."""
        return BranchResult(branch_BND=call.module(call.carried[OUTPUT.name]))

    def cost(
        self,
        options: Options,
        stage: StageShape,
        network_options: MechanismOptions,
        *,
        has_bias: bool,
    ) -> PartCost:
        """params = 4 D^2 + 55 D + 3, macs = T (4 D^2 + 50 D) + 3 D."""
        D, area = stage.embed_dim, KERNEL**2
        T = stage.num_tokens - stage.num_prefix_tokens
        params = 4 * D**2 + 3 * D + 2 * D * (area + 1) + CHANNEL_KERNEL
        macs = T * (4 * D**2 + 2 * D * area) + CHANNEL_KERNEL * D
        return PartCost(params, macs)


SKIPAT = SkipAttention()
