"""The bottleneck of a gate: floor(D / r) channels, as published; timm rounds to other numbers."""

from __future__ import annotations

from sharedattn.errors import InputError


def bottleneck_channels(channels: int, reduction: int, name: str, *, least: int = 1) -> int:
    """m, the number of channels of a bottleneck.

    Args:
        channels: D.
        reduction: r.
        name: name of the option that gives r, for the message.
        least: smallest m that makes sense.

    Raises:
        InputError: m would be smaller than `least`.
    """
    m = channels // reduction
    if m >= least:
        return m
    remedy = (
        f"the most that fits is {name}={channels // least}"
        if channels >= least
        else "leave the gate out there"
    )
    raise InputError(
        f"`{name}` is {reduction}, and the stage has {channels} channels, which leaves {m} for "
        f"the bottleneck and not {least} or more; {remedy}"
    )
