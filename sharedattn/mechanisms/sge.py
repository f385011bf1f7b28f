"""Spatial group-wise enhance: each token or pixel is scaled by its likeness to the mean.

"Spatial Group-wise Enhance: Improving Semantic Feature Learning in Convolutional Networks"
(arXiv:1905.09646). Channels are split into G groups. In each, a token or pixel has the product of
its channels with their mean over all; these products are normalised over tokens or pixels, scaled
and shifted by two weights of the group, and their sigmoid scales the group's channels there.

The deviation is sqrt(variance + 1e-10) where the published code has deviation + 1e-5: a branch of
zeros, with which residual blocks may start, would have no gradient otherwise.

Shape letters: B batch, D channels, P tokens or pixels, G groups, K channels of a group.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import Colors, Gate, GateCall, GateResult
from sharedattn.mechanisms.options import MechanismOptions
from sharedattn.mechanisms.srm import check_varies
from sharedattn.shape import StageShape

_EPS = 1e-10


class SGEUnit(nn.Module):
    """sigmoid(w t + b), with t the normalised likeness to the group's mean.

    Attributes:
        weight: (G,), w; zero at the start, as published.
        bias: (G,), b; one at the start.
    """

    def __init__(self, num_groups: int) -> None:
        """Make a unit of G groups."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_groups))
        self.bias = nn.Parameter(torch.empty(num_groups))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset to gates of sigmoid(1) everywhere."""
        nn.init.zeros_(self.weight)
        nn.init.ones_(self.bias)

    def forward(self, x_BGKP: Tensor, num_left_out: int) -> Tensor:
        """The gate (B, G, P) of a branch (B, G, K, P).

        Args:
            x_BGKP: (B, G, K, P).
            num_left_out: number of first tokens that enter no mean; they are gated like all.
        """
        counted = slice(num_left_out, None)
        likeness_BGP = (x_BGKP * x_BGKP[..., counted].mean(3, keepdim=True)).sum(2)
        likeness_BGP = likeness_BGP - likeness_BGP[..., counted].mean(2, keepdim=True)
        variance_BG1 = likeness_BGP[..., counted].var(2, keepdim=True)
        likeness_BGP = likeness_BGP / (variance_BG1 + _EPS).sqrt()
        return torch.sigmoid(likeness_BGP * self.weight[:, None] + self.bias[:, None])


def params(num_groups: int) -> int:
    """Parameters of one unit: 2 G."""
    return 2 * num_groups


class SGE(Gate):
    """The SGE unit: by default one for each layer; it has no multiply-accumulates as counted."""

    name = "sge"
    code = "sge"
    cell_code = "p"
    title = "SGE unit"
    rank = 45
    colors = Colors(fill="#332288", ink="#ffffff", dark_fill="#8877dd", dark_ink="#111111")
    network_options = frozenset({"sge_groups"})
    free_operators = frozenset({"aten::var", "aten::sqrt"})
    one_per_layer = True

    def check(self, stage: StageShape, network_options: MechanismOptions) -> None:
        """Check that groups divide the channels, and the branch varies.

        Raises:
            InputError: they do not, or it has a single token or pixel.
        """
        D, G = stage.embed_dim, network_options.sge_groups
        if D % G:
            divisors = [n for n in range(1, D + 1) if D % n == 0]
            nearest = min(divisors, key=lambda n: (abs(n - G), n))
            raise InputError(
                f"`sge_groups` is {G}, which does not divide the stage's {D} channels; the "
                f"nearest that does is sge_groups={nearest}"
            )
        check_varies("sge", stage, network_options)

    def make_cell(self, stage: StageShape, network_options: MechanismOptions) -> SGEUnit:
        """A unit of the network's number of groups."""
        return SGEUnit(network_options.sge_groups)

    def run(self, call: GateCall) -> GateResult:
        """Scale each group's channels at each token or pixel."""
        B, D, P = call.x_BDP.shape
        G = len(call.cell.weight)
        x_BGKP = call.x_BDP.reshape(B, G, D // G, P)
        gate_BGP = call.cell(x_BGKP, call.num_left_out)
        return GateResult(
            x_BDP=(x_BGKP * gate_BGP.unsqueeze(2)).flatten(1, 2),
            gate_BD=gate_BGP.mean(2).repeat_interleave(D // G, dim=1),
        )

    def cell_params(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """`params`."""
        return params(network_options.sge_groups)

    def macs(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """Zero: products, sums and the sigmoid are by elements."""
        return 0


SGE_GATE = SGE()
