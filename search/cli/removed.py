"""Removed names of the command line and their replacements."""

from __future__ import annotations

from collections.abc import Sequence

from sharedattn.errors import InputError

COMMANDS = {
    "proxies": "no zero-cost proxy ranked placements better than params and MACs; "
    "`python benchmarks/proxy_ranks.py TABLE.json` in the repository ranks those of a table",
}
OPTIONS = {
    "--tree-memory": "scoring keeps what one walk over the placements needs; to keep less, lower "
    "batch_size in the training of a --supernet-recipe",
}


def check_removed(arguments: Sequence[str]) -> None:
    """Check that no argument is a command or option of an earlier version.

    Raises:
        InputError: an argument was removed; the message names its replacement.
    """
    if arguments and arguments[0] in COMMANDS:
        raise InputError(f"the command `{arguments[0]}` was removed: {COMMANDS[arguments[0]]}")
    for argument in arguments:
        option = argument.partition("=")[0]
        if option in OPTIONS:
            raise InputError(f"the option `{option}` was removed: {OPTIONS[option]}")
