"""timm's Swin transformers: stages of pre-norm blocks that attend within windows.

"Swin Transformer: Hierarchical Vision Transformer using Shifted Windows" (arXiv:2103.14030), and
the models of "Searching the Search Space of Vision Transformer" (arXiv:2111.14725), as built by
timm's `SwinTransformer`. Parts keep their names in timm, so that the all-vanilla placement has
timm's state dict and timm's logits.

Every second block of a stage shifts its windows by half their size, unless one window covers the
stage. None of the four papers covers this case; our interpretation:

- A less layer takes the scores of the last vanilla or less layer with its own shift, whose windows
  hold the same tokens. With `handover=previous` it takes those of the previous layer, whose
  windows lie elsewhere: the n-th window's scores serve the n-th window.
- Scores are passed on with their relative-position bias, which is mapped with them, and without
  the shift mask: the layer that attends adds its own.
- Maps over tokens are over a window's tokens, and are shared by all windows.
- External attention, context broadcasting and DIA ignore windows: they act on all tokens of the
  image.

Shape letters: B batch, N tokens, D embed_dim, C channels, Y x X grid.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from timm.layers.classifier import ClassifierHead
from timm.layers.mlp import Mlp
from timm.layers.patch_embed import PatchEmbed
from timm.models.swin_transformer import (
    PatchMerging,
    SwinTransformer,
    SwinTransformerBlock,
)
from timm.models.swin_transformer import WindowAttention as TimmWindowAttention
from torch import Tensor, nn
from torch.nn import functional as F

from sharedattn.backbones.family import (
    MAX_LAYERS,
    Family,
    KeywordRule,
    mlp_ratio,
    norm_macs,
    per_stage,
    refuse,
    require_norm,
    require_type,
    whole_patches,
)
from sharedattn.errors import InputError
from sharedattn.image_size import ImageSize
from sharedattn.mechanisms.windows import WindowAttention, Windows, position_params
from sharedattn.networks.block import Block
from sharedattn.networks.network import Network, NetworkPlan
from sharedattn.networks.part_sizes import num_params
from sharedattn.placement import LayerEnvelope
from sharedattn.shape import (
    AttentionShape,
    BackboneShape,
    StageShape,
    mlp_macs,
    mlp_params,
)


class SwinStage(nn.Module):
    """The parts of one stage.

    Attributes:
        downsample: the transition into the stage on a grid of tokens; identity for the first.
        blocks: the layers.
    """

    def __init__(self, downsample: nn.Module, blocks: list[Block]) -> None:
        """Store the parts."""
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)


class SwinNetwork(Network):
    """A Swin transformer over an envelope.

    Attributes:
        patch_embed: converts images to a grid of normed patch tokens.
        layers: the stages.
        norm: norm after the blocks.
        head: mean over tokens, then classifier.
    """

    classifier_parts: ClassVar[tuple[str, ...]] = ("norm", "head")

    def __init__(self, model: Any, plan: NetworkPlan) -> None:
        """Take the parts of timm's `model` that the envelope needs; see `Family`."""
        super().__init__(plan)
        self.patch_embed = model.patch_embed
        self.layers = nn.ModuleList(
            SwinStage(
                layer.downsample,
                [
                    Block(
                        block,
                        _window_attention(block, position, fused=plan.fused),
                        position,
                        stage,
                        plan.backbone.options,
                    )
                    for block, position in zip(layer.blocks, positions, strict=False)
                ],
            )
            for layer, positions, stage in zip(
                model.layers, plan.envelope.stages, plan.shape.stages, strict=True
            )
        )
        self.norm = model.norm
        self.head = model.head

    def embed_images(self, images_BCYX: Tensor) -> Tensor:
        """Patch tokens (B, N, D)."""
        x_BYXD: Tensor = self.patch_embed(images_BCYX)
        return x_BYXD.flatten(1, 2)

    def enter_stage(self, stage: int, tokens: Tensor) -> Tensor:
        """Merge tokens two by two; an odd grid is padded with zeros."""
        x_BYXD: Tensor = self._stage(stage).downsample(self._on_grid(stage - 1, tokens))
        return x_BYXD.flatten(1, 2)

    def block(self, stage: int, index: int) -> Block:
        """The block at a layer position."""
        block = self._stage(stage).blocks[index]
        assert isinstance(block, Block)
        return block

    def resample_position(self, name: str, weight: Tensor, target: Network) -> Tensor:
        """Resample a relative-position bias to another window size."""
        stage = int(name.split(".")[1])
        old, new = (
            tuple(2 * side - 1 for side in network.shape.stages[stage].attention.key_grid)
            for network in (self, target)
        )
        # As timm's `resize_rel_pos_bias_table_simple`, which takes square tables alone; its
        # geometric resampling uses indexing that torch deprecates.
        table_1HYX = weight.t().reshape(1, -1, *old)
        resized_1HYX = F.interpolate(table_1HYX, size=new, mode="bicubic", align_corners=False)
        return resized_1HYX.flatten(2)[0].t().contiguous()

    def classify(self, tokens: Tensor) -> Tensor:
        """Logits (B, classes): norm, mean over tokens, head."""
        logits_BC: Tensor = self.head(self._on_grid(-1, self.norm(tokens)))
        return logits_BC

    def _on_grid(self, stage: int, tokens: Tensor) -> Tensor:
        """Reshape a stage's tokens (B, N, D) to (B, Y, X, D)."""
        return tokens.reshape(-1, *self.shape.stages[stage].grid, tokens.shape[-1])

    def _stage(self, stage: int) -> SwinStage:
        layer = self.layers[stage]
        assert isinstance(layer, SwinStage)
        return layer


