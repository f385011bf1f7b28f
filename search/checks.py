"""Checks of options, reported by their command-line names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Any

from sharedattn.errors import InputError
from sharedattn.search.data_plan import DataOptions

MAX_COUNT = 2**31 - 1
"""Largest number of trials, seeds or images that the database can store."""
MAX_SEED = 2**63 - 1
"""Largest seed that the database can store; torch and numpy accept it as well."""
MAX_WORKERS = 100_000
"""More than any machine or cluster can run, but few enough to keep track of."""


def check_whole(option: str, value: int | None, least: int, most: int) -> None:
    """Check that a number is within bounds.

    Args:
        option: name of the option, for the message.
        value: the number, or None if it was not given.
        least: smallest allowed value.
        most: largest allowed value.

    Raises:
        InputError: the number is out of bounds.
    """
    if value is not None and not least <= value <= most:
        raise InputError(f"`{option}` is a whole number from {least} to {most}, but got {value}")


def check_applies(part: Any, names: Iterable[str], required: str, is_met: bool) -> None:
    """Check that no option is given that the other options make meaningless.

    Args:
        part: a dataclass of options.
        names: some of its fields.
        required: the condition of these fields, for the message.
        is_met: whether the condition is met.

    Raises:
        InputError: the condition is not met and a field is not at its default.
    """
    if not is_met and (useless := ", ".join(given_options(part, names))):
        raise InputError(f"{useless} requires {required}; leave out {useless}")


def given_options(part: Any, names: Iterable[str]) -> list[str]:
    """The fields that are not at their defaults, as command-line options."""
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
    """The command-line option of a field."""
    return f"--{name.replace('_', '-')}"
