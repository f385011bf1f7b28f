"""Alembic's entry point: migrates on the connection that `upgrade` passes."""

from alembic import context

from sharedattn.results.database.migrations import VERSION_TABLE
from sharedattn.results.database.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    # SQLite alters a table by copying it.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
