"""Trials report at rungs, drivers number their transactions, and commands hold no password."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from sharedattn.results.redaction import masked

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "studies", sa.Column("driver_write", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.create_table(
        "rung_reports",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("top1", sa.Double(), nullable=False),
        sa.Column("loss", sa.Double(), nullable=False),
        sa.Column("goes_on", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["trial_id"], ["trials.id"], name="fk_rung_reports_trial_id_trials"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_rung_reports"),
        sa.UniqueConstraint("trial_id", "epoch", name="uq_rung_reports_trial_id_epoch"),
    )
    studies = sa.table("studies", sa.column("id"), sa.column("provenance", sa.JSON))
    connection = op.get_bind()
    for study_id, provenance in connection.execute(sa.select(studies)).all():
        command = provenance.get("command", "")
        without = " ".join(masked(argument) for argument in command.split(" "))
        if without != command:
            connection.execute(
                sa.update(studies)
                .where(studies.c.id == study_id)
                .values(provenance={**provenance, "command": without})
            )
