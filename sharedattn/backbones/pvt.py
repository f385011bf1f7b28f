"""Pyramid vision transformers of the first version: PVT-Tiny, -Small, -Medium and -Large.

"Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction without Convolutions"
(ICCV 2021, arXiv:2102.12122), which timm lacks. Four stages on ever coarser grids, each starting
with a convolution whose kernel equals its stride and with learned positions; keys and values of
spatially reduced tokens; a class token that joins in the last stage. Parts have the published
code's names, so that its checkpoints load; `PyramidVisionTransformer` holds the parts and
initialises them, and a network over an envelope runs them.

Positions fit one image size, where the published code resamples them in each run. As there, grids
are rounded down if the image size does not divide; sizes whose last pixels would have no effect
are refused. External attention, context broadcasting and DIA, which the four papers do not place
in a pyramid, act on all tokens of a stage, by our interpretation.

Shape letters: B batch, N tokens, D embed_dim, C channels, Y x X grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from timm.layers.drop import DropPath, calculate_drop_path_rates
from timm.layers.mlp import Mlp
from timm.layers.norm import LayerNorm
from timm.models.pvt_v2 import Attention
from torch import Tensor, nn

from sharedattn.backbones.family import (
    MAX_LAYERS,
    Family,
    KeywordRule,
    Keywords,
    mlp_ratio,
    norm_macs,
    numbers_of,
    per_stage,
    resample_positions,
    spatial_reduction_attention,
)
from sharedattn.image_size import AnySize, ImageSize
from sharedattn.mechanisms.spatial_reduction import (
    attention_shape,
    reduction_ratio,
)
from sharedattn.networks.block import Block
from sharedattn.networks.network import Network, NetworkPlan
from sharedattn.networks.part_sizes import conv_grid, num_params
from sharedattn.shape import BackboneShape, StageShape, mlp_macs, mlp_params


class PatchEmbed(nn.Module):
    """The transition to a coarser grid: a convolution of kernel and stride P, then a norm.

    Attributes:
        proj: the convolution.
        norm: norm of the tokens.
    """

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int) -> None:
        """Map `in_chans` channels to tokens of `embed_dim`."""
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Tokens (B, N, D) from a grid (B, C, Y, X)."""
        out_BND: Tensor = self.norm(self.proj(x_BCYX).flatten(2).transpose(1, 2))
        return out_BND


