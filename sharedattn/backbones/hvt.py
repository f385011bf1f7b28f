"""HVT: a vision transformer without class token that pools its tokens on the way.

"Scalable Vision Transformers with Hierarchical Pooling" (arXiv:2103.10619), following the
published code: after block 0, and then after every w-th block, tokens are max-pooled along their
raster line, 3 to 1 at stride 2, and get new positions; the final norm is followed by the mean of
the tokens. All else is timm's vision transformer, with its initialisation. Each pooling begins a
stage: with 12 blocks, w = 4 gives stages of 1, 4, 4 and 3 blocks, of 196, 97, 48 and 23
tokens at 224 px.

Weights have the published code's names, except that positions after a pooling are
`stage_pos_embeds.k` here, and `pos_embed` of the previous block there.

Pooled tokens form a line, not a grid: stages after the first have a grid of one row, and no
feature map.

Shape letters: B batch, N tokens, D embed_dim.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharedattn.backbones.family import Family, KeywordRule, weight_macs, whole_patches
from sharedattn.backbones.vit import VIT, ViTNetwork, ViTParts, vit_shape, vit_stage
from sharedattn.image_size import ImageSize
from sharedattn.networks.block import Block
from sharedattn.networks.network import Network, NetworkPlan
from sharedattn.shape import BackboneShape

POOL_SIZE, POOL_STRIDE = 3, 2


class HierarchicalViT(ViTParts):
    """The parts of an HVT; default sizes are the published code's.

    Attributes:
        pool_block_width: w.
        stage_pos_embeds: positions (1, N, D) of each stage's tokens, except the first's.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 192,
        depth: int = 12,
        num_heads: int = 3,
        pool_block_width: int = 4,
        **arguments: Any,
    ) -> None:
        """Take timm's arguments, and w.

        Raises:
            ValueError: a pooling has no tokens to pool, or no block after it.
        """
        super().__init__(
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            class_token=False,
            global_pool="avg",
            fc_norm=False,
            **arguments,
        )
        self.pool_block_width = pool_block_width
        N = self.patch_embed.num_patches
        if (depth - 1) % pool_block_width == 0:
            raise ValueError(
                f"`depth`={depth} ends with a pooling, since there is one after block 1 and after "
                f"every {pool_block_width} more; change depth or pool_block_width"
            )
        self.stage_pos_embeds = nn.ParameterList()
        for _ in self.stage_depths[1:]:
            if N < POOL_SIZE:
                raise ValueError(
                    f"a pooling takes {POOL_SIZE} tokens or more, but {N} are left after "
                    f"{len(self.stage_pos_embeds)} poolings; raise `pool_block_width` or the "
                    f"image size"
                )
            N = (N - POOL_SIZE) // POOL_STRIDE + 1
            self.stage_pos_embeds.append(torch.empty(1, N, self.embed_dim))
        _reset_positions(self.stage_pos_embeds)

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """Number of blocks in each stage: 1, then w at a time."""
        rest, w = len(self.blocks) - 1, self.pool_block_width
        return (1, *(min(w, rest - before) for before in range(0, rest, w)))


class HVTNetwork(ViTNetwork):
    """An HVT over an envelope; further attributes as in `ViTNetwork`.

    Attributes:
        stage_pos_embeds: positions (1, N, D) of each stage's tokens, except the first's.
    """

    def __init__(self, model: Any, plan: NetworkPlan) -> None:
        """Take the parts of `model` that the envelope needs; see `Family`."""
        super().__init__(model, plan)
        self.stage_pos_embeds = model.stage_pos_embeds

    def make_blocks(self, model: Any) -> nn.Module:
        """Build the layers, by number in the backbone, from the blocks of `model`."""
        return nn.ModuleDict(
            {
                str(number): self.make_block(model.blocks[number], position, stage)
                for i, stage in enumerate(self.shape.stages)
                for number, position in enumerate(self.envelope.stages[i], self._first(i))
            }
        )

    def reset_parameters(self) -> None:
        """Initialise positions only, as timm does."""
        super().reset_parameters()
        _reset_positions(self.stage_pos_embeds)

    def enter_stage(self, stage: int, tokens: Tensor) -> Tensor:
        """Pool tokens to (B, N, D), and add the positions of `stage`."""
        pooled_BDN = F.max_pool1d(tokens.transpose(1, 2), POOL_SIZE, POOL_STRIDE)
        out_BND: Tensor = pooled_BDN.transpose(1, 2) + self.stage_pos_embeds[stage - 1]
        return out_BND

    def resample_position(self, name: str, weight: Tensor, target: Network) -> Tensor:
        """Refuse pooled tokens: their line folds differently for rows of another length."""
        if name == "pos_embed":
            return super().resample_position(name, weight, target)
        return Network.resample_position(self, name, weight, target)

    def block(self, stage: int, index: int) -> Block:
        """The block at a layer position."""
        return super().block(0, self._first(stage) + index)

    def _first(self, stage: int) -> int:
        """Number in the backbone of a stage's first block."""
        return sum(sizes.max_depth for sizes in self.shape.stages[:stage])


def _reset_positions(pos_embeds: nn.ParameterList) -> None:
    for pos_embed in pos_embeds:
        nn.init.trunc_normal_(pos_embed, std=0.02)


def _describe(model: Any, image_size: ImageSize | None = None) -> BackboneShape:
    """Read the sizes of a `HierarchicalViT`.

    Raises:
        InputError: the image has no patches.
    """
    whole, depths = vit_stage(model), model.stage_depths
    stages = [replace(whole, max_depth=depths[0])]
    for depth, pos_embed in zip(depths[1:], model.stage_pos_embeds, strict=True):
        N = pos_embed.shape[1]
        attention = replace(whole.attention, num_queries=N, num_keys=N, key_grid=(1, N))
        stages.append(
            replace(
                whole,
                max_depth=depth,
                num_tokens=N,
                grid=(1, N),
                attention=attention,
                mlp_macs=weight_macs(model.blocks[0].mlp, N),
                frame_params=pos_embed.numel(),
                reduction=None,
            )
        )
    return vit_shape(model, tuple(stages))


_PUBLISHED = {
    "hvt_ti_1": {"pool_block_width": 12},
    "scale_hvt_ti_4": {"embed_dim": 384, "num_heads": 6, "pool_block_width": 3},
    "hvt_s_1": {"embed_dim": 384, "num_heads": 6, "pool_block_width": 12},
    "hvt_s_2": {"embed_dim": 384, "num_heads": 6, "pool_block_width": 6},
    "hvt_s_3": {"embed_dim": 384, "num_heads": 6, "pool_block_width": 4},
}
"""The published configurations by name."""

HVT = Family(
    base_name="hvt",
    model_class=HierarchicalViT,
    keywords={
        **{
            key: VIT.keywords[key]
            for key in ("embed_dim", "depth", "num_heads", "mlp_ratio", "patch_size", "qkv_bias")
        },
        "pool_block_width": KeywordRule(
            # Values beyond the depth all mean a single pooling.
            lambda m: min(m.pool_block_width, len(m.blocks))
        ),
    },
    describe=_describe,
    make_network=HVTNetwork,
    seen_pixels=whole_patches,
    names={name: partial(HierarchicalViT, **sizes) for name, sizes in _PUBLISHED.items()},
)
