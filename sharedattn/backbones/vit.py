"""timm's vision transformers: ViT, DeiT and DeiT-3 as one stage of equal pre-norm blocks.

"An Image is Worth 16x16 Words" (arXiv:2010.11929), "Training data-efficient image transformers"
(arXiv:2012.12877), "DeiT III" (arXiv:2204.07118), as built by timm's `VisionTransformer`. Parts
keep their names in timm, so that the all-vanilla placement has timm's state dict and timm's
logits.

Shape letters: B batch, N tokens, D embed_dim, H heads, K head_dim, C channels, Y x X grid.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from timm.layers.activations import GELU
from timm.layers.attention import Attention
from timm.layers.layer_scale import LayerScale
from timm.layers.mlp import Mlp
from timm.layers.norm import LayerNorm
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sharedattn.backbones.family import (
    MAX_LAYERS,
    Family,
    KeywordRule,
    mlp_ratio,
    norm_macs,
    refuse,
    require_norm,
    require_type,
    resample_positions,
    weight_macs,
    whole_patches,
)
from sharedattn.errors import InputError
from sharedattn.image_size import ImageSize
from sharedattn.mechanisms.vanilla import SelfAttention
from sharedattn.networks.block import Block
from sharedattn.networks.network import Network, NetworkPlan
from sharedattn.networks.part_sizes import num_params
from sharedattn.placement import LayerEnvelope
from sharedattn.shape import AttentionShape, BackboneShape, StageShape


class ViTParts(VisionTransformer):  # type: ignore[misc]
    """timm's parts of a model that is mostly a vision transformer.

    A family adds or replaces parts; only its network determines how they run.
    """

    forward = nn.Module.forward


class ViTNetwork(Network):
    """A vision transformer over an envelope.

    Attributes:
        patch_embed: converts images to patch tokens.
        cls_token: (1, 1, D), or None.
        reg_token: (1, registers, D), or None.
        pos_embed: (1, N or patches, D), or None.
        norm_pre: norm before the blocks, or identity.
        blocks: the layers.
        norm: norm after the blocks, or identity.
        fc_norm: norm after pooling, or identity.
        head: classifier.
    """

    cls_token: nn.Parameter | None
    reg_token: nn.Parameter | None
    pos_embed: nn.Parameter | None

    classifier_parts: ClassVar[tuple[str, ...]] = ("norm", "fc_norm", "head")

    def __init__(self, model: Any, plan: NetworkPlan) -> None:
        """Take the parts of timm's `model` that the envelope needs; see `Family`."""
        super().__init__(plan)
        self.no_embed_class = model.no_embed_class
        self.pool_by_mean = model.global_pool == "avg"
        self.pool_include_prefix = model.pool_include_prefix
        self.patch_embed = model.patch_embed
        self.cls_token = model.cls_token
        self.reg_token = model.reg_token
        self.pos_embed = model.pos_embed
        self.norm_pre = model.norm_pre
        self.blocks = self.make_blocks(model)
        self.norm = model.norm
        self.fc_norm = model.fc_norm
        self.head = model.head

    def make_blocks(self, model: Any) -> nn.Module:
        """Build the layers, by number, from the blocks of `model`."""
        [stage], [positions] = self.shape.stages, self.envelope.stages
        return nn.ModuleList(
            self.make_block(block, position, stage)
            for block, position in zip(model.blocks, positions, strict=False)
        )

    def make_block(self, block: Any, position: LayerEnvelope, stage: StageShape) -> Block:
        """Build the layer of a position from the model's block there."""
        attention = self_attention(block.attn, position, stage.num_heads, fused=self.fused)
        return Block(block, attention, position, stage, self.backbone.options)

    def reset_parameters(self) -> None:
        """Initialise the stem's tokens and positions only, as timm does."""
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for token in (self.cls_token, self.reg_token):
            if token is not None:
                nn.init.normal_(token, std=1e-6)

    def embed_images(self, images_BCYX: Tensor) -> Tensor:
        """Patch, class and register tokens with their positions, (B, N, D)."""
        x_BND = self.patch_embed(images_BCYX)
        prefix = [
            token.expand(x_BND.shape[0], -1, -1)
            for token in (self.cls_token, self.reg_token)
            if token is not None
        ]
        if self.no_embed_class and self.pos_embed is not None:
            x_BND = x_BND + self.pos_embed
        if prefix:
            x_BND = torch.cat([*prefix, x_BND], dim=1)
        if not self.no_embed_class and self.pos_embed is not None:
            x_BND = x_BND + self.pos_embed
        out_BND: Tensor = self.norm_pre(x_BND)
        return out_BND

    def enter_stage(self, stage: int, tokens: Tensor) -> Tensor:
        """Never called: a vision transformer has one stage."""
        raise AssertionError(f"a vision transformer has one stage, but stage {stage} was entered")

    def block(self, stage: int, index: int) -> Block:
        """Block `index`; there is one stage."""
        block = self.blocks.get_submodule(str(index))
        assert isinstance(block, Block)
        return block

    def resample_position(self, name: str, weight: Tensor, target: Network) -> Tensor:
        """Resample learned positions to another grid."""
        return resample_positions(weight, self.shape.stages[0].grid, target.shape.stages[0].grid)

    def classify(self, tokens: Tensor) -> Tensor:
        """Logits (B, classes): norm, pooling, norm if the backbone has one there, head."""
        x_BND = self.norm(tokens)
        if not self.pool_by_mean:
            pooled_BD = x_BND[:, 0]
        else:
            first = 0 if self.pool_include_prefix else self.shape.stages[0].num_prefix_tokens
            pooled_BD = x_BND[:, first:].mean(dim=1)
        logits_BC: Tensor = self.head(self.fc_norm(pooled_BD))
        return logits_BC