class PVTBlock(nn.Module):
    """The parts of one layer; PVTv2's attention has the same: q, kv, sr, norm, proj.

    Attributes:
        norm1: norm before the attention, with epsilon 1e-6 like `norm2`.
        attn: the attention.
        drop_path: stochastic depth of both branches.
        norm2: norm before the MLP.
        mlp: the MLP.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        sr_ratio: int,
        mlp_ratio: float,
        qkv_bias: bool,
        drop_path: float,
    ) -> None:
        """One layer with D = `embed_dim`; others as in `PyramidVisionTransformer`."""
        super().__init__()
        self.norm1 = LayerNorm(embed_dim)
        self.attn = Attention(embed_dim, num_heads, sr_ratio, qkv_bias=qkv_bias)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = LayerNorm(embed_dim)
        self.mlp = Mlp(embed_dim, int(embed_dim * mlp_ratio))


class PyramidVisionTransformer(nn.Module):
    """The parts of a PVT under their published names, initialised as published.

    Stage i, from 1, has `patch_embed`i, `pos_embed`i of (1, N, D) and `block`i.

    Attributes:
        image_size: height and width in pixels.
        grids: rows and columns of each stage's patches.
        cls_token: (1, 1, D), joins in the last stage.
        norm: norm after the last stage.
        head: classifier of the class token.
    """

    def __init__(
        self,
        img_size: AnySize = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        *,
        depths: Sequence[int] = (2, 2, 2, 2),
        embed_dims: Sequence[int] = (64, 128, 320, 512),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
        mlp_ratios: Sequence[float] = (8, 8, 4, 4),
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
    ) -> None:
        """Create a PVT; the defaults are PVT-Tiny's.

        Args:
            img_size: pixels on a side of the images, or their height and width.
            in_chans: number of image channels.
            num_classes: number of classes.
            depths: number of layers in each stage.
            embed_dims: D of each stage.
            num_heads: number of heads in each stage.
            sr_ratios: factor by which each stage reduces its keys along each side of its grid; 1
                in the last, whose class token is not on the grid.
            mlp_ratios: hidden channels of each stage's MLPs, divided by D.
            qkv_bias: whether queries, keys and values have a bias.
            drop_path_rate: stochastic depth of the last layer, growing linearly from 0.

        Raises:
            ValueError: an argument has not one number per stage of `depths`, the last stage
                reduces its keys, or the image has no patches.
        """
        super().__init__()
        _check_last_ratio(sr_ratios[-1])
        self.image_size = ImageSize.of(img_size)
        self.grids: list[tuple[int, int]] = []
        rates = calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True)
        grid: tuple[int, int] = self.image_size
        channels = in_chans
        per_stage = zip(embed_dims, num_heads, sr_ratios, mlp_ratios, rates, strict=True)
        for i, (D, H, sr_ratio, ratio, stage_rates) in enumerate(per_stage):
            patch_embed = PatchEmbed(4 if i == 0 else 2, channels, D)
            grid, channels = conv_grid(grid, patch_embed.proj), D
            if not all(grid):
                raise ValueError(
                    f"an image of {self.image_size} pixels leaves no patch in stage {i + 1}; "
                    f"raise the image size"
                )
            self.grids.append(grid)
            num_tokens = grid[0] * grid[1] + (i == len(depths) - 1)
            pos_embed = nn.Parameter(torch.empty(1, num_tokens, D))
            block = partial(PVTBlock, D, H, sr_ratio=sr_ratio, mlp_ratio=ratio, qkv_bias=qkv_bias)
            blocks = nn.ModuleList(block(drop_path=rate) for rate in stage_rates)
            _add_stage(self, i, patch_embed=patch_embed, pos_embed=pos_embed, block=blocks)
        self.norm = LayerNorm(channels)
        self.cls_token = nn.Parameter(torch.empty(1, 1, channels))
        self.head = nn.Linear(channels, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        """Initialise positions, class token and weights with deviation 0.02, biases with zero."""
        for name, parameter in self.named_parameters():
            if name.startswith(("pos_embed", "cls_token")):
                nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class PVTNetwork(Network):
    """A PVT over an envelope; attributes as in `PyramidVisionTransformer`."""

    classifier_parts: ClassVar[tuple[str, ...]] = ("norm", "head")

    def __init__(self, model: PyramidVisionTransformer, plan: NetworkPlan) -> None:
        """Take the parts of `model` that the envelope needs; see `Family`."""
        super().__init__(plan)
        for i, (positions, stage) in enumerate(
            zip(plan.envelope.stages, plan.shape.stages, strict=True)
        ):
            blocks = nn.ModuleList(
                Block(
                    block,
                    spatial_reduction_attention(block.attn, position, stage, fused=plan.fused),
                    position,
                    stage,
                    plan.backbone.options,
                )
                for block, position in zip(_part(model, "block", i), positions, strict=False)
            )
            own = {name: _part(model, name, i) for name in ("patch_embed", "pos_embed")}
            _add_stage(self, i, **own, block=blocks)
        self.norm = model.norm
        self.cls_token = model.cls_token
        self.head = model.head

    def reset_parameters(self) -> None:
        """Initialise positions and class token only, as published."""
        for i in range(len(self.shape.stages)):
            nn.init.trunc_normal_(_part(self, "pos_embed", i), std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def embed_images(self, images_BCYX: Tensor) -> Tensor:
        """Tokens (B, N, D) of the first stage's grid."""
        return self._enter(0, images_BCYX)

    def enter_stage(self, stage: int, tokens: Tensor) -> Tensor:
        """Convolve to the coarser grid, then apply norm, class token and positions."""
        B, _, D = tokens.shape
        x_BDYX = tokens.transpose(1, 2).reshape(B, D, *self.shape.stages[stage - 1].grid)
        return self._enter(stage, x_BDYX)

    def _enter(self, stage: int, x_BCYX: Tensor) -> Tensor:
        x_BND: Tensor = _part(self, "patch_embed", stage)(x_BCYX)
        if stage == len(self.shape.stages) - 1:
            x_BND = torch.cat([self.cls_token.expand(x_BND.shape[0], -1, -1), x_BND], dim=1)
        out_BND: Tensor = x_BND + _part(self, "pos_embed", stage)
        return out_BND

    def block(self, stage: int, index: int) -> Block:
        """The block at a layer position."""
        block = _part(self, "block", stage)[index]
        assert isinstance(block, Block)
        return block

    def resample_position(self, name: str, weight: Tensor, target: Network) -> Tensor:
        """Resample a stage's learned positions to another grid."""
        if not name.startswith("pos_embed"):
            return super().resample_position(name, weight, target)
        stage = int(name.removeprefix("pos_embed")) - 1
        return resample_positions(
            weight, self.shape.stages[stage].grid, target.shape.stages[stage].grid
        )

    def classify(self, tokens: Tensor) -> Tensor:
        """Logits (B, classes) from the normed class token."""
        logits_BC: Tensor = self.head(self.norm(tokens)[:, 0])
        return logits_BC


def _check_last_ratio(sr_ratio: int) -> None:
    if sr_ratio != 1:
        raise ValueError(
            f"`sr_ratios` ends in {sr_ratio}, but the class token of the last stage has no place "
            f"on a grid to reduce; end it in 1"
        )


