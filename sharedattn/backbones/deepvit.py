"""DeepViT: a vision transformer whose vanilla layers mix their maps over heads.

"DeepViT: Towards Deeper Vision Transformer" (arXiv:2103.11886), re-attention:

    Norm(Theta^T softmax(Q K^T / sqrt(K))) V                                            (Eq. 3)

with Theta over heads, a 1 x 1 convolution with bias, and Norm a batch norm, following the
published code; weights have its names. All else is timm's vision transformer, with its
initialisation. The published sizes here have one width, and 16, 24 or 32 blocks; DeepViT-S and -L
are left out, since they have a convolutional stem, scaled branches, and re-attention in their last
blocks only.

A less layer attends without mixing: its maps over tokens replace the map over heads. This is our
interpretation; the saving that LaViT prints for DeepViT is out of reach otherwise.

Shape letters: B batch, H heads, N tokens, M keys, K head_dim, D embed_dim.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from sharedattn.backbones.family import Family, whole_patches
from sharedattn.backbones.vit import VIT, ViTNetwork, ViTParts, vit_shape, vit_stage
from sharedattn.image_size import ImageSize
from sharedattn.mechanisms.scores import Scores, attention_maps, without_autocast
from sharedattn.mechanisms.vanilla import SelfAttention
from sharedattn.networks.block import Block
from sharedattn.placement import LayerEnvelope
from sharedattn.shape import BackboneShape, StageShape


class DeepViT(ViTParts):
    """The parts of a DeepViT; default sizes are those of DeepViT-16B."""

    def __init__(
        self,
        *,
        embed_dim: int = 384,
        depth: int = 16,
        num_heads: int = 12,
        mlp_ratio: float = 3.0,
        **arguments: Any,
    ) -> None:
        """Take timm's arguments."""
        super().__init__(
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            **arguments,
        )
        for block in self.blocks:
            block.attn.reatten_matrix = nn.Conv2d(num_heads, num_heads, 1)
            block.attn.var_norm = nn.BatchNorm2d(num_heads)


class ReAttention(SelfAttention):
    """Self-attention whose own maps are mixed over heads before they are applied to the values.

    Attributes:
        reatten_matrix: Theta with bias, H -> H for each query and key.
        var_norm: Norm, over each head's maps.
    """

    def __init__(self, attention: Any, *, fused: bool) -> None:
        """Take the weights of a `DeepViT` block's attention; `fused` applies to reused scores."""
        super().__init__(attention.qkv, attention.proj, attention.num_heads, fused=fused)
        self.reatten_matrix = attention.reatten_matrix
        self.var_norm = attention.var_norm

    def attend_own(
        self, scores: Scores, v_BHMK: Tensor, *, with_maps: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend with mixed maps, and return the maps from before the mixing."""
        maps_BHNM = attention_maps(scores)
        softmaxed_BHNM = maps_BHNM.to(v_BHMK.dtype) if with_maps else None
        # The norm keeps only the maps' deviations from 1 / N, which half precision rounds away, so
        # use the weights' own precision up to there, regardless of autocast.
        maps_BHNM = maps_BHNM.to(self.reatten_matrix.weight.dtype)
        # In separate steps, so that at most two maps are in memory at once.
        with without_autocast(maps_BHNM):
            maps_BHNM = self.reatten_matrix(maps_BHNM)
            maps_BHNM = self.var_norm(maps_BHNM)
        out_BHNK = maps_BHNM.to(v_BHMK.dtype) @ v_BHMK
        return self.proj(out_BHNK.transpose(1, 2).flatten(2)), softmaxed_BHNM


class DeepViTNetwork(ViTNetwork):
    """A DeepViT over an envelope; attributes as in `ViTNetwork`."""

    def make_block(self, block: Any, position: LayerEnvelope, stage: StageShape) -> Block:
        """Build the layer of a position, with re-attention if it may be vanilla."""
        if not position.uses_scores:
            return super().make_block(block, position, stage)
        attention = ReAttention(block.attn, fused=self.fused)
        return Block(block, attention, position, stage, self.backbone.options)


def _describe(model: Any, image_size: ImageSize | None = None) -> BackboneShape:
    """Read the sizes of a `DeepViT`.

    Raises:
        InputError: the image has no patches.
    """
    stage = vit_stage(model)
    return vit_shape(
        model, (replace(stage, attention=replace(stage.attention, head_mixing=True)),)
    )


DEEPVIT = Family(
    base_name="deepvit",
    model_class=DeepViT,
    keywords={
        key: VIT.keywords[key]
        for key in ("embed_dim", "depth", "num_heads", "mlp_ratio", "patch_size", "qkv_bias")
    },
    describe=_describe,
    make_network=DeepViTNetwork,
    seen_pixels=whole_patches,
    names={f"deepvit_{depth}b": partial(DeepViT, depth=depth) for depth in (16, 24, 32)},
)
