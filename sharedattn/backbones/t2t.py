"""T2T-ViT with external attention in its tokens-to-token module: the backbone of EAMLP.

"Tokens-to-Token ViT" (arXiv:2101.11986), following the code of external attention
(arXiv:2105.02358): three overlapping splits of the image (unfold 7/4, 3/2, 3/2), a single-head
external-attention layer with 128 slots after each of the first two, then one stage of equal
pre-norm blocks over a class token and the patches, with fixed sinusoidal positions. timm has
neither. The published models have multi-head external attention in every block: EAMLP-14 is
`t2t_ea_14: E14/mea`; with `V14` the blocks have self-attention.

Weights before and after the blocks have the published code's names; inside a block, its
`attn.trans_dims`, `attn.linear_0`, `attn.linear_1` and `attn.proj` are `external_mea.query`,
`memory_key`, `memory_value` and `proj` here.

Differences from that code: M_v starts as a copy of M_k instead of sharing its storage, which an
optimiser would update twice; the double norm omits its 1e-9; the number of positions is that of
the splits, which differs from its (image size / 16)^2 if 16 does not divide the image size.

Shape letters: B batch, N tokens, D embed_dim, C channels, S slots, T channels of a split's token,
Y x X grid.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar

import torch
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor, nn

from sharedattn.backbones.family import (
    MAX_LAYERS,
    Family,
    KeywordRule,
    Keywords,
    mlp_ratio,
    norm_macs,
    weight_macs,
)
from sharedattn.backbones.vit import self_attention
from sharedattn.errors import InputError
from sharedattn.image_size import AnySize, ImageSize
from sharedattn.mechanisms.external import double_norm
from sharedattn.networks.block import Block
from sharedattn.networks.network import Network, NetworkPlan
from sharedattn.networks.part_sizes import conv_grid, num_params
from sharedattn.shape import AttentionShape, BackboneShape, StageShape

TOKEN_SLOTS = 128
"""Memory slots of the tokens-to-token module, fixed in the published code."""

TOKEN_DROPOUT = 0.1
"""Dropout of its maps and outputs, also fixed there."""


class TokenAttention(nn.Module):
    """Single-head external attention T -> D: q + proj(double_norm(q M_k^T) M_v), q the query.

    Attributes:
        q_linear: the query, T -> D; the skip starts here, where the width is D already.
        linear_0: M_k, D -> S without bias.
        linear_1: M_v, S -> D.
        proj: D -> D.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        """Map tokens of `in_dim` channels to tokens of `out_dim`."""
        super().__init__()
        self.q_linear = nn.Linear(in_dim, out_dim)
        self.linear_0 = nn.Linear(out_dim, TOKEN_SLOTS, bias=False)
        self.linear_1 = nn.Linear(TOKEN_SLOTS, out_dim)
        self.attn_drop = nn.Dropout(TOKEN_DROPOUT)
        self.proj = nn.Linear(out_dim, out_dim)
        self.proj_drop = nn.Dropout(TOKEN_DROPOUT)

    def forward(self, x_BNT: Tensor) -> Tensor:
        """Tokens (B, N, D) from tokens (B, N, T)."""
        q_BND = self.q_linear(x_BNT)
        maps_BNS = self.attn_drop(double_norm(self.linear_0(q_BND)))
        out_BND: Tensor = q_BND + self.proj_drop(self.proj(self.linear_1(maps_BNS)))
        return out_BND