def _windows(block: Any) -> Windows:
    return Windows(tuple(block.input_resolution), block.window_size, block.shift_size)


def _window_attention(
    block: Any, position: LayerEnvelope, *, fused: bool
) -> WindowAttention | None:
    """The module for vanilla and less attention at a position, from timm's block."""
    if not position.uses_attention:
        return None
    return WindowAttention(
        block.attn.qkv,
        block.attn.proj,
        block.attn.relative_position_bias_table,
        _windows(block),
        own_scores=position.uses_scores,
        fused=fused,
    )


def _check_block(block: Any) -> None:
    """Check that a block does only what `Block` does."""
    require_type("a block", block, SwinTransformerBlock)
    require_type("its attention", block.attn, TimmWindowAttention)
    if block.attn.qkv.out_features != 3 * block.dim:
        raise refuse("its heads are not of the width of the tokens together")
    if block.always_partition:
        raise refuse("its windows are larger than the grid (always_partition)")
    require_type("its MLP", block.mlp, Mlp)
    require_type("its MLP's activation", block.mlp.act, nn.GELU)
    require_type("its MLP's norm", block.mlp.norm, nn.Identity)
    for part in ("norm1", "norm2"):
        require_norm(f"its {part}", getattr(block, part), nn.LayerNorm)


def _describe(model: Any, image_size: ImageSize | None = None) -> BackboneShape:
    """Read the sizes of a timm Swin transformer, checking every part.

    Raises:
        InputError: a part is not supported, or the image has no patches.
    """
    embed = model.patch_embed
    if not embed.num_patches:
        raise InputError(
            f"an image of {ImageSize(*embed.img_size)} pixels has no patch of "
            f"{embed.patch_size[0]} pixels; raise the image size"
        )
    require_type("the patch embedding", embed, PatchEmbed)
    require_norm("the patch embedding's norm", embed.norm, nn.LayerNorm)
    if len(set(embed.patch_size)) > 1:
        raise refuse("its patches are not square")
    if model.dynamic_img_size:
        raise refuse("its image size is dynamic, and masks of shifted windows fit one size")
    require_norm("its norm", model.norm, nn.LayerNorm)
    require_type("its head", model.head, ClassifierHead)
    if model.head.global_pool.pool_type != "avg":
        raise refuse(f"it pools by {model.head.global_pool.pool_type!r}, understood is avg")
    stages = tuple(
        replace(_describe_stage(layer), reduction=embed.patch_size[0] * 2**i)
        for i, layer in enumerate(model.layers)
    )
    num_patches, last = embed.num_patches, stages[-1]
    stem_norm_macs = norm_macs(embed.norm, num_patches)
    head_norm_macs = norm_macs(model.norm, last.num_tokens)
    return BackboneShape(
        image_size=ImageSize(*embed.img_size),
        stages=stages,
        stem_params=num_params(embed),
        stem_macs=num_patches * embed.proj.weight.numel() + stem_norm_macs,
        stem_norm_macs=stem_norm_macs,
        head_params=num_params(model.norm, model.head),
        head_macs=model.head.fc.weight.numel() + head_norm_macs,
        head_norm_macs=head_norm_macs,
    )


