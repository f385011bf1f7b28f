"""Sizes of a backbone by stage, from which closed-form costs and spaces are computed."""

from __future__ import annotations

from dataclasses import dataclass

from sharedattn.image_size import ImageSize


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """Sizes of the vanilla and less attention in a stage; equal for all its layers.

    Queries and keys are those of one window; a stage without windows is one window of all its
    tokens.

    Attributes:
        num_windows: W.
        num_queries: n, queries per window, including prefix tokens and padding.
        num_keys: m, keys and values per window; fewer than n if the stage reduces them.
        context_params: parameters that compute the tokens of keys and values, such as spatial
            reduction with its norm, in vanilla and less layers.
        context_macs: multiply-accumulates of that per image.
        context_norm_macs: the part of `context_macs` in norms.
        position_params: parameters of a relative-position bias on the scores, which vanilla layers
            have and less layers reuse, mapped; 0 for no bias.
        head_mixing: whether vanilla layers mix their maps over heads after the softmax.
        score_groups: the group of each layer position: a less layer takes the scores of the last
            vanilla or less layer of its group. Empty if all layers are one group.
        key_grid: rows and columns of a window's keys, without prefix tokens.
    """

    num_windows: int = 1
    num_queries: int
    num_keys: int
    context_params: int = 0
    context_macs: int = 0
    context_norm_macs: int = 0
    position_params: int = 0
    head_mixing: bool = False
    score_groups: tuple[int, ...] = ()
    key_grid: tuple[int, int]

    def score_group(self, index: int) -> int:
        """The group of the layer at index `index`."""
        return self.score_groups[index] if self.score_groups else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionShape:
    """Sizes of a residual block of convolutions, of those that keep a stage's shape.

    A stage's first block changes the shape, or may: what it costs beyond the others (or saves)
    belongs to the stage's frame, since it is always there.

    Attributes:
        block_params: number of parameters.
        block_macs: multiply-accumulates per image, including norms.
        block_norm_macs: the part of `block_macs` in norms.
        pre_activated: whether norms and activations come before the convolutions, so that the
            block's branch ends with a convolution instead of a norm.
    """

    block_params: int
    block_macs: int
    block_norm_macs: int
    pre_activated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StageShape:
    """One stage: equal blocks on the same number of tokens of the same width.

    In a stage of convolutions, the pixels of its feature maps stand for tokens, and a layer is a
    residual block: it has no attention and no MLP, whose sizes do not matter. In a UNet, a layer
    is a residual block, in the place of the MLP, and attention over its pixels.

    Attributes:
        max_depth: number of layers in the backbone; a placement has from 1 to this number.
        num_tokens: N, including prefix tokens.
        num_prefix_tokens: number of class and register tokens at the head of the sequence.
        grid: rows and columns of the other tokens.
        embed_dim: D, channels of the residual stream.
        num_heads: H, heads of vanilla and less attention, with D / H channels each.
        attention: sizes of vanilla and less attention.
        mlp_params: parameters of a block's MLP.
        mlp_macs: multiply-accumulates of a block's MLP per image, including norms inside it.
        mlp_norm_macs: the part of `mlp_macs` in norms inside the MLP.
        qkv_bias: whether queries, keys and values have a bias.
        proj_bias: whether the attention's output projection has a bias.
        layer_scale: whether each branch ends with a learned scale per channel.
        frame_params: parameters around the stage's blocks: the transition into the stage, and its
            final norm; 0 in a backbone of one stage, which only has stem and head.
        frame_macs: multiply-accumulates of the frame per image.
        frame_norm_macs: the part of `frame_macs` in norms.
        convolution: sizes of the blocks of a stage of convolutions, or None in a transformer.
        is_whole: whether a placement has all layers of the backbone and keeps what stands in the
            place of an MLP in each, since other stages take what they give.
        reduction: pixels of the image per token along a side of the grid, or None for tokens that
            do not lie on the image's grid, of which there is no feature map.
    """

    max_depth: int
    num_tokens: int
    num_prefix_tokens: int
    grid: tuple[int, int]
    embed_dim: int
    num_heads: int
    attention: AttentionShape
    mlp_params: int
    mlp_macs: int
    mlp_norm_macs: int = 0
    qkv_bias: bool
    proj_bias: bool
    layer_scale: bool
    frame_params: int = 0
    frame_macs: int = 0
    frame_norm_macs: int = 0
    convolution: ConvolutionShape | None = None
    is_whole: bool = False
    reduction: int | None = None

    @property
    def num_kept(self) -> int:
        """Number of first layers that cannot be left out, since they change the shape."""
        return 0 if self.convolution is None else 1

    @property
    def head_dim(self) -> int:
        """K, channels of one head."""
        return self.embed_dim // self.num_heads


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureShape:
    """The sizes of one map of a feature pyramid.

    Attributes:
        stage: index of the stage that it is the end of.
        channels: number of channels.
        reduction: pixels of the image per row or column; timm's `reduction`.
        grid: rows and columns.
    """

    stage: int
    channels: int
    reduction: int
    grid: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneShape:
    """Sizes of a backbone at one image size: its stages, and the cost of stem and head.

    Attributes:
        image_size: height and width in pixels.
        stages: the stages, first to last.
        stem_params: parameters before the first stage: patch and position embedding, tokens.
        stem_macs: multiply-accumulates of the stem per image.
        stem_norm_macs: the part of `stem_macs` in norms.
        head_params: parameters after the last stage: final norm and classifier.
        head_macs: multiply-accumulates of final norm, pooling and classifier per image.
        head_norm_macs: the part of `head_macs` in norms.
        num_frozen_params: number of parameters that are never trained, such as fixed position
            embeddings.
    """

    image_size: ImageSize
    stages: tuple[StageShape, ...]
    stem_params: int
    stem_macs: int
    stem_norm_macs: int
    head_params: int
    head_macs: int
    head_norm_macs: int
    num_frozen_params: int = 0

    @property
    def depths(self) -> tuple[int, ...]:
        """Layers of each stage at full depth."""
        return tuple(stage.max_depth for stage in self.stages)

    @property
    def features(self) -> tuple[FeatureShape, ...]:
        """The maps of `Network.features`, of each stage whose tokens lie on the image's grid."""
        return tuple(
            FeatureShape(
                stage=i, channels=stage.embed_dim, reduction=stage.reduction, grid=stage.grid
            )
            for i, stage in enumerate(self.stages)
            if stage.reduction is not None
        )


def layer_norm_macs(num_tokens: int, embed_dim: int) -> int:
    """MACs of a layer norm per image: 5 per element, by fvcore's convention."""
    return 5 * num_tokens * embed_dim


def batch_norm_macs(num_tokens: int, channels: int) -> int:
    """MACs of a batch norm in eval mode per image: 2 per element, by fvcore's convention."""
    return 2 * num_tokens * channels


def mlp_params(embed_dim: int, hidden_dim: int, *, bias: bool = True) -> int:
    """Parameters of two linear maps D -> M -> D: 2 D M, plus M + D for the biases."""
    D, M = embed_dim, hidden_dim
    return 2 * D * M + (D + M) * bias


def mlp_macs(num_tokens: int, embed_dim: int, hidden_dim: int) -> int:
    """Multiply-accumulates of two linear maps D -> M -> D for one image: 2 N D M."""
    return 2 * num_tokens * embed_dim * hidden_dim
