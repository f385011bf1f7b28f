"""Pixel settings that timm records with its weights, by name and tag."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
from timm.data import resolve_data_config
from timm.models import get_arch_pretrained_cfgs

from sharedattn.data.pixels import PixelChanges


def tagged_pixels(name: str, in_chans: int = 3) -> PixelChanges | None:
    """The pixel settings of one set of timm's weights.

    Args:
        name: name of a model, with its tag after a dot; defaults to timm's default tag.
        in_chans: number of image channels; for one, timm's three means are averaged.

    Returns:
        All five values, or None if timm has no such weights.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        return None
    by_tag = pixels_by_tag(architecture, in_chans)
    if not tag:
        default = timm.models.get_pretrained_cfg(architecture, allow_unregistered=False)
        tag = "" if default is None else default.tag or ""
    return by_tag.get(tag)


def pixels_by_tag(name: str, in_chans: int = 3) -> dict[str, PixelChanges]:
    """The pixel settings of all timm weights of an architecture, by tag.

    Args:
        name: name of a model, with or without a tag.
        in_chans: as in `tagged_pixels`.
    """
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        return {}
    return {
        key.partition(".")[2]: _pixels(config.to_dict(), in_chans)
        for key, config in get_arch_pretrained_cfgs(architecture).items()
        if _has_weights(config)
    }


def _has_weights(config: Any) -> bool:
    return bool(config.has_weights)


def _pixels(config: Mapping[str, Any], in_chans: int) -> PixelChanges:
    found = resolve_data_config({}, pretrained_cfg=dict(config))
    mean, std = (tuple(map(float, found[name])) for name in ("mean", "std"))
    if in_chans == 1:
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return PixelChanges(
        mean=mean,
        std=std,
        interpolation=found["interpolation"],
        crop_pct=float(found["crop_pct"]),
        crop_mode=found["crop_mode"],
    )