def self_attention(
    attention: Any, position: LayerEnvelope, num_heads: int, *, fused: bool
) -> SelfAttention | None:
    """The module for kinds that use timm's `Attention` at a position, or None without them."""
    if not position.uses_attention:
        return None
    own_scores = position.uses_scores
    return SelfAttention(
        attention.qkv, attention.proj, num_heads, own_scores=own_scores, fused=fused
    )


def _check_block(block: Any, embed_dim: int) -> None:
    """Check that a block does only what `Block` does."""
    require_type("a block", block, TimmBlock)
    require_type("its attention", block.attn, Attention)
    require_type("its query norm", block.attn.q_norm, nn.Identity)
    require_type("its key norm", block.attn.k_norm, nn.Identity)
    require_type("its attention's output norm", block.attn.norm, nn.Identity)
    if block.attn.gate is not None or block.attn.attn_dim != embed_dim:
        raise refuse("its attention is gated, or of another width than the tokens")
    require_type("its MLP", block.mlp, Mlp)
    require_type("its MLP's activation", block.mlp.act, GELU, nn.GELU)
    require_type("its MLP's norm", block.mlp.norm, nn.Identity)
    for part in ("norm1", "norm2"):
        require_norm(f"its {part}", getattr(block, part), LayerNorm)
    for part in ("ls1", "ls2"):
        require_type(f"its {part}", getattr(block, part), LayerScale, nn.Identity)


def _describe(model: Any, image_size: ImageSize | None = None) -> BackboneShape:
    """Read the sizes of a timm vision transformer, checking every part.

    Raises:
        InputError: a part is not supported, or there are no patches or no blocks.
    """
    D = model.embed_dim
    for block in model.blocks:
        _check_block(block, D)
    require_type("the patch embedding", model.patch_embed, PatchEmbed)
    require_type("the patch embedding's norm", model.patch_embed.norm, nn.Identity)
    require_type("the patch dropout", model.patch_drop, nn.Identity)
    for part in ("norm_pre", "norm", "fc_norm"):
        require_norm(f"its {part}", getattr(model, part), LayerNorm, nn.Identity)
    if model.global_pool not in ("token", "avg"):
        raise refuse(f"it pools by {model.global_pool!r}, understood is token or avg")
    if model.dynamic_img_size:
        raise refuse("its image size is dynamic, and maps over tokens fit one size")
    if len(set(model.patch_embed.patch_size)) > 1:
        raise refuse("its patches are not square")
    return vit_shape(model, (vit_stage(model),))


