"""CBAM: channels scaled by a bottleneck of their means and maxima, then pixels by a convolution.

"CBAM: Convolutional Block Attention Module" (arXiv:1807.06521), as built by timm, with the paper's
bottleneck of floor(C / r) channels. The pixels' part convolves mean and maximum over channels,
7 x 7, so that it needs a grid: layers of transformers have none, and are refused. It has a batch
norm; see `sharedattn.mechanisms.site_norm`.

Shape letters: B batch, C channels, Y x X grid, P pixels, m bottleneck channels, r reduction.
"""

from __future__ import annotations

import torch
from timm.layers.cbam import CbamModule
from torch import Tensor, nn

from sharedattn.errors import InputError
from sharedattn.mechanisms import site_norm
from sharedattn.mechanisms.bottleneck import bottleneck_channels
from sharedattn.mechanisms.interface import Colors, Gate, GateCall, GateResult
from sharedattn.mechanisms.options import MechanismOptions
from sharedattn.mechanisms.site_norm import SiteNorm
from sharedattn.shape import StageShape

_KERNEL = 7


def make_unit(channels: int, options: MechanismOptions) -> nn.Module:
    """timm's module for C `channels`, with a norm whose statistics layers may have themselves."""
    m = bottleneck_channels(channels, options.cbam_reduction, "cbam_reduction")
    made = CbamModule(channels, rd_channels=m, spatial_kernel_size=_KERNEL)
    made.spatial.conv.bn = SiteNorm(1, options)
    unit: nn.Module = made
    return unit


def params(channels: int, reduction: int) -> int:
    """Parameters of one unit: 2 C m + 2 * 49 + 2."""
    return 2 * channels * (channels // reduction) + 2 * _KERNEL**2 + site_norm.params(1)


def macs(channels: int, reduction: int, num_pixels: int) -> int:
    """Multiply-accumulates of one call: 4 C m + 2 * 49 P, and P of the norm."""
    products = 4 * channels * (channels // reduction) + 2 * _KERNEL**2 * num_pixels
    return products + site_norm.macs(1, num_pixels)


class CBAM(Gate):
    """The CBAM unit: by default one for each layer."""

    name = "cbam"
    code = "cbam"
    cell_code = "b"
    title = "CBAM unit"
    rank = 42
    colors = Colors(fill="#882255", ink="#ffffff", dark_fill="#cc6699", dark_ink="#111111")
    network_options = frozenset({"cbam_reduction", "bn"})
    free_operators = frozenset({"aten::amax"})
    one_per_layer = True

    def check(self, stage: StageShape, network_options: MechanismOptions) -> None:
        """Check that the stage has a grid, and the bottleneck channels.

        Raises:
            InputError: one is missing.
        """
        if stage.convolution is None:
            raise InputError(
                "`/cbam` convolves feature maps, and the tokens of a transformer's layer are no "
                "such maps; write /eca, /gc, /se, /sge, /srm or /dia1, which need none"
            )
        bottleneck_channels(stage.embed_dim, network_options.cbam_reduction, "cbam_reduction")

    def make_cell(self, stage: StageShape, network_options: MechanismOptions) -> nn.Module:
        """A unit of the stage's width."""
        return make_unit(stage.embed_dim, network_options)

    def make_site(self, stage: StageShape, network_options: MechanismOptions) -> nn.Module | None:
        """Statistics of the norm."""
        return site_norm.site_of(1, network_options)

    def run(self, call: GateCall) -> GateResult:
        """Scale channels, then pixels."""
        assert call.grid is not None
        channel, spatial = call.cell.channel, call.cell.spatial
        x_BCYX = call.x_BDP.reshape(*call.x_BDP.shape[:2], *call.grid)

        def mapped(pooled_BC11: Tensor) -> Tensor:
            out_BC11: Tensor = channel.fc2(channel.act(channel.fc1(pooled_BC11)))
            return out_BC11

        mean_BC11, max_BC11 = x_BCYX.mean((2, 3), keepdim=True), x_BCYX.amax((2, 3), keepdim=True)
        gate_BC11 = torch.sigmoid(mapped(mean_BC11) + mapped(max_BC11))
        x_BCYX = x_BCYX * gate_BC11
        pooled_B2YX = torch.cat([x_BCYX.mean(1, keepdim=True), x_BCYX.amax(1, keepdim=True)], 1)
        normed_B1YX = spatial.conv.bn(spatial.conv.conv(pooled_B2YX), call.site)
        pixels_B1P = torch.sigmoid(normed_B1YX).flatten(2)
        return GateResult(
            x_BDP=x_BCYX.flatten(2) * pixels_B1P,
            gate_BD=gate_BC11.flatten(1) * pixels_B1P.mean(2),
        )

    def cell_params(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """`params`."""
        return params(stage.embed_dim, network_options.cbam_reduction)

    def macs(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """`macs`."""
        return macs(stage.embed_dim, network_options.cbam_reduction, stage.num_tokens)

    def norm_macs(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """Those of the pixels' norm."""
        return site_norm.macs(1, stage.num_tokens)


CBAM_GATE = CBAM()
