"""CeiT: a vision transformer with convolutions in stem and MLPs, and class-token attention.

"Incorporating Convolution Designs into Visual Transformers" (arXiv:2103.11816), following the
published code: image-to-tokens (a 7 x 7 convolution of stride 2, batch norm, max-pooling, patches
of 4 pixels); an MLP with a 3 x 3 depthwise convolution over the patches, which the class token
bypasses; and layer-wise class-token attention (LCA) before the final norm. All else is timm's
vision transformer, with its initialisation. Weights have the published code's names, except that
its `i2t` is `patch_embed` here, and its `leff` and `feedforward` are `mlp`.

LCA belongs to the head, not to the placement: one token attends to as many as there are layers, so
there are no maps over image tokens to share, and almost nothing to save. In a placement of fewer
layers, missing layers pass their tokens on unchanged: LCA sees the last class token in their
place, and the head costs as much as at full depth. This is our interpretation; the paper has no
such network.

The class tokens of earlier layers are appended to the image's tokens: between layers, tokens are
(B, N + layers, D).

Shape letters: B batch, N tokens, L layers, D embed_dim, M hidden channels, H heads, K head_dim,
Y x X grid.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor, nn
from torch.nn import functional as F

from sharedattn.backbones.family import (
    Family,
    KeywordRule,
    Keywords,
    mlp_ratio,
    norm_macs,
    weight_macs,
)
from sharedattn.backbones.vit import (
    VIT,
    ViTNetwork,
    ViTParts,
    self_attention,
    vit_shape,
    vit_stage,
)
from sharedattn.image_size import AnySize, ImageSize
from sharedattn.mechanisms import vanilla
from sharedattn.mechanisms.scores import Scores
from sharedattn.mechanisms.vanilla import ScoredAttention, SelfAttention
from sharedattn.networks.block import Block, GridBlock
from sharedattn.networks.network import NetworkPlan
from sharedattn.networks.part_sizes import num_params
from sharedattn.networks.state import Recorder, StartedLayer, State
from sharedattn.placement import LayerChoice, LayerEnvelope, MechanismOptions
from sharedattn.shape import BackboneShape, StageShape

STEM_CHANNELS = 64


class ImageToTokens(PatchEmbed):  # type: ignore[misc]
    """Converts images to patch tokens of a convolved, pooled image.

    Attributes:
        backbone: images to a quarter of their size, with 64 channels.
        image_size: image height and width in pixels; `img_size` is that of the pooled image.
        conv_size: height and width in pixels after the convolution.
    """

    def __init__(
        self, img_size: AnySize, patch_size: int, in_chans: int, embed_dim: int, **_: Any
    ) -> None:
        """Patches of the pooled image; timm's other arguments, for its own stem, are ignored."""
        self.image_size = ImageSize.of(img_size)
        self.conv_size = ImageSize(*((side + 1) // 2 for side in self.image_size))
        pooled_size = tuple((side + 1) // 2 for side in self.conv_size)
        super().__init__(pooled_size, patch_size, STEM_CHANNELS, embed_dim)
        self.backbone = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(in_chans, STEM_CHANNELS, 7, stride=2, padding=3, bias=False),
                bn=nn.BatchNorm2d(STEM_CHANNELS),
                maxpool=nn.MaxPool2d(3, stride=2, padding=1),
            )
        )

    def forward(self, images_BCYX: Tensor) -> Tensor:
        """Patch tokens (B, N, D)."""
        x_BND: Tensor = super().forward(self.backbone(images_BCYX))
        return x_BND

    def macs(self) -> int:
        """Multiply-accumulates per image, norm included."""
        backbone = weight_macs(self.backbone, self.conv_size.num_pixels) + self.norm_macs()
        return backbone + weight_macs(self.proj, self.num_patches)

    def norm_macs(self) -> int:
        """The batch norm's MACs per image in eval mode, 2 per element."""
        return 2 * self.conv_size.num_pixels * STEM_CHANNELS


class LocallyEnhancedMlp(nn.Module):
    """D -> M -> D over patches on their grid, with a depthwise convolution in the middle.

    Attributes:
        conv1: D -> M, then `bn1` and GELU.
        conv2: 3 x 3 over the grid, depthwise, then `bn2` and GELU.
        conv3: M -> D, then `bn3`.
    """

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        """Create an MLP of D and M channels."""
        super().__init__()
        self.conv1 = nn.Conv2d(embed_dim, hidden_dim, 1)
        self.conv2 = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim)
        self.conv3 = nn.Conv2d(hidden_dim, embed_dim, 1)
        self.bn1 = nn.BatchNorm2d(hidden_dim)
        self.bn2 = nn.BatchNorm2d(hidden_dim)
        self.bn3 = nn.BatchNorm2d(embed_dim)

    def forward(self, x_BND: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens (B, N, D): the class token unchanged, and the mapped patches after it."""
        B, _, D = x_BND.shape
        x_BDYX = x_BND[:, 1:].transpose(1, 2).reshape(B, D, *grid)
        x_BMYX = F.gelu(self.bn1(self.conv1(x_BDYX)))
        x_BMYX = F.gelu(self.bn2(self.conv2(x_BMYX)))
        x_BDYX = self.bn3(self.conv3(x_BMYX))
        return torch.cat([x_BND[:, :1], x_BDYX.flatten(2).transpose(1, 2)], dim=1)

    def norm_macs(self, num_patches: int) -> int:
        """The batch norms' MACs in eval mode, 2 per element."""
        channels = sum(bn.num_features for bn in (self.bn1, self.bn2, self.bn3))
        return 2 * num_patches * channels


class LastTokenAttention(SelfAttention):
    """Self-attention with the last token as the only query."""

    def scores_and_values(self, x_BLD: Tensor) -> tuple[Scores, Tensor]:
        """Scores of one query, and values (B, H, L, K), of tokens (B, L, D)."""
        B, L, D = x_BLD.shape
        weight, bias = self.qkv.weight, self.qkv.bias
        q_BD = F.linear(x_BLD[:, -1], weight[:D], None if bias is None else bias[:D])
        kv_BLC = F.linear(x_BLD, weight[D:], None if bias is None else bias[D:])
        k_BLHK, v_BLHK = kv_BLC.view(B, L, 2, self.num_heads, -1).unbind(2)
        q_BHNK = q_BD.view(B, self.num_heads, 1, -1)
        return Scores(q_BHNK, k_BLHK.transpose(1, 2), self.scale), v_BLHK.transpose(1, 2)


class LayerwiseClassAttention(nn.Module):
    """A block in which the last class token alone attends to the class tokens of all layers."""

    def __init__(self, block: Any) -> None:
        """Take the parts of timm's `block`."""
        super().__init__()
        self.norm1 = block.norm1
        # With this few tokens the fused kernel would save nothing.
        self.attn = LastTokenAttention(
            block.attn.qkv, block.attn.proj, block.attn.num_heads, fused=False
        )
        self.norm2 = block.norm2
        self.mlp = block.mlp

    def forward(self, x_BLD: Tensor) -> Tensor:
        """The last token (B, D) from class tokens (B, L, D)."""
        branch_B1D, _ = self.attn(*self.attn.scores_and_values(self.norm1(x_BLD)))
        x_BD = x_BLD[:, -1] + branch_B1D.squeeze(1)
        out_BD: Tensor = x_BD + self.mlp(self.norm2(x_BD))
        return out_BD


class CeiT(ViTParts):
    """The parts of a CeiT; default sizes are those of CeiT-T.

    Attributes:
        lca: a timm block, for the class tokens.
        pos_layer_embed: (1, L, D), added to the class tokens of the layers.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 192,
        depth: int = 12,
        num_heads: int = 3,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        patch_size: int = 4,
        **arguments: Any,
    ) -> None:
        """Take timm's arguments; `patch_size` is in pixels of the pooled image."""
        block = {"num_heads": num_heads, "mlp_ratio": mlp_ratio, "qkv_bias": qkv_bias}
        super().__init__(
            embed_dim=embed_dim,
            depth=depth,
            patch_size=patch_size,
            embed_layer=ImageToTokens,
            **block,
            **arguments,
        )
        for own in self.blocks:
            own.mlp = LocallyEnhancedMlp(embed_dim, own.mlp.fc1.out_features)
        self.lca = TimmBlock(embed_dim, **block)
        self.lca.apply(self._init_weights)
        self.pos_layer_embed = nn.Parameter(torch.zeros(1, depth, embed_dim))


class CeiTBlock(GridBlock):
    """A block that passes on the earlier layers' class tokens, and appends its own.

    Attributes:
        num_tokens: N, the number of tokens before them.
    """

    def __init__(
        self,
        block: Any,
        attention: ScoredAttention | None,
        position: LayerEnvelope,
        stage: StageShape,
        options: MechanismOptions,
    ) -> None:
        """Take arguments as `Block`."""
        super().__init__(block, attention, position, stage, options)
        self.num_tokens = stage.num_tokens

    def start(
        self, x_BND: Tensor, state: State, choice: LayerChoice, index: int, recorder: Recorder
    ) -> StartedLayer:
        """As in `Block`, for tokens (B, N + earlier layers, D)."""
        N = self.num_tokens
        started = super().start(x_BND[:, :N], state, choice, index, recorder)
        return replace(started, passthrough_tokens=x_BND[:, N:])

    def complete(
        self,
        started: StartedLayer,
        choice: LayerChoice,
        cell: nn.Module | None,
        recorder: Recorder,
    ) -> tuple[Tensor, State]:
        """As in `Block`, with resulting tokens (B, N + layers, D)."""
        x_BND, state = super().complete(started, choice, cell, recorder)
        assert started.passthrough_tokens is not None
        return torch.cat([x_BND, started.passthrough_tokens, x_BND[:, :1]], dim=1), state


class CeiTNetwork(ViTNetwork):
    """A CeiT over an envelope; further attributes as in `ViTNetwork`.

    Attributes:
        lca: attention over class tokens.
        pos_layer_embed: (1, L, D), added to the class tokens of the layers.
    """

    classifier_parts: ClassVar[tuple[str, ...]] = (
        "lca",
        "pos_layer_embed",
        "norm",
        "fc_norm",
        "head",
    )

    def __init__(self, model: Any, plan: NetworkPlan) -> None:
        """Take the parts of `model` that the envelope needs; see `Family`."""
        super().__init__(model, plan)
        self.lca = LayerwiseClassAttention(model.lca)
        self.pos_layer_embed = model.pos_layer_embed

    def make_block(self, block: Any, position: LayerEnvelope, stage: StageShape) -> Block:
        """Build the layer of a position."""
        attention = self_attention(block.attn, position, stage.num_heads, fused=self.fused)
        return CeiTBlock(block, attention, position, stage, self.backbone.options)

    def reset_parameters(self) -> None:
        """Initialise tokens and positions only; the layers' are zero, as in the published code."""
        super().reset_parameters()
        nn.init.zeros_(self.pos_layer_embed)

    def classify(self, tokens: Tensor) -> Tensor:
        """Logits (B, classes): attention over all layers' class tokens, norm, head."""
        own_BLD = tokens[:, self.shape.stages[0].num_tokens :]
        missing = self.shape.stages[0].max_depth - own_BLD.shape[1]
        class_tokens_BLD = torch.cat([own_BLD, own_BLD[:, -1:].expand(-1, missing, -1)], dim=1)
        logits_BC: Tensor = self.head(self.norm(self.lca(class_tokens_BLD + self.pos_layer_embed)))
        return logits_BC


def _describe(model: Any, image_size: ImageSize | None = None) -> BackboneShape:
    """Read the sizes of a `CeiT`.

    Raises:
        InputError: the image has no patches.
    """
    stage, stem, lca = vit_stage(model), model.patch_embed, model.lca
    mlp, D, L = model.blocks[0].mlp, stage.embed_dim, stage.max_depth
    mlp_norm_macs = mlp.norm_macs(stem.num_patches)
    mlp_macs = weight_macs(mlp, stem.num_patches) + mlp_norm_macs
    head_norm_macs = norm_macs(lca.norm1, L) + norm_macs(lca.norm2, 1) + norm_macs(model.norm, 1)
    head_macs = vanilla.macs(1, D, num_keys=L) + weight_macs(lca.mlp, 1)
    stage = replace(
        stage,
        mlp_macs=mlp_macs,
        mlp_norm_macs=mlp_norm_macs,
        reduction=4 * stem.patch_size[0],
    )
    shape = vit_shape(model, (stage,))
    return replace(
        shape,
        image_size=stem.image_size,
        stem_macs=stem.macs(),
        stem_norm_macs=stem.norm_macs(),
        head_params=shape.head_params + num_params(lca) + model.pos_layer_embed.numel(),
        head_macs=head_macs + weight_macs(model.head, 1) + head_norm_macs,
        head_norm_macs=head_norm_macs,
    )


def _seen_pixels(keywords: Keywords, side: int) -> int:
    """The patches of the pooled image are whole; it has a pixel per 4 pixels, and reaches 2 more.

    Row q of the pooled image depends on rows 2 q - 1 to 2 q + 1 after the convolution, and row c
    there on rows 2 c - 3 to 2 c + 3 of the image: the last of n rows sees up to row 4 (n - 1) + 5.
    """
    patch_size = keywords["patch_size"]
    assert isinstance(patch_size, int)
    pooled_size = (side + 3) // 4
    num_rows = pooled_size // patch_size * patch_size
    return min(side, 4 * num_rows + 2)


CEIT = Family(
    base_name="ceit",
    model_class=CeiT,
    keywords={
        **{
            key: VIT.keywords[key]
            for key in ("embed_dim", "depth", "num_heads", "patch_size", "qkv_bias")
        },
        "mlp_ratio": KeywordRule(
            lambda m: mlp_ratio((m.embed_dim, m.blocks[0].mlp.conv1.out_channels))
        ),
    },
    describe=_describe,
    make_network=CeiTNetwork,
    seen_pixels=_seen_pixels,
    names={
        "ceit_tiny": CeiT,
        "ceit_small": partial(CeiT, embed_dim=384, num_heads=6),
        "ceit_base": partial(CeiT, embed_dim=768, num_heads=12),
    },
)
