"""Migrate the database's schema from within the package (no alembic.ini needed).

A new version: change `sharedattn.results.database.models`, add `versions/v000N_<what>.py` after
its predecessor (or let Alembic draft it, `alembic.command.revision(alembic_config(),
autogenerate=True)` with a connection in `attributes`), set `HEAD` to it, and freeze the schema it
makes in `tests/results/database/migrations/schemas/`. A test compares migrations and models. A
version imports nothing of the package, which goes on while what the version does is fixed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection

if TYPE_CHECKING:
    from alembic.config import Config

VERSION_TABLE = "sharedattn_alembic_version"
# Kept here, so that opening a current database does not import Alembic; a test compares it.
HEAD = "0005"


def alembic_config() -> Config:
    """Alembic's configuration, with the scripts of the installed package."""
    from alembic.config import Config

    config = Config()
    # Alembic interpolates options, so a percent sign in a path is doubled.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def known_revisions() -> tuple[str, ...]:
    """Every version of the schema that this package knows, oldest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(alembic_config()).walk_revisions()
    return tuple(reversed([script.revision for script in scripts]))


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the database to `revision`, inside the connection's transaction."""
    from alembic import command

    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
