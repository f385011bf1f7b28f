"""UNets that denoise: the network of DDPM (arXiv:2006.11239), as diffusers' `UNet2DModel` has it.

Stages are the resolutions of the encoder, the middle, and the resolutions of the decoder. A layer
is a residual block and what attention follows it; see `sharedattn.networks.unet_block`. Each layer
of the encoder leaves its output, and so do the stem and each halving; each layer of the decoder
takes the last that is left. So no layer is left out, and each keeps its residual block. The
middle's second residual block, which no attention follows, belongs to entering the decoder.

diffusers' networks have attention after all layers of a resolution or none of them; here any layer
has it (V) or not (N). diffusers itself is an extra, imported when a model is built.

Shape letters: B batch, C channels, Y x X grid, T channels of the embedding of time.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharedattn.backbones.family import Family, KeywordRule, per_stage
from sharedattn.errors import InputError
from sharedattn.image_size import ImageSize
from sharedattn.mechanisms.nothing import NOTHING
from sharedattn.mechanisms.vanilla import VANILLA
from sharedattn.networks.network import Network, NetworkPlan, RunResult
from sharedattn.networks.part_sizes import Grid, PartSizes, num_params, sizes_of
from sharedattn.networks.state import State
from sharedattn.networks.unet_block import PixelAttention, UNetBlock
from sharedattn.placement import LayerEnvelope, Placement
from sharedattn.shape import AttentionShape, BackboneShape, StageShape, layer_norm_macs


class UNet(nn.Module):
    """The parts of diffusers' `UNet2DModel` with attention after every layer.

    `UNetNetwork` determines how they run.

    Attributes:
        widths: channels of each resolution, finest first.
        config: the arguments of the `UNet2DModel`.
    """

    forward = nn.Module.forward

    def __init__(
        self,
        *,
        widths: Sequence[int] = (16, 32),
        layers_per_block: int = 2,
        head_dim: int = 8,
        norm_groups: int = 8,
        norm_eps: float = 1e-5,
        downsample_padding: int = 1,
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
        in_chans: int = 3,
        num_classes: int = 1,
        drop_path_rate: float = 0.0,
    ) -> None:
        """Make the parts; arguments are those of diffusers, unless they have another meaning here.

        Args:
            widths: diffusers' `block_out_channels`: channels of each resolution, finest first.
            layers_per_block: layers of each resolution of the encoder; the decoder has one more.
            head_dim: channels of a head, or 0 for one head.
            norm_groups: groups of the group norms; it divides all widths.
            norm_eps: epsilon of the group norms.
            downsample_padding: padding of the convolution that halves a grid: 1, or 0 for one more
                row and column at the end alone, as in DDPM.
            flip_sin_to_cos: whether cosines come first in the embedding of time.
            freq_shift: shift of its frequencies.
            in_chans: channels of images, and of the noise that is predicted.
            num_classes: without meaning.
            drop_path_rate: 0, since a UNet has no stochastic depth.

        Raises:
            InputError: diffusers is not installed; or the rate is not 0.
            ValueError: there are fewer than two widths, a head's channels do not divide them, a
                padding is neither 0 nor 1, or a shift leaves no frequency.
        """
        super().__init__()
        del num_classes
        if drop_path_rate:
            raise InputError(
                f"`drop_path_rate` is {drop_path_rate:g}, but a UNet has no stochastic depth; set "
                f"it to 0"
            )
        _check_sizes(widths, head_dim, downsample_padding, freq_shift)
        self.widths = tuple(widths)
        self.config: dict[str, Any] = {
            "in_channels": in_chans,
            "out_channels": in_chans,
            "down_block_types": ("AttnDownBlock2D",) * len(self.widths),
            "up_block_types": ("AttnUpBlock2D",) * len(self.widths),
            "block_out_channels": self.widths,
            "layers_per_block": layers_per_block,
            "attention_head_dim": head_dim or None,
            "norm_num_groups": norm_groups,
            "norm_eps": norm_eps,
            "downsample_padding": downsample_padding,
            "flip_sin_to_cos": flip_sin_to_cos,
            "freq_shift": freq_shift,
        }
        for name, part in unet2d_model()(**self.config).named_children():
            self.add_module(name, part)


def _check_sizes(
    widths: Sequence[int], head_dim: int, downsample_padding: int, freq_shift: int
) -> None:
    """Check what diffusers does not check; errors as of `UNet`."""
    if len(widths) < 2:
        raise ValueError("`widths` has fewer than two resolutions; write for example 16-32")
    if head_dim and any(width % head_dim for width in widths):
        raise ValueError(f"`head_dim`={head_dim} does not divide all of {tuple(widths)}")
    if downsample_padding not in (0, 1):
        raise ValueError(f"`downsample_padding` is {downsample_padding}; it is 0 or 1")
    if freq_shift >= widths[0] // 2:
        raise ValueError(
            f"`freq_shift` is {freq_shift}, which leaves none of {widths[0] // 2} frequencies; "
            f"lower it"
        )


def unet2d_model() -> Any:
    """The class `UNet2DModel` of diffusers.

    Raises:
        InputError: diffusers is not installed.
    """
    try:
        from diffusers.models.unets.unet_2d import UNet2DModel
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "diffusers":
            raise
        raise InputError(
            "UNets are built by diffusers, which is not installed; install sharedattn[unet]"
        ) from error
    return UNet2DModel


class _Level(nn.Module):
    """The layers of a stage under diffusers' names.

    Attributes:
        resnets: the blocks of the layers; of the middle, then its second residual block.
        attentions: the attention branches of each block.
        downsamplers: one that halves the grid after an encoder's stage, or absent.
        upsamplers: one that doubles it after a decoder's stage, or absent.
    """

    def __init__(self, part: Any, blocks: Sequence[UNetBlock]) -> None:
        """Take the blocks, and what remains of diffusers' `part` around them."""
        super().__init__()
        self.resnets = nn.ModuleList([*blocks, *part.resnets[len(blocks) :]])
        self.attentions = nn.ModuleList([block.attention for block in blocks])
        for name in ("downsamplers", "upsamplers"):
            if getattr(part, name, None) is not None:
                self.add_module(name, getattr(part, name))