def _describe_stage(layer: Any) -> StageShape:
    for block in layer.blocks:
        _check_block(block)
    block = layer.blocks[0]
    windows = [_windows(block) for block in layer.blocks]
    if any(w.size != windows[0].size for w in windows):
        raise refuse("its windows differ within a stage")
    if windows[0].size != tuple(min(side, max(windows[0].size)) for side in windows[0].grid):
        raise refuse("its windows are not square where the grid has room for it")
    # A grid no longer than a window along one side is shifted along the other alone.
    shifted = tuple(any(w.shift) for w in windows)
    Y, X = windows[0].grid
    N, D, H = Y * X, block.dim, block.attn.num_heads
    hidden_dim = block.mlp.fc1.out_features
    frame_macs = frame_norm_macs = 0
    if not isinstance(layer.downsample, nn.Identity):
        require_type("what leads into a stage", layer.downsample, PatchMerging)
        require_norm("its patch merging's norm", layer.downsample.norm, nn.LayerNorm)
        frame_norm_macs = norm_macs(layer.downsample.norm, N)
        frame_macs = N * layer.downsample.reduction.weight.numel() + frame_norm_macs
    return StageShape(
        max_depth=len(layer.blocks),
        num_tokens=N,
        num_prefix_tokens=0,
        grid=(Y, X),
        embed_dim=D,
        num_heads=H,
        attention=AttentionShape(
            num_windows=windows[0].num_windows,
            num_queries=windows[0].num_tokens,
            num_keys=windows[0].num_tokens,
            position_params=position_params(windows[0].size, H),
            score_groups=tuple(map(int, shifted)) if any(shifted) else (),
            key_grid=windows[0].size,
        ),
        mlp_params=mlp_params(D, hidden_dim, bias=block.mlp.fc1.bias is not None),
        mlp_macs=mlp_macs(N, D, hidden_dim),
        qkv_bias=block.attn.qkv.bias is not None,
        proj_bias=block.attn.proj.bias is not None,
        layer_scale=False,
        frame_params=num_params(layer.downsample),
        frame_macs=frame_macs,
        frame_norm_macs=frame_norm_macs,
    )


# The longer side, since a window ends where the grid does.
_NUMBER_PER_STAGE = per_stage(lambda m: (max(layer.blocks[0].window_size) for layer in m.layers))


def _square_windows(value: float | str) -> tuple[tuple[int, int], ...]:
    # timm would read two plain numbers as rows and columns, not as two stages.
    return tuple((size, size) for size in _NUMBER_PER_STAGE.to_argument(value))


SWIN = Family(
    base_name="swin",
    model_class=SwinTransformer,
    keywords={
        "embed_dim": KeywordRule(lambda m: m.embed_dim),
        "depths": per_stage(lambda m: (layer.depth for layer in m.layers), most=MAX_LAYERS),
        "num_heads": per_stage(lambda m: (layer.blocks[0].attn.num_heads for layer in m.layers)),
        "window_size": replace(_NUMBER_PER_STAGE, to_argument=_square_windows),
        "patch_size": KeywordRule(lambda m: m.patch_embed.patch_size[0]),
        "mlp_ratio": KeywordRule(
            lambda m: mlp_ratio(
                *(
                    (layer.blocks[0].mlp.fc1.in_features, layer.blocks[0].mlp.fc1.out_features)
                    for layer in m.layers
                )
            )
        ),
        "qkv_bias": KeywordRule(lambda m: m.layers[0].blocks[0].attn.qkv.bias is not None),
    },
    describe=_describe,
    make_network=SwinNetwork,
    seen_pixels=whole_patches,
)
