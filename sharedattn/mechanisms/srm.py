"""Style-based recalibration: each channel is scaled by its own mean and deviation.

"SRM: A Style-based Recalibration Module for Convolutional Neural Networks" (arXiv:1903.10829): two
weights for each channel, on its mean and its standard deviation over tokens or pixels, a batch
norm of their sums and a sigmoid. The variance is the unbiased one, as in the published code. The
norm has statistics for each layer, or shared: see `sharedattn.mechanisms.site_norm`.

Shape letters: B batch, D channels, P tokens or pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sharedattn.errors import InputError
from sharedattn.mechanisms import site_norm
from sharedattn.mechanisms.interface import Colors, Gate, GateCall, GateResult
from sharedattn.mechanisms.options import MechanismOptions
from sharedattn.mechanisms.site_norm import SiteNorm
from sharedattn.shape import StageShape

_EPS = 1e-5


class SRMUnit(nn.Module):
    """sigmoid(norm(w_1 mean + w_2 deviation)), channel by channel.

    Attributes:
        weight: (D, 2), for mean and deviation; zero at the start, as published.
        norm: batch norm of D channels.
    """

    def __init__(self, channels: int, options: MechanismOptions) -> None:
        """Make a unit for D `channels`."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 2))
        self.norm = SiteNorm(channels, options)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset the weights to zero, where every gate is 1 / 2."""
        nn.init.zeros_(self.weight)

    def forward(self, x_BDP: Tensor, site: nn.Module | None) -> Tensor:
        """The gate (B, D) of a branch (B, D, P)."""
        deviation_BD = (x_BDP.var(dim=2) + _EPS).sqrt()
        sums_BD = self.weight[:, 0] * x_BDP.mean(dim=2) + self.weight[:, 1] * deviation_BD
        return torch.sigmoid(self.norm(sums_BD[:, :, None, None], site)).flatten(1)


def params(channels: int) -> int:
    """Parameters of one unit: 2 D, and 2 D of the norm."""
    return 2 * channels + site_norm.params(channels)


def macs(channels: int) -> int:
    """Multiply-accumulates of one call: D, all in the norm."""
    return site_norm.macs(channels, 1)


class SRM(Gate):
    """The SRM unit: by default one for each layer."""

    name = "srm"
    code = "srm"
    cell_code = "m"
    title = "SRM unit"
    rank = 44
    colors = Colors(fill="#ddcc77", ink="#111111", dark_fill="#ddcc77", dark_ink="#111111")
    network_options = frozenset({"bn"})
    free_operators = frozenset({"aten::var", "aten::sqrt"})
    one_per_layer = True

    def check(self, stage: StageShape, network_options: MechanismOptions) -> None:
        """Check that the branch varies.

        Raises:
            InputError: it has a single token or pixel.
        """
        check_varies("srm", stage, network_options)

    def make_cell(self, stage: StageShape, network_options: MechanismOptions) -> SRMUnit:
        """A unit of the stage's width."""
        return SRMUnit(stage.embed_dim, network_options)

    def make_site(self, stage: StageShape, network_options: MechanismOptions) -> nn.Module | None:
        """Statistics of the norm."""
        return site_norm.site_of(stage.embed_dim, network_options)

    def run(self, call: GateCall) -> GateResult:
        """Call the unit."""
        return call.scaled(call.cell(call.counted, call.site))

    def cell_params(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """`params`."""
        return params(stage.embed_dim)

    def macs(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """`macs`."""
        return macs(stage.embed_dim)

    def norm_macs(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """All of them."""
        return macs(stage.embed_dim)


def check_varies(code: str, stage: StageShape, options: MechanismOptions) -> None:
    """Check that a branch has a deviation over tokens or pixels.

    Args:
        code: code of the gate, for the message.
        stage: sizes of the stage.
        options: options of the mechanisms.

    Raises:
        InputError: it has one token or pixel.
    """
    if stage.num_tokens - options.num_left_out(stage.num_prefix_tokens) < 2:
        raise InputError(
            f"`/{code}` needs the deviation of a branch over two or more tokens or pixels, and "
            f"the stage has one; write /se or /eca there, or choose larger images"
        )


SRM_GATE = SRM()