class UNetNetwork(Network):
    """A UNet over an envelope; what it says is the noise in images, (B, C, Y, X).

    Attributes:
        config: as in `UNet`.
        num_resolutions: number of stages of the encoder, and of the decoder.
        conv_in: the stem's convolution.
        time_proj: sines and cosines of timesteps.
        time_embedding: the embedding of time, (B, T), of these.
        down_blocks: the encoder, finest resolution first.
        mid_block: the middle.
        up_blocks: the decoder, finest resolution last.
        conv_norm_out: norm before the last convolution.
        conv_out: the last convolution.
    """

    takes_timesteps = True

    def __init__(self, model: UNet, plan: NetworkPlan) -> None:
        """Take the parts of `model` that the envelope needs; see `Family`."""
        super().__init__(plan)
        parts: Any = model
        self.config = model.config
        self.num_resolutions = len(model.widths)
        self.conv_in = parts.conv_in
        self.time_proj = parts.time_proj
        self.time_embedding = parts.time_embedding
        levels = [self._level(stage, part) for stage, part in enumerate(_parts(model))]
        self.down_blocks = nn.ModuleList(levels[: self.num_resolutions])
        self.mid_block = levels[self.num_resolutions]
        self.up_blocks = nn.ModuleList(levels[self.num_resolutions + 1 :])
        self.conv_norm_out = parts.conv_norm_out
        self.conv_out = parts.conv_out

    def begin(
        self, images_BCYX: Tensor, timesteps_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Feature maps and state before the first layer; arguments as in `Network`.

        Raises:
            InputError: as in `Network`; or there is not one timestep an image.
        """
        maps_BCYX, state = super().begin(images_BCYX, timesteps_B)
        if timesteps_B is None:
            timesteps_B = maps_BCYX.new_zeros(maps_BCYX.shape[:1])
        if timesteps_B.shape != maps_BCYX.shape[:1]:
            raise InputError(
                f"`timesteps_B` has shape {tuple(timesteps_B.shape)}, but there are "
                f"{len(maps_BCYX)} images; give each its timestep"
            )
        # Sines are in float32; the weights may not be.
        waves = self.time_proj(timesteps_B).to(maps_BCYX.dtype)
        condition_BT = self.time_embedding(waves)
        return maps_BCYX, replace(state, feature_maps=(maps_BCYX,), condition=condition_BT)

    def run(  # type: ignore[override]
        self,
        images_BCYX: Tensor,
        timesteps_B: Tensor | Placement | None = None,
        placement: Tensor | Placement | None = None,
        *,
        collect: Collection[str] = frozenset(),
    ) -> RunResult:
        """Run a placement, as `Network.run`, at timesteps (B,), zeros by default.

        What is made for all networks gives the placement second; either order will do.
        """
        if isinstance(timesteps_B, Placement) or isinstance(placement, Tensor):
            timesteps_B, placement = placement, timesteps_B
        assert not isinstance(timesteps_B, Placement) and not isinstance(placement, Tensor)
        return super().run(images_BCYX, placement, timesteps_B=timesteps_B, collect=collect)

    def forward(  # type: ignore[override]
        self,
        images_BCYX: Tensor,
        timesteps_B: Tensor | Placement | None = None,
        placement: Tensor | Placement | None = None,
    ) -> Tensor:
        """The noise (B, C, Y, X) that `run` predicts."""
        return self.run(images_BCYX, timesteps_B, placement).logits

    def embed_images(self, images_BCYX: Tensor) -> Tensor:
        """Feature maps (B, C, Y, X) of the first stage."""
        maps_BCYX: Tensor = self.conv_in(images_BCYX)
        return maps_BCYX

    def enter(self, stage: int, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Feature maps and state before the first layer of a stage; as in `Network`."""
        if stage == self.num_resolutions + 1:
            tokens = self.mid_block.resnets[-1](tokens, state.condition)
        tokens, state = super().enter(stage, tokens, state)
        if stage < self.num_resolutions:
            state = replace(state, feature_maps=(*state.feature_maps, tokens))
        return tokens, state

    def enter_stage(self, stage: int, tokens: Tensor) -> Tensor:
        """Feature maps on the stage's grid."""
        if stage < self.num_resolutions:
            halved: Tensor = self.down_blocks[stage - 1].get_submodule("downsamplers.0")(tokens)
            return halved
        if stage > self.num_resolutions + 1:
            before = self.up_blocks[stage - self.num_resolutions - 2]
            conv = before.get_submodule("upsamplers.0.conv")
            doubled: Tensor = conv(F.interpolate(tokens, scale_factor=2.0, mode="nearest"))
            return doubled
        return tokens

    def block(self, stage: int, index: int) -> UNetBlock:
        """The block at a layer position."""
        levels = [*self.down_blocks, self.mid_block, *self.up_blocks]
        block = levels[stage].get_submodule(f"resnets.{index}")
        assert isinstance(block, UNetBlock)
        return block

    def classify(self, tokens: Tensor) -> Tensor:
        """The noise (B, C, Y, X) from feature maps of the last stage."""
        noise_BCYX: Tensor = self.conv_out(F.silu(self.conv_norm_out(tokens)))
        return noise_BCYX

    def _level(self, stage: int, part: Any) -> _Level:
        """The layers of a stage from diffusers' part."""
        blocks = zip(part.resnets, part.attentions, self.envelope.stages[stage], strict=False)
        return _Level(part, [self._block(stage, *of_layer) for of_layer in blocks])

    def _block(
        self, stage: int, resnet: Any, attention: Any, position: LayerEnvelope
    ) -> UNetBlock:
        sizes, options = self.shape.stages[stage], self.backbone.options
        branches = PixelAttention(attention, position, sizes, options, fused=self.fused)
        return UNetBlock(
            resnet,
            branches,
            position,
            sizes,
            options,
            takes_map=stage > self.num_resolutions,
            gives_map=stage < self.num_resolutions,
        )


def to_diffusers(network: UNetNetwork) -> Any:
    """The network as diffusers' `UNet2DModel`, on the CPU, in eval mode.

    A resolution of N alone has diffusers' blocks without attention. Where V and N are mixed, an N
    is attention whose output projection is zero: it says the same and costs as much as a V.

    Args:
        network: a network of one placement.

    Returns:
        The model, with copies of the weights.

    Raises:
        InputError: a layer is of another kind than V and N, has a gate or broadcasts context, or
            the network was built for an envelope.
    """
    placement = network.only_placement
    if placement is None:
        raise InputError("a network for several placements has no form in diffusers; extract one")
    own = {VANILLA.letter, NOTHING.letter}
    for i, choices in enumerate(placement.stages):
        for j, choice in enumerate(choices):
            if choice.kind not in own or choice.gate is not None or choice.cb:
                raise InputError(
                    f"layer {j + 1} of stage {i + 1} is {choice}, and diffusers has only "
                    f"{' and '.join(sorted(own, reverse=True))}, without gates and broadcasting"
                )
    num = network.num_resolutions
    attends = [any(c.branch.attends for c in choices) for choices in placement.stages]
    size = network.shape.image_size
    model = unet2d_model()(
        **network.config
        | {
            "sample_size": size.given,
            "down_block_types": tuple(
                "AttnDownBlock2D" if here else "DownBlock2D" for here in attends[:num]
            ),
            "add_attention": attends[num],
            "up_block_types": tuple(
                "AttnUpBlock2D" if here else "UpBlock2D" for here in attends[num + 1 :]
            ),
        }
    )
    weights = {name: torch.zeros_like(weight) for name, weight in model.state_dict().items()}
    model.load_state_dict(weights | network.state_dict())
    return model.eval()


def _parts(model: Any) -> list[Any]:
    """diffusers' part of each stage."""
    return [*model.down_blocks, model.mid_block, *model.up_blocks]


def _describe(model: Any, image_size: ImageSize | None) -> BackboneShape:
    """Read the sizes of a `UNet`.

    Raises:
        InputError: a side of images cannot be halved.
    """
    assert image_size is not None
    halvings = len(model.widths) - 1
    for side in image_size:
        if side % 2**halvings:
            below = side // 2**halvings * 2**halvings
            nearest = [str(size) for size in (below, below + 2**halvings) if size]
            raise InputError(
                f"`image_size` {image_size} has a side of {side} pixels, which is not halved "
                f"{halvings} times without a rest; use {' or '.join(nearest)}"
            )
    stem, grid = sizes_of([model.conv_in], image_size)
    time = [model.time_embedding.linear_1, model.time_embedding.linear_2]
    stages = []
    for stage, part in enumerate(_parts(model)):
        entering, grid = _entering(model, stage, grid)
        stages.append(_stage_shape(model, part, entering, grid))
    head, _ = sizes_of([model.conv_norm_out, model.conv_out], grid)
    return BackboneShape(
        image_size=image_size,
        stages=tuple(stages),
        stem_params=stem.params + num_params(*time),
        stem_macs=stem.macs + sum(linear.weight.numel() for linear in time),
        stem_norm_macs=0,
        head_params=head.params,
        head_macs=head.macs,
        head_norm_macs=head.norm_macs,
    )


def _entering(model: Any, stage: int, grid: Grid) -> tuple[PartSizes, Grid]:
    """The cost of entering a stage from the one before, and the grid then."""
    num = len(model.widths)
    if 0 < stage < num:
        halved = (grid[0] // 2, grid[1] // 2)
        conv = model.down_blocks[stage - 1].downsamplers[0].conv
        return PartSizes(num_params(conv), math.prod(halved) * conv.weight.numel()), halved
    if stage == num + 1:
        return _resnet_sizes(model.mid_block.resnets[1], grid), grid
    if stage > num + 1:
        doubled = (2 * grid[0], 2 * grid[1])
        conv = model.up_blocks[stage - num - 2].upsamplers[0].conv
        # Each element of the doubled map is one.
        resized = conv.in_channels * math.prod(doubled)
        return PartSizes(0, resized, resized) + sizes_of([conv], doubled)[0], doubled
    return PartSizes(), grid


def _stage_shape(model: Any, part: Any, entering: PartSizes, grid: Grid) -> StageShape:
    """Sizes of a stage.

    Its residual blocks count as if each kept the stage's width; what they cost beyond that, or
    save, belongs to the frame.
    """
    N, depth = math.prod(grid), len(part.attentions)
    D, T = part.resnets[0].conv2.out_channels, model.time_embedding.linear_2.out_features
    norm = PartSizes(2 * D, layer_norm_macs(N, D), layer_norm_macs(N, D))
    convolutions = PartSizes(2 * (9 * D**2 + D) + T * D + D, 2 * 9 * N * D**2 + T * D)
    mlp, frame = norm + convolutions, entering  # the other norm counts as that before an MLP
    for resnet in part.resnets[:depth]:
        frame += _resnet_sizes(resnet, grid) - (mlp + norm)
    return StageShape(
        max_depth=depth,
        num_tokens=N,
        num_prefix_tokens=0,
        grid=grid,
        embed_dim=D,
        num_heads=part.attentions[0].heads,
        attention=AttentionShape(num_queries=N, num_keys=N, key_grid=grid),
        mlp_params=mlp.params,
        mlp_macs=mlp.macs,
        mlp_norm_macs=mlp.norm_macs,
        qkv_bias=True,
        proj_bias=True,
        layer_scale=False,
        frame_params=frame.params,
        frame_macs=frame.macs,
        frame_norm_macs=frame.norm_macs,
        is_whole=True,
    )


def _resnet_sizes(resnet: Any, grid: Grid) -> PartSizes:
    """Costs of a residual block, with its skip and its map of the embedding of time."""
    skip = [] if resnet.conv_shortcut is None else [resnet.conv_shortcut]
    modules = [resnet.norm1, resnet.conv1, resnet.norm2, resnet.conv2, *skip]
    time = resnet.time_emb_proj
    return sizes_of(modules, grid)[0] + PartSizes(num_params(time), time.weight.numel())


def _of_config(name: str, **changes: Any) -> KeywordRule:
    """The keyword of an argument of diffusers'."""
    return KeywordRule(lambda model: model.config[name], **changes)


DDPM_CIFAR10: dict[str, Any] = {
    "widths": (128, 256, 256, 256),
    "head_dim": 0,
    "norm_groups": 32,
    "norm_eps": 1e-6,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
}
"""Sizes of DDPM's network for CIFAR-10, which is N2 | V2 | N2 | N2 | V1 | N3 | N3 | V3 | N3, of
35,746,307 parameters."""

UNET = Family(
    base_name="unet2d",
    model_class=UNet,
    keywords={
        # As many as resolutions, not as stages.
        "widths": replace(per_stage(lambda m: m.widths), per_stage=False),
        "layers_per_block": _of_config("layers_per_block"),
        "head_dim": KeywordRule(lambda m: m.config["attention_head_dim"] or 0, may_be_zero=True),
        "norm_groups": _of_config("norm_num_groups"),
        "norm_eps": _of_config("norm_eps"),
        "downsample_padding": _of_config("downsample_padding", may_be_zero=True),
        "flip_sin_to_cos": _of_config("flip_sin_to_cos"),
        "freq_shift": _of_config("freq_shift", may_be_zero=True),
    },
    describe=_describe,
    make_network=UNetNetwork,
    names={"ddpm_cifar10": partial(UNet, **DDPM_CIFAR10)},
    default_image_size=32,
    own_head="noise",
)
