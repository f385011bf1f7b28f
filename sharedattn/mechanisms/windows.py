"""Attention within windows of a grid: cyclic shift, padding, position bias, shift mask.

"Swin Transformer: Hierarchical Vision Transformer using Shifted Windows" (arXiv:2103.14030), in
timm's layout. A window's scores are Q K^T / sqrt(K) + B, with the relative-position bias B of its
Eq. 4. They are passed on with their bias, but without the mask that separates tokens which a
cyclic shift brought together. A less layer maps the bias with the scores (Psi B Theta^T, once for
all images and windows) and then adds the mask of its own windows, unmapped.

Departure: the mask is minus infinity where timm adds -100. The exponential of -100 is a subnormal
number, which makes a softmax's backward pass several times slower on a CPU; the outputs are equal
to rounding as long as no masked score exceeds another in its row by more than about 80.

Shape letters: B batch, N tokens of the image, W windows of an image, M tokens of a window,
D embed_dim, H heads, K head_dim, Y x X grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharedattn.mechanisms.scores import Scores, attend
from sharedattn.mechanisms.vanilla import SelfAttention


@dataclass(frozen=True, slots=True)
class Windows:
    """The division of a grid of tokens into windows.

    The grid is rolled up and to the left by `shift`, padded below and to the right to whole
    windows, and cut; windows are numbered, and tokens within a window, in raster order.

    Attributes:
        grid: rows and columns of the image's tokens.
        size: rows and columns of a window's tokens; neither exceeds the grid's.
        shift: rows and columns by which the grid is rolled; less than `size`.
    """

    grid: tuple[int, int]
    size: tuple[int, int]
    shift: tuple[int, int]

    @property
    def counts(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        (Y, X), (rows, columns) = self.grid, self.size
        return -(-Y // rows), -(-X // columns)

    @property
    def num_windows(self) -> int:
        """W."""
        return self.counts[0] * self.counts[1]

    @property
    def num_tokens(self) -> int:
        """M, tokens of a window, padding included."""
        return self.size[0] * self.size[1]

    def partition(self, x_BND: Tensor) -> Tensor:
        """Divide tokens (B, N, D) into windows, (B W, M, D); padding is zero."""
        (Y, X), (rows, columns), (down, right) = self.grid, self.size, self.counts
        B, _, D = x_BND.shape
        x_BYXD = x_BND.reshape(B, Y, X, D)
        if any(self.shift):
            x_BYXD = x_BYXD.roll((-self.shift[0], -self.shift[1]), dims=(1, 2))
        padding = (down * rows - Y, right * columns - X)
        if any(padding):
            x_BYXD = F.pad(x_BYXD, (0, 0, 0, padding[1], 0, padding[0]))
        windows = x_BYXD.reshape(B, down, rows, right, columns, D).transpose(2, 3)
        return windows.reshape(-1, self.num_tokens, D)

    def join(self, x_BMD: Tensor) -> Tensor:
        """Invert `partition`: (B W, M, D) to (B, N, D), with the padding dropped."""
        (Y, X), (rows, columns), (down, right) = self.grid, self.size, self.counts
        D = x_BMD.shape[-1]
        windows = x_BMD.reshape(-1, down, right, rows, columns, D).transpose(2, 3)
        x_BYXD = windows.reshape(-1, down * rows, right * columns, D)[:, :Y, :X]
        if any(self.shift):
            x_BYXD = x_BYXD.roll(self.shift, dims=(1, 2))
        return x_BYXD.reshape(-1, Y * X, D)

    def mask(self) -> Tensor | None:
        """(W, M, M), the addition to scores: minus infinity between tokens that lie apart.

        A roll brings the first rows behind the last ones; tokens of a window from different sides
        of such a seam do not attend to each other. As in timm, padding belongs to the last rows
        and columns and is not separated.

        Returns:
            The mask, on torch's default device, or None without a shift.
        """
        if not any(self.shift):
            return None
        (rows, columns), (down, right) = self.size, self.counts
        side_Y = _sides(down * rows, rows, self.shift[0])
        side_X = _sides(right * columns, columns, self.shift[1])
        side_N1 = (3 * side_Y[:, None] + side_X).reshape(-1, 1)
        padded = Windows((len(side_Y), len(side_X)), self.size, (0, 0))
        side_WM = padded.partition(side_N1.unsqueeze(0)).squeeze(-1)
        apart_WMM = side_WM[:, :, None] != side_WM[:, None]
        return torch.zeros(apart_WMM.shape).masked_fill(apart_WMM, -math.inf)


def _sides(length: int, size: int, shift: int) -> Tensor:
    """For each row of a padded, rolled grid: 0, or 1 in the last window, or 2 behind the seam."""
    row = torch.arange(length)
    return (row >= length - size).int() + (row >= length - shift).int()


def relative_position_index(size: tuple[int, int]) -> Tensor:
    """(M, M), the row of the bias table for each pair of a window's tokens.

    The rows of the table are the differences in raster order, from (1 - rows, 1 - columns) on.
    """
    rows, columns = size
    y_M = torch.arange(rows).repeat_interleave(columns)
    x_M = torch.arange(columns).repeat(rows)
    y_MM = y_M[:, None] - y_M + rows - 1
    x_MM = x_M[:, None] - x_M + columns - 1
    return y_MM * (2 * columns - 1) + x_MM


class WindowAttention(SelfAttention):
    """Self-attention within windows, with a relative-position bias on a layer's own scores.

    A layer that only reuses scores takes over their mapped bias, and has no table of its own.

    Attributes:
        windows: the division of the tokens into windows.
        relative_position_bias_table: ((2 rows - 1) (2 columns - 1), H), or None without
            `own_scores`.
        relative_position_index: (M, M), the row of the table for each pair, or None without
            `own_scores`.
        mask_WMM: (W, M, M), the shift mask, or None without a shift.
    """

    relative_position_bias_table: nn.Parameter | None
    relative_position_index: Tensor | None
    mask_WMM: Tensor | None

    def __init__(
        self,
        qkv: nn.Linear,
        proj: nn.Linear,
        bias_table: nn.Parameter,
        windows: Windows,
        *,
        own_scores: bool = True,
        fused: bool = True,
    ) -> None:
        """Take over the linear maps and the table.

        Args:
            qkv: D -> 3 D, rows in the order queries, keys, values.
            proj: D -> D.
            bias_table: ((2 rows - 1) (2 columns - 1), H).
            windows: the division of the tokens into windows.
            own_scores: as in `SelfAttention`.
            fused: as in `SelfAttention`.
        """
        super().__init__(qkv, proj, bias_table.shape[1], own_scores=own_scores, fused=fused)
        self.windows = windows
        index = relative_position_index(windows.size) if own_scores else None
        self.register_parameter("relative_position_bias_table", bias_table if own_scores else None)
        # Determined by the sizes, so not in the state dict, as in timm.
        self.register_buffer("relative_position_index", index, persistent=False)
        self.register_buffer("mask_WMM", windows.mask(), persistent=False)

    def scores_and_values(self, x_BND: Tensor) -> tuple[Scores, Tensor]:
        """Scores with their bias, and values (B W, H, M, K), of tokens (B, N, D)."""
        scores, v_BHMK = super().scores_and_values(self.windows.partition(x_BND))
        return scores.plus(self.position_bias()), v_BHMK

    def values(self, x_BND: Tensor) -> Tensor:
        """Values (B W, H, M, K) alone, of tokens (B, N, D)."""
        return super().values(self.windows.partition(x_BND))

    def position_bias(self) -> Tensor:
        """(H, M, M), the relative-position bias of every window's scores."""
        assert self.relative_position_bias_table is not None
        assert self.relative_position_index is not None
        bias_MMH = self.relative_position_bias_table[self.relative_position_index]
        return bias_MMH.permute(2, 0, 1).contiguous()

    def forward(
        self, scores: Scores, v_BHMK: Tensor, *, with_maps: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend within this layer's windows, project, and join the windows.

        Args:
            scores: this layer's own scores, or those that it reuses, without a shift mask.
            v_BHMK: (B W, H, M, K), this layer's own values.
            with_maps: whether to compute the attention explicitly and return its maps.

        Returns:
            Tokens (B, N, D), and the maps (B W, H, M, M) if requested, else None.
        """
        fused = self.fused and not with_maps
        out_BHMK, maps_BHMM = attend(scores, v_BHMK, fused=fused, mask_WNM=self.mask_WMM)
        out_BMD = self.proj(out_BHMK.transpose(1, 2).flatten(2))
        return self.windows.join(out_BMD), maps_BHMM if with_maps else None


def position_params(size: tuple[int, int], num_heads: int) -> int:
    """Parameters of the relative-position bias: H (2 rows - 1) (2 columns - 1)."""
    return num_heads * (2 * size[0] - 1) * (2 * size[1] - 1)
