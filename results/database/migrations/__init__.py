"""Migrate the database's schema from within the package, without an alembic.ini.

To add a version: change `sharedattn.results.database.models`; add `versions/v000N_<what>.py`, by
hand or with Alembic (`alembic.command.revision(alembic_config(), autogenerate=True)` with a
connection in `attributes`); set `HEAD` to it; and store its schema in
`tests/results/database/migrations/schemas/`. A test compares migrations and models. Versions
import nothing from the package, since the package changes and a version does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection

if TYPE_CHECKING:
    from alembic.config import Config

VERSION_TABLE = "sharedattn_alembic_version"
# Defined here, so that opening a current database does not import Alembic; a test compares it.
HEAD = "0005"


def alembic_config() -> Config:
    """Alembic's configuration with the installed package's scripts."""
    from alembic.config import Config

    config = Config()
    # Double percent signs in the path, since Alembic interpolates options.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def known_revisions() -> tuple[str, ...]:
    """All schema versions that this package knows, oldest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(alembic_config()).walk_revisions()
    return tuple(reversed([script.revision for script in scripts]))


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Upgrade the database to `revision` in the connection's transaction."""
    from alembic import command

    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
