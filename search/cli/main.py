"""Entry point of the command line: runs a command; reports one clear error if it fails.

Exit codes: 0 success; 2 bad input, before anything began, or failed storage (such as a full disk),
with nothing lost; 1 any other error; 130 after Ctrl-C, with the state saved. Results go to
standard output, progress and errors to standard error; with `--json`, standard output holds one
document and nothing else.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import IO, Any, cast

from rich.console import Console

from sharedattn.errors import InputError
from sharedattn.results.database.errors import StorageError
from sharedattn.results.redaction import redacted_message
from sharedattn.search.cli.arguments import parser
from sharedattn.search.cli.output import ClosedOutputError, ReaderGoneError, StandardOutput
from sharedattn.search.cli.removed import check_removed
from sharedattn.search.errors import ClusterLostError, SharedWorkError

EXIT_DONE, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: command-line arguments; defaults to those of this process.

    Returns:
        The exit code.
    """
    # timm 1.0.31 uses torch.jit at import, which torch deprecates; users cannot change that.
    warnings.filterwarnings("ignore", message=".*torch.jit.*")
    given = sys.argv[1:] if arguments is None else list(arguments)
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)

    def fail(message: str, exit_code: int) -> int:
        # The message may contain any text, such as an unknown argument.
        with suppress(OSError):  # then only the exit code can report it
            errors.print(f"sharedattn: {redacted_message(message, given)}", style="red")
        return exit_code

    output = StandardOutput()
    try:
        _check_text(given)
        check_removed(given)
        parsed = parser().parse_args([_at_home(argument) for argument in given])
        # Check now, not after hours; also, the next file opened would take the closed stream's
        # number.
        output.check_open()
        # With --json, print no text for people.
        console = Console(
            file=cast("IO[str]", output),
            quiet=parsed.json,
            soft_wrap=True,
            markup=False,
            highlight=False,
        )
        # Imported here: torch and timm take seconds, which --help and a typo need not wait for.
        commands: Any = import_module("sharedattn.search.cli.commands")
        import_module("sharedattn.search.executors.host_memory").keep_freed_memory()
        document: dict[str, Any] = getattr(commands, parsed.command)(parsed, console)
        if parsed.json:
            json.dump(document, output, indent=2)
            output.write("\n")
        output.flush()
        return EXIT_FAILED if document.get("ok") is False else EXIT_DONE
    except (InputError, StorageError) as error:
        return fail(str(error), EXIT_BAD_INPUT)
    except (ClusterLostError, SharedWorkError) as error:
        return fail(str(error), EXIT_FAILED)
    except KeyboardInterrupt:
        errors.print("sharedattn: interrupted; run the same command again to go on")
        return EXIT_INTERRUPTED
    except ReaderGoneError:
        output.discard()
        return EXIT_FAILED
    except ClosedOutputError as error:
        output.discard()
        return fail(str(error), EXIT_FAILED)
    except OSError as error:
        # Raised by a disk or file system during a write; its message says enough.
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return fail(f"{where}{error.strerror or error}", EXIT_FAILED)


def _check_text(arguments: Sequence[str]) -> None:
    """Check that the database and JSON documents can hold the arguments.

    Raises:
        InputError: an argument is not UTF-8 or is empty, or an option ends in `=--`, which
            argparse reads as an empty list.
    """
    for argument in arguments:
        # Empty arguments come from unset shell variables; no option gives them a meaning.
        option, is_given, value = argument.partition("=")
        is_empty = option.startswith("--") and is_given and value in ("", "--")
        if argument == "" or is_empty:
            raise InputError(
                f"the argument {argument!r} gives no value; write one or leave it out"
            )
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"the argument {os.fsencode(argument)!r} is not UTF-8; give the file or folder "
                f"another name, and call it by that"
            ) from None


def _at_home(argument: str) -> str:
    """Expand a path's `~`, which the shell leaves alone after `=`."""
    option, is_given, value = argument.partition("=")
    if not (is_given and option.startswith("--")):
        return argument
    return f"{option}={os.path.expanduser(value)}"
