"""A backbone as it was published: all-vanilla, with the state dict of the trained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from sharedattn.backbones import build, describe, resolve
from sharedattn.backbones.meta import without_storage
from sharedattn.placement import (
    BackboneSpec,
    MechanismOptions,
    NetworkSpec,
    Placement,
    ResolvedSpec,
)

T = TypeVar("T")

Shapes = Mapping[str, tuple[int, ...]]

_PYRAMID_HEAD = "pyramid_head."
"""What the names of the weights of a detector's or segmenter's head begin with."""


def published(backbone: BackboneSpec) -> ResolvedSpec:
    """The backbone's all-vanilla network, without options of mechanisms."""
    plain = replace(backbone, options=MechanismOptions())
    placement = Placement.all_vanilla(describe(plain, recorded=True).depths)
    return resolve(NetworkSpec(plain, placement), recorded=True)


def state_shapes(state: Mapping[str, Tensor]) -> Shapes:
    """The shapes of a state dict, by name."""
    return {name: tuple(weight.shape) for name, weight in state.items()}


def shapes_of(backbone: BackboneSpec) -> Shapes:
    """Shapes of the all-vanilla network's state dict.

    Raises:
        InputError: as in `describe`.
    """
    with without_storage():
        network = build(published(backbone))
    return state_shapes(network.state_dict())


def of_pyramid_head(weights: Mapping[str, T]) -> dict[str, T]:
    """The entries by name that belong to a detector's or segmenter's head."""
    return {name: weight for name, weight in weights.items() if name.startswith(_PYRAMID_HEAD)}


def without_pyramid_head(weights: Mapping[str, T]) -> dict[str, T]:
    """The entries by name that do not belong to a detector's or segmenter's head."""
    of_head = of_pyramid_head(weights)
    return {name: weight for name, weight in weights.items() if name not in of_head}


def head_name(backbone: BackboneSpec) -> str | None:
    """Name of the linear map that gives the logits: what changes with the number of classes.

    Returns:
        The module's name, or None if other parts change as well, or the head is no linear map with
        a bias.
    """
    own = shapes_of(backbone)
    other = shapes_of(replace(backbone, num_classes=backbone.num_classes + 1))
    changing = {name: shape for name, shape in own.items() if other.get(name) != shape}
    name = next(iter(changing), "").rpartition(".")[0]
    weight, bias = (changing.pop(f"{name}.{leaf}", ()) for leaf in ("weight", "bias"))
    C = backbone.num_classes
    is_linear = len(weight) == 2 and weight[0] == C and bias == (C,)
    return name if is_linear and not changing else None
