"""Resize networks to another image size, by resampling what was learned for a grid of tokens.

Like position embeddings, less attention's maps over tokens fit one image size. A map acts on
tokens that are samples of the image, so its difference from the identity becomes

    R (difference) R'

where R' resamples the new grid's tokens to the old grid, and R the old grid's to the new, both
bicubic with anti-aliasing, as timm resamples position embeddings. The rows of R and R' sum to 1:
the row sums of the difference, its effect on equal tokens, are themselves resampled and not
scaled. The identity stays, so plain reuse remains plain reuse. A low-rank difference U V becomes
(R U) (V R'). Prefix tokens keep their rows and columns. This is ours; the papers do not resample
maps.

Shape letters: N tokens, Y x X grid.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from sharedattn.backbones import build, build_network
from sharedattn.errors import InputError
from sharedattn.image_size import AnySize
from sharedattn.mechanisms.less import ScoreMaps
from sharedattn.mechanisms.residual import pooling_ratios
from sharedattn.networks.network import Network
from sharedattn.placement import NetworkSpec
from sharedattn.shape import BackboneShape, StageShape

Grid = tuple[int, int]


def at_image_size(network: Network, image_size: AnySize) -> Network:
    """Convert a network to images of another size, with the same weights.

    Args:
        network: any network.
        image_size: pixels on a side of the images, or their height and width.

    Returns:
        A network over the same envelope. Maps over tokens and position parameters are resampled;
        every other weight is copied. Device, dtype and mode are those of `network`.

    Raises:
        InputError: the backbone cannot have this size, or the placement is not legal at it, or the
            attention residual pools differently; or weights that depend on the image size cannot
            be resampled.
    """
    backbone, only = replace(network.backbone, image_size=image_size), network.only_placement
    like = next(network.parameters())
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        make = (
            partial(build_network, backbone, network.envelope)
            if only is None
            else partial(build, NetworkSpec(backbone, only))
        )
        target = make(fused=network.fused, drop_path_rate=network.drop_path_rate)
    if backbone.options.attention_residual:
        _check_pooling(network.shape, target.shape)
    target.grad_checkpointing = network.grad_checkpointing
    target.compile_layers = network.compile_layers
    target = target.to(device=like.device, dtype=like.dtype)
    old, new = network.state_dict(), target.state_dict()
    assert old.keys() == new.keys()
    maps = _resampled_maps(network, target)
    for name, weight in old.items():
        if name in maps:
            new[name] = maps[name]
        elif weight.shape == new[name].shape:
            new[name] = weight.clone()
        else:
            new[name] = network.resample_position(name, weight, target)
    target.load_state_dict(new, assign=True)
    return target.train(network.training)


def resampling(num_prefix_tokens: int, old: Grid, new: Grid) -> Tensor:
    """R, which resamples tokens from one grid to another and keeps prefix tokens.

    Args:
        num_prefix_tokens: P, at the head of both sequences.
        old: Y x X, the grid of the given tokens.
        new: Y' x X', the grid of the result.

    Returns:
        (P + Y' X', P + Y X), in float64; each row sums to 1.
    """
    num_tokens = old[0] * old[1]
    basis = torch.eye(num_tokens, dtype=torch.float64).reshape(1, num_tokens, *old)
    resize = partial(F.interpolate, mode="bicubic", antialias=True)
    if new[1] > 1:
        tokens = resize(basis, size=new)
    else:
        # On its side: torch 2.14 resizes the rows of a single column wrongly.
        tokens = resize(basis.transpose(2, 3).contiguous(), size=new[::-1]).transpose(2, 3)
    P, num_new = num_prefix_tokens, new[0] * new[1]
    resample = torch.zeros(P + num_new, P + num_tokens, dtype=torch.float64)
    resample[:P, :P] = torch.eye(P)
    resample[P:, P:] = tokens.reshape(num_tokens, num_new).t()
    return resample


def _check_pooling(old: BackboneShape, new: BackboneShape) -> None:
    """Check that the attention residual's kernels have the same size at both image sizes.

    Raises:
        InputError: the ratio of queries or keys between two stages differs; the message names it.
    """
    ratios = (
        [pooling_ratios(before, stage) for before, stage in pairwise(shape.stages)]
        for shape in (old, new)
    )
    for i, (of_old, of_new) in enumerate(zip(*ratios, strict=True)):
        if of_old != of_new:
            raise InputError(
                f"the attention residual pools queries and keys into stage {i + 2} by {of_old[0]} "
                f"and {of_old[1]} at {old.image_size} px, but by {of_new[0]} and {of_new[1]} at "
                f"{new.image_size} px; choose a size at which the grids of all stages keep their "
                f"ratios"
            )


def _resampled_maps(network: Network, target: Network) -> dict[str, Tensor]:
    """The parameters of all maps over tokens, by name, for the grids of another network."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    resampled = {}
    for i, positions in enumerate(network.envelope.stages):
        old, new = network.shape.stages[i], target.shape.stages[i]
        sides = {
            "psi": _there_and_back(_query_tokens(old), _query_tokens(new)),
            "theta": _there_and_back(_key_tokens(old), _key_tokens(new)),
        }
        for index in range(len(positions)):
            for maps in network.block(i, index).children():
                if isinstance(maps, ScoreMaps):
                    for name, weight in maps.named_parameters():
                        resampled[names[id(weight)]] = _resample(name, weight.detach(), sides)
    return resampled


def _resample(name: str, weight: Tensor, sides: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
    """A parameter of `TokenMaps` or `LowRankMaps`; V of rank R has no rows, and U no columns."""
    side, _, factor = name.partition("_")
    there, back = sides[side]
    resampled = weight.to("cpu", torch.float64)
    if factor != "down":
        resampled = there @ resampled
    if factor != "up":
        resampled = resampled @ back
    return resampled.to(weight.device, weight.dtype)


def _there_and_back(old: tuple[int, Grid], new: tuple[int, Grid]) -> tuple[Tensor, Tensor]:
    """R and R' between the tokens of two stages, each given as prefix tokens and grid."""
    return resampling(new[0], old[1], new[1]), resampling(old[0], new[1], old[1])


def _query_tokens(stage: StageShape) -> tuple[int, Grid]:
    # The queries of one among several windows lie on the grid of its keys.
    grid = stage.grid if stage.attention.num_windows == 1 else stage.attention.key_grid
    return stage.attention.num_queries - grid[0] * grid[1], grid


def _key_tokens(stage: StageShape) -> tuple[int, Grid]:
    grid = stage.attention.key_grid
    return stage.attention.num_keys - grid[0] * grid[1], grid