def vit_stage(model: Any) -> StageShape:
    """Sizes of all blocks of a model with timm's parts, as one stage.

    Raises:
        InputError: there are no patches or no blocks.
    """
    if len(model.blocks) == 0 or not model.patch_embed.num_patches:
        raise InputError(
            f"the network has {len(model.blocks)} blocks and {model.patch_embed.num_patches} "
            f"patches, but needs one of each; raise the depth or the image size"
        )
    block, grid = model.blocks[0], model.patch_embed.grid_size
    N, D = model.patch_embed.num_patches + model.num_prefix_tokens, model.embed_dim
    return StageShape(
        max_depth=len(model.blocks),
        num_tokens=N,
        num_prefix_tokens=model.num_prefix_tokens,
        grid=grid,
        embed_dim=D,
        num_heads=block.attn.num_heads,
        attention=AttentionShape(num_queries=N, num_keys=N, key_grid=grid),
        mlp_params=num_params(block.mlp),
        mlp_macs=weight_macs(block.mlp, N),
        qkv_bias=block.attn.qkv.bias is not None,
        proj_bias=block.attn.proj.bias is not None,
        layer_scale=isinstance(block.ls1, LayerScale),
        reduction=model.patch_embed.patch_size[0],
    )


def vit_shape(model: Any, stages: tuple[StageShape, ...]) -> BackboneShape:
    """Sizes of a model with timm's stem and head, and these stages in between."""
    num_patches = model.patch_embed.num_patches
    stem_norm_macs = norm_macs(model.norm_pre, stages[0].num_tokens)
    head_norm_macs = norm_macs(model.norm, stages[-1].num_tokens) + norm_macs(model.fc_norm, 1)
    stem = (model.cls_token, model.reg_token, model.pos_embed)
    return BackboneShape(
        image_size=ImageSize(*model.patch_embed.img_size),
        stages=stages,
        stem_params=num_params(model.patch_embed, model.norm_pre)
        + sum(token.numel() for token in stem if token is not None),
        stem_macs=num_patches * model.patch_embed.proj.weight.numel() + stem_norm_macs,
        stem_norm_macs=stem_norm_macs,
        head_params=num_params(model.norm, model.fc_norm, model.head),
        head_macs=model.head.weight.numel() + head_norm_macs,
        head_norm_macs=head_norm_macs,
    )


VIT = Family(
    base_name="vit",
    model_class=VisionTransformer,
    keywords={
        "embed_dim": KeywordRule(lambda m: m.embed_dim),
        "depth": KeywordRule(lambda m: len(m.blocks), most=MAX_LAYERS),
        "num_heads": KeywordRule(lambda m: m.blocks[0].attn.num_heads),
        "mlp_ratio": KeywordRule(
            lambda m: mlp_ratio((m.embed_dim, m.blocks[0].mlp.fc1.out_features))
        ),
        "patch_size": KeywordRule(lambda m: m.patch_embed.patch_size[0]),
        "qkv_bias": KeywordRule(lambda m: m.blocks[0].attn.qkv.bias is not None),
        "proj_bias": KeywordRule(lambda m: m.blocks[0].attn.proj.bias is not None),
        "init_values": KeywordRule(
            lambda m: float(getattr(m.blocks[0].ls1, "init_values", 0.0)), may_be_zero=True
        ),
        "class_token": KeywordRule(lambda m: m.cls_token is not None),
        "reg_tokens": KeywordRule(lambda m: m.num_reg_tokens, may_be_zero=True),
        "no_embed_class": KeywordRule(
            # It has no effect without prefix tokens or without positions.
            lambda m: m.no_embed_class and m.num_prefix_tokens > 0 and m.pos_embed is not None
        ),
        "pos_embed": KeywordRule(lambda m: "none" if m.pos_embed is None else "learn"),
        "pre_norm": KeywordRule(lambda m: not isinstance(m.norm_pre, nn.Identity)),
        "final_norm": KeywordRule(
            lambda m: not (isinstance(m.norm, nn.Identity) and isinstance(m.fc_norm, nn.Identity))
        ),
        "fc_norm": KeywordRule(lambda m: not isinstance(m.fc_norm, nn.Identity)),
        "pool_include_prefix": KeywordRule(
            lambda m: m.pool_include_prefix and m.num_prefix_tokens > 0 and m.global_pool == "avg"
        ),
        "global_pool": KeywordRule(lambda m: m.global_pool),
    },
    describe=_describe,
    make_network=ViTNetwork,
    seen_pixels=whole_patches,
)
