"""Standard output that may be full, closed, or of a terminal that knows few characters."""

from __future__ import annotations

import codecs
import os
import sys
from contextlib import suppress

_ERRORS = "sharedattn.plain"
# In place of signs that tables are made with; whatever else there is keeps its code.
_PLAIN = {"±": "+-", "²": "2", "×": "x", "…": "...", "–": "-", "—": "-", "\u2007": " "}


class ClosedOutputError(Exception):
    """Standard output takes nothing; whoever reads it must look after it."""


class ReaderGoneError(ClosedOutputError):
    """Whoever read standard output has closed it, as `head` does; there is nothing to be said."""


class StandardOutput:
    """Writes to whatever `sys.stdout` is, and says in one kind of error that it cannot.

    Of a stream it has what rich and json ask for.

    Characters that its encoding lacks are written as plain ones (`+-`), or as `\\xe9`.
    """

    def __init__(self) -> None:
        # Not `reconfigure`, which would change the stream for everybody else in this process.
        codecs.register_error(_ERRORS, _plain)

    @property
    def encoding(self) -> str:
        """Of the stream; rich draws tables with plain lines where it is not a Unicode one."""
        return getattr(sys.stdout, "encoding", None) or "utf-8"

    def check_open(self) -> None:
        """Find out before any work that nothing can be written.

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
            ReaderGoneError: by whoever read it.
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
            # Not as it is: rich would end the process by it.
            raise ReaderGoneError from error
        except OSError as error:
            raise _cannot_write(error) from error

    def flush(self) -> None:
        """Write what is held back; errors as of `write`."""
        self.check_open()
        try:
            sys.stdout.flush()
        except BrokenPipeError as error:
            # Not as it is: rich would end the process by it.
            raise ReaderGoneError from error
        except OSError as error:
            raise _cannot_write(error) from error

    def fileno(self) -> int:
        """Of the stream."""
        return sys.stdout.fileno()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return sys.stdout is not None and not sys.stdout.closed and sys.stdout.isatty()

    def discard(self) -> None:
        """Drop what is held back: Python would try to write it once more at its end."""
        with suppress(OSError, ValueError, AttributeError):
            descriptor = os.open(os.devnull, os.O_WRONLY)
            os.dup2(descriptor, sys.stdout.fileno())
            os.close(descriptor)


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """A handler of encoding errors: one character after the other."""
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    if character in _PLAIN:
        return _PLAIN[character], error.start + 1
    return character.encode("ascii", "backslashreplace").decode("ascii"), error.start + 1


def _cannot_write(error: OSError) -> ClosedOutputError:
    return ClosedOutputError(f"standard output cannot be written: {error.strerror or error}")