def _add_stage(owner: nn.Module, stage: int, **parts: nn.Module | nn.Parameter) -> None:
    """Add a stage's parts under their published names, which end in its number from 1."""
    for name, part in parts.items():
        setattr(owner, f"{name}{stage + 1}", part)


def _part(owner: nn.Module, name: str, stage: int) -> Any:
    """The part with a published name and a stage's number, from 1."""
    return getattr(owner, f"{name}{stage + 1}")


def _describe(
    model: PyramidVisionTransformer, image_size: ImageSize | None = None
) -> BackboneShape:
    """Read the sizes of a PVT.

    Raises:
        InputError: the spatial reduction leaves a stage no keys.
    """
    stages = [_describe_stage(model, i) for i in range(len(model.grids))]
    first = stages[0]
    head_norm_macs = norm_macs(model.norm, stages[-1].num_tokens)
    return BackboneShape(
        image_size=model.image_size,
        stages=(replace(first, frame_params=0, frame_macs=0, frame_norm_macs=0), *stages[1:]),
        stem_params=first.frame_params,
        stem_macs=first.frame_macs,
        stem_norm_macs=first.frame_norm_macs,
        head_params=num_params(model.norm, model.head),
        head_macs=model.head.weight.numel() + head_norm_macs,
        head_norm_macs=head_norm_macs,
    )


def _describe_stage(model: PyramidVisionTransformer, i: int) -> StageShape:
    """Sizes of a stage, with the transition into it, for the first stage too."""
    patch_embed, pos_embed, blocks = (
        _part(model, name, i) for name in ("patch_embed", "pos_embed", "block")
    )
    block, grid = blocks[0], model.grids[i]
    num_patches, (_, N, D) = grid[0] * grid[1], pos_embed.shape
    hidden_dim = block.mlp.fc1.out_features
    frame_norm_macs = norm_macs(patch_embed.norm, num_patches)
    num_prefix_tokens = N - num_patches
    return StageShape(
        max_depth=len(blocks),
        num_tokens=N,
        num_prefix_tokens=num_prefix_tokens,
        grid=grid,
        embed_dim=D,
        num_heads=block.attn.num_heads,
        attention=attention_shape(grid, num_prefix_tokens, D, reduction_ratio(block.attn)),
        mlp_params=mlp_params(D, hidden_dim),
        mlp_macs=mlp_macs(N, D, hidden_dim),
        qkv_bias=block.attn.q.bias is not None,
        proj_bias=True,
        layer_scale=False,
        reduction=4 * 2**i,
        frame_params=num_params(patch_embed) + pos_embed.numel() + num_prefix_tokens * D,
        frame_macs=num_patches * patch_embed.proj.weight.numel() + frame_norm_macs,
        frame_norm_macs=frame_norm_macs,
    )


def _first_blocks(model: PyramidVisionTransformer) -> list[Any]:
    """The first block of each stage; a stage's blocks have equal sizes."""
    return [_part(model, "block", i)[0] for i in range(len(model.grids))]


def _seen_pixels(keywords: Keywords, side: int) -> int:
    """Tokens count if they are part of a key, or of a token of the next stage."""
    ratios = numbers_of(keywords["sr_ratios"])
    lengths = [side // 4 // 2**i for i in range(len(ratios))]
    # The last stage uses all its tokens as keys.
    seen = 0
    for length, ratio in zip(reversed(lengths), reversed(ratios), strict=True):
        seen = max(length // ratio * ratio, 2 * seen)
    return 4 * seen


PVT = Family(
    base_name="pvt",
    model_class=PyramidVisionTransformer,
    keywords={
        "depths": per_stage(
            lambda m: (len(_part(m, "block", i)) for i in range(len(m.grids))),
            most=MAX_LAYERS,
        ),
        "embed_dims": per_stage(lambda m: (b.attn.dim for b in _first_blocks(m))),
        "num_heads": per_stage(lambda m: (b.attn.num_heads for b in _first_blocks(m))),
        "sr_ratios": per_stage(lambda m: (reduction_ratio(b.attn) for b in _first_blocks(m))),
        "mlp_ratios": per_stage(
            lambda m: (mlp_ratio((b.attn.dim, b.mlp.fc1.out_features)) for b in _first_blocks(m)),
            whole=False,
        ),
        "qkv_bias": KeywordRule(lambda m: _first_blocks(m)[0].attn.q.bias is not None),
    },
    describe=_describe,
    make_network=PVTNetwork,
    seen_pixels=_seen_pixels,
    names={
        name: partial(PyramidVisionTransformer, depths=depths)
        for name, depths in {
            "pvt_tiny": (2, 2, 2, 2),
            "pvt_small": (3, 4, 6, 3),
            "pvt_medium": (3, 4, 18, 3),
            "pvt_large": (3, 8, 27, 3),
        }.items()
    },
)
