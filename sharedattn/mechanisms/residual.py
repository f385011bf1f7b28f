"""The attention residual: a stage's last scores, pooled, are added to the next stage's own.

LaViT (CVPR 2024, arXiv:2406.00427) calls it residual-based attention downsampling; its formula was
not available. Our reading is linear throughout: a learned 2 x 2 kernel per head pools the scores
of the previous stage on the grid of queries, and on the grid of keys if that shrinks too, as the
tokens are merged; a 1 x 1 convolution maps its heads to the next stage's; the result is added to
the scores of every vanilla layer of that stage. Prefix tokens have no place on the grid and are
left out. The convolution starts at zero, so that a new network equals one without residual.

Queries and keys are pooled before their product, which equals pooling the scores and costs less.

Shape letters: B batch, G heads of the stage before, H heads, N queries, M keys, K channels of a
head, Y x X grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharedattn.mechanisms.scores import Scores
from sharedattn.shape import StageShape


class AttentionResidual(nn.Module):
    """Pooled scores of the previous stage, as a bias of a stage's scores.

    Attributes:
        query_pool: (G, r, r), the kernel over the grid of queries, or None if the grid keeps its
            size.
        key_pool: (G, s, s), the same for the grid of keys.
        mix: (H, G), maps the previous stage's heads to this stage's.
    """

    query_pool: nn.Parameter | None
    key_pool: nn.Parameter | None

    def __init__(self, before: StageShape, stage: StageShape) -> None:
        """Map scores of stage `before` to those of `stage`; the grids must divide."""
        super().__init__()
        self.query_grid, self.key_grid = before.grid, before.attention.key_grid
        self.num_queries = stage.attention.num_queries
        self.num_keys = stage.attention.num_keys
        G = before.num_heads
        for name, ratio in zip(
            ("query_pool", "key_pool"), pooling_ratios(before, stage), strict=True
        ):
            pool = nn.Parameter(torch.empty(G, ratio, ratio)) if ratio > 1 else None
            self.register_parameter(name, pool)
        self.mix = nn.Parameter(torch.empty(stage.num_heads, G))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset to mean pooling with nothing added."""
        for pool in (self.query_pool, self.key_pool):
            if pool is not None:
                nn.init.constant_(pool, 1 / pool[0].numel())
        nn.init.zeros_(self.mix)

    def forward(self, scores: Scores) -> Tensor:
        """The bias (B, H, N, M) of this stage's scores from the previous stage's scores."""
        pooled = Scores(
            _pool(scores.q_BHNK, self.query_pool, self.query_grid),
            _pool(scores.k_BHMK, self.key_pool, self.key_grid),
            scores.scale,
        ).explicit()
        if scores.bias is not None:
            # A relative-position bias has no axis of images.
            bias_BGNM = scores.bias.reshape(-1, *scores.bias.shape[-3:])
            bias_BGNM = _pool(bias_BGNM, self.query_pool, self.query_grid)
            bias_BGMN = _pool(bias_BGNM.transpose(-2, -1), self.key_pool, self.key_grid)
            pooled = pooled + bias_BGMN.transpose(-2, -1)
        bias_BHNM = F.conv2d(pooled, self.mix[:, :, None, None])
        N, M = bias_BHNM.shape[-2:]
        return F.pad(bias_BHNM, (self.num_keys - M, 0, self.num_queries - N, 0))


def _pool(x_BGNK: Tensor, pool_Grr: Tensor | None, grid: tuple[int, int]) -> Tensor:
    """Pool tokens on their grid and drop prefix tokens, for any number of channels K."""
    Y, X = grid
    B, G, N, K = x_BGNK.shape
    x_BGNK = x_BGNK[:, :, N - Y * X :]
    if pool_Grr is None:
        return x_BGNK
    x_BCYX = x_BGNK.transpose(-2, -1).reshape(B, G * K, Y, X)
    kernel_C1rr = pool_Grr.repeat_interleave(K, dim=0).unsqueeze(1)
    out_BCYX = F.conv2d(x_BCYX, kernel_C1rr, stride=len(pool_Grr[0]), groups=G * K)
    return out_BCYX.reshape(B, G, K, -1).transpose(-2, -1)


def pooling_ratios(before: StageShape, stage: StageShape) -> tuple[int, int]:
    """The ratios by which the grids of queries and of keys shrink to the next stage.

    Raises:
        ValueError: a grid does not divide, or a stage has windows.
    """
    if before.attention.num_windows > 1 or stage.attention.num_windows > 1:
        raise ValueError("scores of windows have no grid over the image")
    ratios = []
    for old, new in (
        (before.grid, stage.grid),
        (before.attention.key_grid, stage.attention.key_grid),
    ):
        ratio = old[0] // new[0]
        if (new[0] * ratio, new[1] * ratio) != old:
            raise ValueError(f"a grid of {old[0]} x {old[1]} does not pool to {new[0]} x {new[1]}")
        ratios.append(ratio)
    return ratios[0], ratios[1]


def params(before: StageShape, stage: StageShape) -> int:
    """Parameters: G r^2 + G s^2 for kernels that shrink their grid, and H G."""
    pools = sum(ratio**2 for ratio in pooling_ratios(before, stage) if ratio > 1)
    return before.num_heads * (pools + stage.num_heads)


def macs(before: StageShape, stage: StageShape, *, has_bias: bool) -> int:
    """Multiply-accumulates for one image.

    With N' x M' pooled scores of D channels, M keys before and ratios r and s (a ratio of 1 needs
    no convolution):

        macs = r**2*N'*D + s**2*M'*D + N'*M'*D + G*H*N'*M'
               + r**2*N'*M*G + s**2*N'*M'*G                  with a bias before

    Args:
        before: the previous stage.
        stage: this stage.
        has_bias: whether the previous stage's scores carry a bias: a residual of their own, or
            relative positions.
    """
    r, s = pooling_ratios(before, stage)
    N, M = stage.grid[0] * stage.grid[1], stage.attention.key_grid[0] * stage.attention.key_grid[1]
    D, G, H = before.embed_dim, before.num_heads, stage.num_heads
    queries, keys = (r**2 if r > 1 else 0), (s**2 if s > 1 else 0)
    bias = queries * N * before.attention.num_keys * G + keys * N * M * G
    return queries * N * D + keys * M * D + N * M * D + G * H * N * M + bias * has_bias
