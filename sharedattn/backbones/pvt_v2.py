"""timm's pyramid vision transformers of the second version: PVTv2-b0 to b5.

"PVT v2: Improved Baselines with Pyramid Vision Transformer" (arXiv:2106.13797), as built by timm's
`PyramidVisionTransformerV2`: stages on ever coarser grids, each starting with an overlapping
convolution; keys and values of spatially reduced tokens; a depthwise convolution on the grid
inside the MLP; no class token, no position embedding. Parts keep their names in timm, so that the
all-vanilla placement has timm's state dict and timm's logits.

External attention, context broadcasting and DIA, which the four papers do not place in a pyramid,
act on all tokens of a stage, by our interpretation.

Shape letters: B batch, N tokens, D embed_dim, C channels, Y x X grid.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from timm.layers.norm import LayerNorm
from timm.models.pvt_v2 import (
    Attention,
    MlpWithDepthwiseConv,
    OverlapPatchEmbed,
    PyramidVisionTransformerV2,
)
from timm.models.pvt_v2 import Block as TimmBlock
from torch import Tensor, nn

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
    spatial_reduction_attention,
)
from sharedattn.image_size import ImageSize
from sharedattn.mechanisms.spatial_reduction import (
    attention_shape,
    reduction_ratio,
)
from sharedattn.networks.block import Block, GridBlock
from sharedattn.networks.network import Network, NetworkPlan
from sharedattn.networks.part_sizes import conv_grid, num_params
from sharedattn.shape import BackboneShape, StageShape, mlp_macs


class PVTv2Stage(nn.Module):
    """The parts of a stage, with timm's names.

    Attributes:
        downsample: the transition into the stage, or None for the first.
        blocks: the layers.
        norm: norm after the blocks.
    """

    def __init__(self, stage: Any, blocks: list[GridBlock]) -> None:
        """Take the parts around the blocks of timm's stage."""
        super().__init__()
        self.downsample: OverlapPatchEmbed | None = stage.downsample
        self.blocks = nn.ModuleList(blocks)
        self.norm = stage.norm


class PVTv2Network(Network):
    """A PVTv2 over an envelope.

    Attributes:
        patch_embed: converts images to the first stage's grid.
        stages: the stages.
        head: classifier of the mean token.
    """

    classifier_parts: ClassVar[tuple[str, ...]] = ("head",)

    def __init__(self, model: Any, plan: NetworkPlan) -> None:
        """Take the parts of timm's `model` that the envelope needs; see `Family`."""
        super().__init__(plan)
        self.patch_embed = model.patch_embed
        self.stages = nn.ModuleList(
            PVTv2Stage(
                stage,
                [
                    GridBlock(
                        block,
                        spatial_reduction_attention(block.attn, position, sizes, fused=plan.fused),
                        position,
                        sizes,
                        plan.backbone.options,
                    )
                    for block, position in zip(stage.blocks, positions, strict=False)
                ],
            )
            for stage, positions, sizes in zip(
                model.stages, plan.envelope.stages, plan.shape.stages, strict=True
            )
        )
        self.head = model.head

    def embed_images(self, images_BCYX: Tensor) -> Tensor:
        """Tokens (B, N, D) of the first stage's grid."""
        out_BND: Tensor = self.patch_embed(images_BCYX).flatten(1, 2)
        return out_BND

    def enter_stage(self, stage: int, tokens: Tensor) -> Tensor:
        """Apply the overlapping convolution to the coarser grid, and its norm."""
        B, _, D = tokens.shape
        x_BDYX = tokens.transpose(1, 2).reshape(B, D, *self.shape.stages[stage - 1].grid)
        out_BND: Tensor = self._stage(stage).downsample(x_BDYX).flatten(1, 2)
        return out_BND

    def block(self, stage: int, index: int) -> Block:
        """The block at a layer position."""
        block = self._stage(stage).blocks[index]
        assert isinstance(block, Block)
        return block

    def leave_stage(self, stage: int, tokens: Tensor) -> Tensor:
        """Apply the norm that each stage ends with."""
        normed_BND: Tensor = self._stage(stage).norm(tokens)
        return normed_BND

    def classify(self, tokens: Tensor) -> Tensor:
        """Logits (B, classes): mean over tokens, head."""
        logits_BC: Tensor = self.head(tokens.mean(dim=1))
        return logits_BC

    def _stage(self, index: int) -> Any:
        return self.stages[index]


