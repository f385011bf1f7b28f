"""Standard output that may be full, closed, or limited to few characters."""

from __future__ import annotations

import codecs
import os
import sys
from contextlib import suppress

_ERRORS = "sharedattn.plain"
# Replacements of the characters used in tables; any other is written as its escape code.
_PLAIN = {"±": "+-", "²": "2", "×": "x", "…": "...", "–": "-", "—": "-", "\u2007": " "}


class ClosedOutputError(Exception):
    """Standard output cannot be written."""


class ReaderGoneError(ClosedOutputError):
    """The reader closed standard output, as `head` does; no message is needed."""


class StandardOutput:
    """Writes to the current `sys.stdout`, and raises one kind of error if it cannot.

    It has the parts of a stream that rich and json use. Characters that its encoding lacks are
    written in plain form (`+-`), or as `\\xe9`.
    """

    def __init__(self) -> None:
        # Not `reconfigure`, which would change the stream for all code in this process.
        codecs.register_error(_ERRORS, _plain)

    @property
    def encoding(self) -> str:
        """The stream's encoding; rich draws plain lines if it is not a Unicode one."""
        return getattr(sys.stdout, "encoding", None) or "utf-8"

    def check_open(self) -> None:
        """Check that the stream can be written, before any work.

        Raises:
            ClosedOutputError: the stream is closed.
        """
        if sys.stdout is None or sys.stdout.closed:
            raise ClosedOutputError(
                "standard output is closed; send it to a file, or to /dev/null to drop it"
            )

    def write(self, text: str) -> int:
        """Write text.

        Raises:
            ClosedOutputError: the disk behind the stream is full, or the stream closed.
            ReaderGoneError: the reader closed the stream.
        """
        encoding = self.encoding
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            text = text.encode(encoding, _ERRORS).decode(encoding)
        self.check_open()
        try:
            return sys.stdout.write(text)
        except BrokenPipeError as error:
            # Convert it: rich would end the process on a BrokenPipeError.
            raise ReaderGoneError from error
        except OSError as error:
            raise _cannot_write(error) from error

    def flush(self) -> None:
        """Flush the buffer; raises the errors of `write`."""
        self.check_open()
        try:
            sys.stdout.flush()
        except BrokenPipeError as error:
            # Convert it: rich would end the process on a BrokenPipeError.
            raise ReaderGoneError from error
        except OSError as error:
            raise _cannot_write(error) from error

    def fileno(self) -> int:
        """The stream's file descriptor."""
        return sys.stdout.fileno()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return sys.stdout is not None and not sys.stdout.closed and sys.stdout.isatty()

    def discard(self) -> None:
        """Drop the buffer, which Python would otherwise try to write again at exit."""
        with suppress(OSError, ValueError, AttributeError):
            descriptor = os.open(os.devnull, os.O_WRONLY)
            os.dup2(descriptor, sys.stdout.fileno())
            os.close(descriptor)


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Handle encoding errors, one character at a time."""
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    if character in _PLAIN:
        return _PLAIN[character], error.start + 1
    return character.encode("ascii", "backslashreplace").decode("ascii"), error.start + 1


def _cannot_write(error: OSError) -> ClosedOutputError:
    return ClosedOutputError(f"standard output cannot be written: {error.strerror or error}")