class TokenTransformer(nn.Module):
    """A block T -> D: external attention with its own skip, then an MLP of ratio 1."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        """Map tokens of `in_dim` channels to tokens of `out_dim`."""
        super().__init__()
        self.norm1 = nn.LayerNorm(in_dim)
        self.attn = TokenAttention(in_dim, out_dim)
        self.norm2 = nn.LayerNorm(out_dim)
        self.mlp = Mlp(out_dim)

    def forward(self, x_BNT: Tensor) -> Tensor:
        """Tokens (B, N, D) from tokens (B, N, T)."""
        x_BND = self.attn(self.norm1(x_BNT))
        out_BND: Tensor = x_BND + self.mlp(self.norm2(x_BND))
        return out_BND

    def norm_macs(self, num_tokens: int) -> int:
        """MACs of the norms for a number of tokens."""
        return norm_macs(self.norm1, num_tokens) + norm_macs(self.norm2, num_tokens)


class TokensToToken(nn.Module):
    """Converts images to tokens by three overlapping splits, with a block after the first two.

    Attributes:
        image_size: height and width in pixels.
        grids: rows and columns of the tokens after each split.
    """

    def __init__(self, img_size: AnySize, in_chans: int, embed_dim: int, token_dim: int) -> None:
        """Create the module for one image size; see `T2TViT`."""
        super().__init__()
        self.image_size = ImageSize.of(img_size)
        self.soft_split0 = nn.Unfold((7, 7), stride=(4, 4), padding=(2, 2))
        self.soft_split1 = nn.Unfold((3, 3), stride=(2, 2), padding=(1, 1))
        self.soft_split2 = nn.Unfold((3, 3), stride=(2, 2), padding=(1, 1))
        self.attention1 = TokenTransformer(in_chans * 7 * 7, token_dim)
        self.attention2 = TokenTransformer(token_dim * 3 * 3, token_dim)
        self.project = nn.Linear(token_dim * 3 * 3, embed_dim)
        first = conv_grid(self.image_size, self.soft_split0)
        second = conv_grid(first, self.soft_split1)
        self.grids = (first, second, conv_grid(second, self.soft_split2))

    def forward(self, images_BCYX: Tensor) -> Tensor:
        """Patch tokens (B, N, D)."""
        x_BNT = self.soft_split0(images_BCYX).transpose(1, 2)
        for attention, split, grid in (
            (self.attention1, self.soft_split1, self.grids[0]),
            (self.attention2, self.soft_split2, self.grids[1]),
        ):
            x_BTN = attention(x_BNT).transpose(1, 2)
            x_BNT = split(x_BTN.reshape(*x_BTN.shape[:2], *grid)).transpose(1, 2)
        x_BND: Tensor = self.project(x_BNT)
        return x_BND

    def norm_macs(self) -> int:
        """MACs of the norms per image."""
        first, second, _ = map(math.prod, self.grids)
        return self.attention1.norm_macs(first) + self.attention2.norm_macs(second)

    def macs(self) -> int:
        """Multiply-accumulates per image, norms included."""
        first, second, last = map(math.prod, self.grids)
        blocks = weight_macs(self.attention1, first) + weight_macs(self.attention2, second)
        return blocks + weight_macs(self.project, last) + self.norm_macs()


class T2TViT(nn.Module):
    """The backbone with self-attention in its blocks, initialised as in the published code.

    Attributes:
        tokens_to_token: converts images to patch tokens.
        cls_token: (1, 1, D).
        pos_embed: (1, N, D), fixed sinusoids.
        blocks: timm's blocks.
        norm: norm after the blocks.
        head: classifier of the class token.
    """

    def __init__(
        self,
        img_size: AnySize = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        token_dim: int = 64,
        drop_path_rate: float = 0.0,
    ) -> None:
        """Take arguments by timm's names.

        Args:
            img_size: pixels on a side of the images, or their height and width.
            in_chans: C of the images.
            num_classes: number of classes.
            embed_dim: D of the blocks.
            depth: number of blocks.
            num_heads: H of the blocks.
            mlp_ratio: hidden channels of a block's MLP, divided by D.
            qkv_bias: whether queries, keys and values of the blocks have a bias.
            token_dim: channels of the tokens-to-token module.
            drop_path_rate: stochastic depth of the last block, growing linearly from 0.
        """
        super().__init__()
        self.tokens_to_token = TokensToToken(img_size, in_chans, embed_dim, token_dim)
        num_tokens = 1 + math.prod(self.tokens_to_token.grids[-1])
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(sinusoids(num_tokens, embed_dim), requires_grad=False)
        self.blocks = nn.ModuleList(
            TimmBlock(
                embed_dim,
                num_heads,
                mlp_ratio,
                qkv_bias=qkv_bias,
                drop_path=drop_path_rate * i / max(1, depth - 1),
                norm_layer=nn.LayerNorm,
            )
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, TokenAttention):
                    module.linear_1.weight.copy_(module.linear_0.weight.t())


def sinusoids(num_tokens: int, embed_dim: int) -> Tensor:
    """Fixed positions (1, N, D): sin and cos of n / 10000^(2 j / D) on channels 2 j and 2 j + 1.

    Vaswani et al. 2017 (arXiv:1706.03762), section 3.5.

    Args:
        num_tokens: N, from position 0.
        embed_dim: D.
    """
    channels = torch.arange(embed_dim)
    rates = 10_000.0 ** -(2 * (channels // 2).double() / embed_dim)
    angles_ND = torch.arange(num_tokens).double().unsqueeze(1) * rates
    return torch.where(channels % 2 == 0, angles_ND.sin(), angles_ND.cos()).float().unsqueeze(0)


class T2TNetwork(Network):
    """T2T-ViT over an envelope; attributes as in `T2TViT`."""

    classifier_parts: ClassVar[tuple[str, ...]] = ("norm", "head")

    def __init__(self, model: Any, plan: NetworkPlan) -> None:
        """Take the parts of `model` that the envelope needs; see `Family`."""
        super().__init__(plan)
        self.tokens_to_token = model.tokens_to_token
        self.cls_token = model.cls_token
        self.pos_embed = model.pos_embed
        [stage] = plan.shape.stages
        self.blocks = nn.ModuleList(
            Block(
                block,
                self_attention(block.attn, position, stage.num_heads, fused=plan.fused),
                position,
                stage,
                plan.backbone.options,
            )
            for block, position in zip(model.blocks, plan.envelope.stages[0], strict=False)
        )
        self.norm = model.norm
        self.head = model.head

    def reset_parameters(self) -> None:
        """Initialise the class token and the positions only, as the backbone does."""
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        with torch.no_grad():
            self.pos_embed.copy_(sinusoids(*self.pos_embed.shape[1:]))

    def embed_images(self, images_BCYX: Tensor) -> Tensor:
        """Class and patch tokens with their positions, (B, N, D)."""
        x_BND = self.tokens_to_token(images_BCYX)
        x_BND = torch.cat([self.cls_token.expand(x_BND.shape[0], -1, -1), x_BND], dim=1)
        out_BND: Tensor = x_BND + self.pos_embed
        return out_BND

    def enter_stage(self, stage: int, tokens: Tensor) -> Tensor:
        """Never called: there is one stage."""
        raise AssertionError(f"T2T-ViT has one stage, but stage {stage} was entered")

    def block(self, stage: int, index: int) -> Block:
        """Block `index`; there is one stage."""
        block = self.blocks[index]
        assert isinstance(block, Block)
        return block

    def resample_position(self, name: str, weight: Tensor, target: Network) -> Tensor:
        """The fixed positions for another number of tokens."""
        [stage] = target.shape.stages
        return sinusoids(stage.num_tokens, stage.embed_dim).to(weight)

    def classify(self, tokens: Tensor) -> Tensor:
        """Logits (B, classes) from the normed class token."""
        logits_BC: Tensor = self.head(self.norm(tokens)[:, 0])
        return logits_BC


def _describe(model: Any, image_size: ImageSize | None = None) -> BackboneShape:
    """Read the sizes of a `T2TViT`.

    Raises:
        InputError: there are no patches or no blocks.
    """
    module = model.tokens_to_token
    grid = module.grids[-1]
    if not len(model.blocks) or not math.prod(grid):
        raise InputError(
            f"the network has {len(model.blocks)} blocks at {module.image_size} px, but needs a "
            f"block and a patch; raise the depth, or the image size to 3 at least"
        )
    block = model.blocks[0]
    N, D = model.pos_embed.shape[1:]
    return BackboneShape(
        image_size=module.image_size,
        stages=(
            StageShape(
                max_depth=len(model.blocks),
                num_tokens=N,
                num_prefix_tokens=1,
                grid=grid,
                embed_dim=D,
                num_heads=block.attn.num_heads,
                attention=AttentionShape(num_queries=N, num_keys=N, key_grid=grid),
                mlp_params=num_params(block.mlp),
                mlp_macs=weight_macs(block.mlp, N),
                qkv_bias=block.attn.qkv.bias is not None,
                proj_bias=True,
                layer_scale=False,
                reduction=16,
            ),
        ),
        stem_params=num_params(module) + model.cls_token.numel() + model.pos_embed.numel(),
        stem_macs=module.macs(),
        stem_norm_macs=module.norm_macs(),
        head_params=num_params(model.norm, model.head),
        head_macs=model.head.weight.numel() + norm_macs(model.norm, N),
        head_norm_macs=norm_macs(model.norm, N),
        num_frozen_params=model.pos_embed.numel(),
    )


def _seen_pixels(keywords: Keywords, side: int) -> int:
    """Only the first split drops pixels: its last window has 7 rows from row 4 (n - 1) - 2."""
    num_rows = (side + 2 * 2 - 7) // 4 + 1
    return min(side, 4 * num_rows + 1)


_SIZES = {7: 256, 10: 256, 12: 256, 14: 384, 19: 448, 24: 512}
"""Width by depth for the published sizes; a head has 64 channels."""

T2T = Family(
    base_name="t2t_ea",
    model_class=T2TViT,
    keywords={
        "embed_dim": KeywordRule(lambda m: m.pos_embed.shape[2]),
        "depth": KeywordRule(lambda m: len(m.blocks), most=MAX_LAYERS),
        "num_heads": KeywordRule(lambda m: m.blocks[0].attn.num_heads),
        "mlp_ratio": KeywordRule(
            lambda m: mlp_ratio((m.pos_embed.shape[2], m.blocks[0].mlp.fc1.out_features))
        ),
        "qkv_bias": KeywordRule(lambda m: m.blocks[0].attn.qkv.bias is not None),
        "token_dim": KeywordRule(lambda m: m.tokens_to_token.attention1.norm2.weight.numel()),
    },
    describe=_describe,
    make_network=T2TNetwork,
    seen_pixels=_seen_pixels,
    names={
        f"t2t_ea_{depth}": partial(
            T2TViT,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=embed_dim // 64,
            mlp_ratio=2.0 if embed_dim == 256 else 3.0,
        )
        for depth, embed_dim in _SIZES.items()
    },
)
