"""Processes that end with the one that started them, however that went."""

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
    """A spawned process with a pipe of its own; it holds no lock.

    Attributes:
        process: the process.
        pipe: to it and from it; `recv` raises EOFError once the process is dead.
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
            *args: pickled to it.
        """
        end_while_main_is_imported()
        ours, theirs = _CONTEXT.Pipe()
        lifeline, watched = _CONTEXT.Pipe()
        # Not a daemon: image data sets load with processes of their own, which a daemon may not
        # have.
        process = _CONTEXT.Process(target=_live, args=(watched, life, theirs, *args))
        process.start()
        theirs.close()
        watched.close()
        return cls(process, ours, lifeline)

    def send(self, message: Any) -> None:
        """Send a message; where the process is dead, `pipe` shows it to who reads there next."""
        try:
            self.pipe.send(message)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def death(self, name: str) -> Lost | Preempted:
        """What a process that has died, or is about to, died of.

        Args:
            name: what it is called in the event's reason.

        Raises:
            InputError: it could not even begin, since the script that started it cannot be
                imported there.
        """
        self.process.join()
        exitcode = self.process.exitcode
        if exitcode is not None and exitcode > 0 and not self._begun():
            script = getattr(sys.modules["__main__"], "__file__", "the main module")
            raise InputError(
                f"{name} could not begin, since each worker first imports {script}; put what "
                f'the script runs under `if __name__ == "__main__":`, and start it from a file'
            ) from None  # the pipe's end says nothing beside this
        if exitcode == -signal.SIGTERM:
            # A scheduler's or an administrator's notice: a process that fails gets other signals.
            return Preempted(f"{name} was asked to end, by SIGTERM")
        if exitcode is not None and exitcode < 0:
            signal_name = signal.Signals(-exitcode).name
            memory = (
                "; the machine may have run out of memory" if exitcode == -signal.SIGKILL else ""
            )
            return Lost(f"{name} was ended by {signal_name}{memory}")
        return Lost(f"{name} ended with exit code {exitcode}")

    def _begun(self) -> bool:
        """Whether the process, now dead, had come as far as its life."""
        with suppress(EOFError, OSError):
            self._has_begun = self._has_begun or self._lifeline.recv_bytes() == _HAS_BEGUN
        return self._has_begun

    def end(self) -> None:
        """End the process at once, if it still runs, and forget it."""
        self.process.kill()
        self.pipe.close()
        self._lifeline.close()
        self.process.join()
        self.process.close()


def end_while_main_is_imported() -> None:
    """End a worker that, by importing the script which started it, would start the same again.

    The script lacks its `if __name__ == "__main__":`. The worker says nothing: the process that
    started it does, see `Child.death`.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(1)


def offer(pipe: Connection, message: Any) -> None:
    """Send a short message that may be lost, without ever waiting for the reader.

    It is dropped where the pipe has no room for it, since its reader is busy with something else,
    or where the reader has gone.

    Args:
        pipe: an end of `multiprocessing.Pipe()`, a socket: it is ready for writing while most of
            its buffer is free, so that what has less than 50 KB is taken whole.
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
