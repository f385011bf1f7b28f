"""Child processes that end with their parent, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Self

from sharedattn.errors import InputError
from sharedattn.search.executors.base import Lost, Preempted

_CONTEXT = multiprocessing.get_context("spawn")
_HAS_BEGUN = b"begun"


@dataclass(slots=True)
class Child:
    """A spawned process with its own pipe; it holds no lock.

    Attributes:
        process: the process.
        pipe: the pipe to and from it; `recv` raises EOFError once the process is dead.
    """

    process: SpawnProcess
    pipe: Connection
    _lifeline: Connection
    _has_begun: bool = False

    @classmethod
    def start(cls, life: Callable[..., None], *args: Any) -> Self:
        """Start a process.

        Args:
            life: an importable function, called there with the other end of the pipe and `args`.
            *args: pickled to the process.
        """
        end_while_main_is_imported()
        ours, theirs = _CONTEXT.Pipe()
        lifeline, watched = _CONTEXT.Pipe()
        # Not a daemon, since image data sets load by processes of their own and daemons may have
        # none.
        process = _CONTEXT.Process(target=_live, args=(watched, life, theirs, *args))
        process.start()
        theirs.close()
        watched.close()
        return cls(process, ours, lifeline)

    def send(self, message: Any) -> None:
        """Send a message; if the process is dead, the next read of `pipe` fails instead."""
        try:
            self.pipe.send(message)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def death(self, name: str) -> Lost | Preempted:
        """Why a process has died, or is about to die.

        Args:
            name: name of the process in the event's reason.

        Raises:
            InputError: it could not start, since it cannot import the script that started it.
        """
        self.process.join()
        exitcode = self.process.exitcode
        if exitcode is not None and exitcode > 0 and not self._begun():
            script = getattr(sys.modules["__main__"], "__file__", "the main module")
            raise InputError(
                f"{name} could not start, since each worker first imports {script}; put what "
                f'the script runs under `if __name__ == "__main__":`, and start it from a file'
            ) from None  # the pipe's end adds nothing
        if exitcode == -signal.SIGTERM:
            # Sent by a scheduler or an administrator: a failing process gets other signals.
            return Preempted(f"{name} was asked to end, by SIGTERM")
        if exitcode is not None and exitcode < 0:
            signal_name = signal.Signals(-exitcode).name
            memory = (
                "; the machine may have run out of memory" if exitcode == -signal.SIGKILL else ""
            )
            return Lost(f"{name} was ended by {signal_name}{memory}")
        return Lost(f"{name} ended with exit code {exitcode}")

    def _begun(self) -> bool:
        """Whether the process, now dead, had started its main function."""
        with suppress(EOFError, OSError):
            self._has_begun = self._has_begun or self._lifeline.recv_bytes() == _HAS_BEGUN
        return self._has_begun

    def end(self) -> None:
        """Kill the process if it still runs, and release its resources."""
        self.process.kill()
        self.pipe.close()
        self._lifeline.close()
        self.process.join()
        self.process.close()


def end_while_main_is_imported() -> None:
    """End a worker whose import of the starting script would start the same work again.

    The script lacks `if __name__ == "__main__":`. The worker ends silently; the process that
    started it explains, see `Child.death`.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(1)


def offer(pipe: Connection, message: Any) -> None:
    """Send a short message without ever waiting for the reader; the message may be lost.

    It is dropped if the pipe is full, since its reader is busy, or if the reader has gone.

    Args:
        pipe: an end of `multiprocessing.Pipe()`, a socket: it is ready for writing while most of
            its buffer is free, so messages below 50 KB are sent whole.
        message: pickled.
    """
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    if any(flags & select.POLLOUT for _, flags in poll.poll(0)):
        try:
            pipe.send(message)
        except (BrokenPipeError, ConnectionResetError):
            pass


def _live(lifeline: Connection, life: Callable[..., None], pipe: Connection, *args: Any) -> None:
    # Ctrl-C reaches the whole process group; the driver alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        lifeline.send_bytes(_HAS_BEGUN)
    except (BrokenPipeError, ConnectionResetError):
        # The driver has gone meanwhile.
        os._exit(0)
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    # timm 1.0.31 warns at import of its own use of torch.jit; a child would print that each time.
    warnings.filterwarnings("ignore", message=".*torch.jit.*")
    life(pipe, *args)


def _end_with_parent(lifeline: Connection) -> None:
    # Nothing is ever sent: this returns when the parent closes its end or dies, also by SIGKILL.
    try:
        lifeline.recv_bytes()
    except (EOFError, OSError):
        pass
    os._exit(0)
