"""A TCP proxy that can cut a connection at a chosen moment, for tests of lost connections."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self

# When to cut: before a message is forwarded, or after the server has answered it and before the
# client learns so. `half`: as `after`, while the server's side stays open.
Moment = Literal["before", "after", "half"]


class CuttingProxy:
    """Forwards a connection to a port of this machine until it is cut.

    Args:
        target: the port.

    Attributes:
        port: the proxy's port on 127.0.0.1.
        cut_message: the client's message at which the connection was cut; empty before that.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._countdown = 0
        self._word = b""
        self._moment: Moment = "before"
        self._hangs_s = 0.0
        self.cut_message = b""
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for opened in (self._listener, *self._sockets):
            _close(opened)

    def cut(
        self, message: int, moment: Moment, *, word: bytes = b"", hangs_s: float = 0.0
    ) -> None:
        """Cut the connection once, at one of the client's messages from now on.

        A message is what arrives in one piece; a statement may take several, and not always as
        many.

        Args:
            message: number of the message, from 1, counted over all connections.
            moment: when exactly to cut.
            word: bytes that counted messages contain.
            hangs_s: seconds until the client notices the cut.
        """
        self._countdown = 0
        self.cut_message = b""
        self._moment, self._word, self._hangs_s = moment, word, hangs_s
        # Set last: the connection may be in use.
        self._countdown = message

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:  # it is being restarted
                _close(client)
                continue
            self._sockets += [client, server]
            threading.Thread(target=self._hand_on, args=(client, server), daemon=True).start()

    def _hand_on(self, client: socket.socket, server: socket.socket) -> None:
        is_cut = threading.Event()
        answered = threading.Event()

        def answer() -> None:
            while content := _receive(server):
                answered.set()
                if not is_cut.is_set():
                    _send(client, content)
            _close(client)

        threading.Thread(target=answer, daemon=True).start()
        while content := _receive(client):
            is_counted = self._word in content
            self._countdown -= is_counted
            if is_counted and self._countdown == 0:
                self.cut_message = content
                is_cut.set()
                answered.clear()
                if self._moment != "before":
                    _send(server, content)
                    answered.wait(10)
                time.sleep(self._hangs_s)
                _close(client)
                if self._moment == "half":
                    return
                break
            _send(server, content)
        _close(server)


def _receive(opened: socket.socket) -> bytes:
    try:
        return opened.recv(1 << 16)
    except OSError:
        return b""


def _send(opened: socket.socket, content: bytes) -> None:
    with suppress(OSError):  # the other side is gone; the connection's end follows
        opened.sendall(content)


def _close(opened: socket.socket) -> None:
    # Shut down first: close alone does not wake a thread that waits for the socket.
    with suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
    opened.close()
