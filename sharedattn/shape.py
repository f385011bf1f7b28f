"""The sizes of a backbone, stage by stage: all that a closed-form cost or a space needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """How the vanilla and less layers of a stage attend.

    Queries and keys are those of one window; a stage without windows is one window of all its
    tokens. Every layer of a stage has these sizes.

    Attributes:
        num_windows: W.
        num_queries: n, queries of a window, prefix tokens and padding included.
        num_keys: m, keys and values of a window; fewer than n where the stage reduces them.
        context_params: parameters that make the keys' and values' tokens, such as spatial
            reduction with its norm; vanilla and less layers have them.
        context_macs: multiply-accumulates of that for one image.
        context_norm_macs: the share of `context_macs` that norms take.
        position_params: parameters of a relative-position bias on the scores, which vanilla layers
            have and less layers take over, mapped; 0: no such bias.
        head_mixing: whether vanilla layers mix their maps over heads after the softmax.
        score_groups: per layer position, its group: a less layer takes the scores of the last
            vanilla or less layer of its own group. Empty: all layers are one group.
        key_grid: rows and columns of the keys of a window, prefix tokens apart.
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
        """The group of the layer at a position."""
        return self.score_groups[index] if self.score_groups else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StageShape:
    """One stage: equal blocks on equally many tokens of equal width.

    Attributes:
        max_depth: layers the backbone has here; a placement has from 1 to as many.
        num_tokens: N, prefix tokens included.
        num_prefix_tokens: class and register tokens at the head of the sequence.
        grid: rows and columns of the other tokens.
        embed_dim: D, channels of the residual stream.
        num_heads: H, heads of vanilla and less attention, D / H channels each.
        attention: how vanilla and less layers attend.
        mlp_params: parameters of a block's MLP.
        mlp_macs: multiply-accumulates of a block's MLP for one image, norms inside it included.
        mlp_norm_macs: the share of `mlp_macs` that norms inside the MLP take.
        qkv_bias: whether queries, keys and values carry a bias.
        proj_bias: whether the attention's output projection carries a bias.
        layer_scale: whether each branch ends with a learned scale per channel.
        frame_params: parameters around the stage's blocks: what leads into the stage, and its
            final norm; 0 in a backbone of one stage, which has stem and head alone.
        frame_macs: multiply-accumulates of the frame for one image.
        frame_norm_macs: the share of `frame_macs` that norms take.
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
        stem_params: parameters before the first stage: patch and position embedding, tokens.
        stem_macs: multiply-accumulates of the stem for one image.
        stem_norm_macs: the share of `stem_macs` that norms take.
        head_params: parameters after the last stage: final norm and classifier.
        head_macs: multiply-accumulates of final norm, pooling and classifier for one image.
        head_norm_macs: the share of `head_macs` that norms take.
        num_frozen_params: the share of all parameters that no training changes, such as fixed
            position embeddings.
    """

    image_size: int
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


def layer_norm_macs(num_tokens: int, embed_dim: int) -> int:
    """What a layer norm counts for one image: 5 an element, by fvcore's convention."""
    return 5 * num_tokens * embed_dim


def mlp_params(embed_dim: int, hidden_dim: int, *, bias: bool = True) -> int:
    """Parameters of two linear maps D -> M -> D: 2 D M, plus M + D for the biases."""
    D, M = embed_dim, hidden_dim
    return 2 * D * M + (D + M) * bias


def mlp_macs(num_tokens: int, embed_dim: int, hidden_dim: int) -> int:
    """Multiply-accumulates of two linear maps D -> M -> D for one image: 2 N D M."""
    return 2 * num_tokens * embed_dim * hidden_dim
