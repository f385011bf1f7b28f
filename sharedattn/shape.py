"""The sizes of a backbone, stage by stage: all that a closed-form cost or a space needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StageShape:
    """One stage: equal blocks on equally many tokens of equal width.

    Attributes:
        max_depth: layers the backbone has here; a placement has from 1 to as many.
        num_tokens: N, prefix tokens included.
        num_prefix_tokens: class and register tokens at the head of the sequence.
        embed_dim: D, channels of the residual stream.
        num_heads: H, heads of vanilla and less attention, D / H channels each.
        mlp_hidden_dim: channels between the two linear maps of the MLP.
        qkv_bias: whether queries, keys and values carry a bias.
        proj_bias: whether the attention's output projection and the MLP carry biases.
        layer_scale: whether each branch ends with a learned scale per channel.
    """

    max_depth: int
    num_tokens: int
    num_prefix_tokens: int
    embed_dim: int
    num_heads: int
    mlp_hidden_dim: int
    qkv_bias: bool
    proj_bias: bool
    layer_scale: bool

    @property
    def head_dim(self) -> int:
        """K, channels of one head."""
        return self.embed_dim // self.num_heads


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneShape:
    """A backbone at one image size: its stages, and the cost of what stands around them.

    Attributes:
        image_size: pixels on a side.
        stages: the stages, first to last.
        stem_params: parameters before the first block: patch and position embedding, tokens.
        stem_macs: multiply-accumulates of the stem for one image.
        stem_norm_macs: the share of `stem_macs` that norms take.
        head_params: parameters after the last block: final norm and classifier.
        head_macs: multiply-accumulates of final norm, pooling and classifier for one image.
        head_norm_macs: the share of `head_macs` that norms take.
    """

    image_size: int
    stages: tuple[StageShape, ...]
    stem_params: int
    stem_macs: int
    stem_norm_macs: int
    head_params: int
    head_macs: int
    head_norm_macs: int


def layer_norm_macs(num_tokens: int, embed_dim: int) -> int:
    """What a layer norm counts for one image: 5 an element, by fvcore's convention."""
    return 5 * num_tokens * embed_dim