def _check_block(block: Any) -> None:
    """Check that a block does only what `GridBlock` does."""
    require_type("a block", block, TimmBlock)
    require_type("its attention", block.attn, Attention)
    if block.attn.pool is not None:
        raise refuse("its attention is linear: keys and values of pooled tokens (pvt_v2_b2_li)")
    require_type("its MLP", block.mlp, MlpWithDepthwiseConv)
    require_type("its MLP's activation", block.mlp.act, nn.GELU)
    for part in ("norm1", "norm2"):
        require_norm(f"its {part}", getattr(block, part), LayerNorm)


def _describe(model: Any, image_size: ImageSize | None) -> BackboneShape:
    """Read the sizes of a timm PVTv2 at an image size, checking every part.

    Raises:
        InputError: a part is not supported, or the image leaves a stage no keys.
    """
    assert image_size is not None
    if model.global_pool != "avg":
        raise refuse(f"it pools by {model.global_pool!r}, understood is avg")
    proj = model.patch_embed.proj
    grid, reduction = conv_grid(image_size, proj), proj.stride[0]
    stem_norm_macs = norm_macs(model.patch_embed.norm, grid[0] * grid[1])
    stem_macs = grid[0] * grid[1] * model.patch_embed.proj.weight.numel() + stem_norm_macs
    stages = []
    for stage in model.stages:
        for block in stage.blocks:
            _check_block(block)
        require_norm("a stage's norm", stage.norm, LayerNorm)
        if stage.downsample is not None:
            grid = conv_grid(grid, stage.downsample.proj)
            reduction *= stage.downsample.proj.stride[0]
        stages.append(replace(_describe_stage(stage, grid), reduction=reduction))
    return BackboneShape(
        image_size=image_size,
        stages=tuple(stages),
        stem_params=num_params(model.patch_embed),
        stem_macs=stem_macs,
        stem_norm_macs=stem_norm_macs,
        head_params=num_params(model.head),
        head_macs=model.head.weight.numel(),
        head_norm_macs=0,
    )


def _describe_stage(stage: Any, grid: tuple[int, int]) -> StageShape:
    """Read the sizes of a stage on its grid."""
    block = stage.blocks[0]
    mlp = block.mlp
    N, D = grid[0] * grid[1], block.attn.dim
    frame_norm_macs, frame_macs = norm_macs(stage.norm, N), 0
    around = [stage.norm]
    if stage.downsample is not None:
        around.append(stage.downsample)
        frame_norm_macs += norm_macs(stage.downsample.norm, N)
        frame_macs = N * stage.downsample.proj.weight.numel()
    return StageShape(
        max_depth=len(stage.blocks),
        num_tokens=N,
        num_prefix_tokens=0,
        grid=grid,
        embed_dim=D,
        num_heads=block.attn.num_heads,
        attention=attention_shape(grid, 0, D, reduction_ratio(block.attn)),
        mlp_params=num_params(mlp),
        mlp_macs=mlp_macs(N, D, mlp.fc1.out_features) + N * mlp.dwconv.weight.numel(),
        qkv_bias=block.attn.q.bias is not None,
        proj_bias=True,
        layer_scale=False,
        frame_params=num_params(*around),
        frame_macs=frame_macs + frame_norm_macs,
        frame_norm_macs=frame_norm_macs,
    )


PVT_V2 = Family(
    base_name="pvt_v2",
    model_class=PyramidVisionTransformerV2,
    keywords={
        "depths": per_stage(lambda m: (len(stage.blocks) for stage in m.stages), most=MAX_LAYERS),
        "embed_dims": per_stage(lambda m: (stage.blocks[0].attn.dim for stage in m.stages)),
        "num_heads": per_stage(lambda m: (stage.blocks[0].attn.num_heads for stage in m.stages)),
        "sr_ratios": per_stage(
            lambda m: (reduction_ratio(stage.blocks[0].attn) for stage in m.stages)
        ),
        "mlp_ratios": per_stage(
            lambda m: (
                mlp_ratio((stage.blocks[0].attn.dim, stage.blocks[0].mlp.fc1.out_features))
                for stage in m.stages
            ),
            whole=False,
        ),
        "qkv_bias": KeywordRule(lambda m: m.stages[0].blocks[0].attn.q.bias is not None),
    },
    describe=_describe,
    make_network=PVTv2Network,
    default_image_size=224,
)
