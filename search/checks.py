"""Checks of options, by the names that the command line has for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Any

from sharedattn.errors import InputError
from sharedattn.search.data_plan import DataOptions

MAX_COUNT = 2**31 - 1
"""The most that the database holds of a number of trials, seeds or images."""
MAX_SEED = 2**63 - 1
"""The largest seed that the database holds; torch and numpy take it as well."""
MAX_WORKERS = 100_000
"""More than any machine or cluster could run, and few enough to keep account of."""


def check_whole(option: str, value: int | None, least: int, most: int) -> None:
    """Refuse a number that is too small, or too large for what keeps it.

    Args:
        option: names it in the message.
        value: the number, or None if none is given.
        least: that is allowed.
        most: that is allowed.

    Raises:
        InputError: a number outside.
    """
    if value is not None and not least <= value <= most:
        raise InputError(f"`{option}` is a whole number from {least} to {most}, but got {value}")


def check_applies(part: Any, names: Iterable[str], required: str, is_met: bool) -> None:
    """Refuse options that the other options leave without a meaning.

    Args:
        part: a dataclass of options.
        names: some of its fields.
        required: what these fields require, for the message.
        is_met: whether that is so.

    Raises:
        InputError: a field is given in vain.
    """
    if not is_met and (useless := ", ".join(given_options(part, names))):
        raise InputError(f"{useless} requires {required}; leave out {useless}")


def given_options(part: Any, names: Iterable[str]) -> list[str]:
    """The options whose fields of a dataclass are not at their defaults, as the command line."""
    defaults = {f.name: f for f in fields(part)}
    given = []
    for name in sorted(names):
        value, default = getattr(part, name), defaults[name].default
        if default is MISSING:
            factory = defaults[name].default_factory
            assert factory is not MISSING
            default = factory()
        if isinstance(value, DataOptions):
            given += value.given()
        elif value != default and not (name == "gpus_per_trial" and not value):
            given.append(option_of(name))
    return given


def option_of(name: str) -> str:
    """The option of a field."""
    return f"--{name.replace('_', '-')}"
