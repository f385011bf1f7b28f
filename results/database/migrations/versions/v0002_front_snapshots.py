"""Fronts are kept as they stood during the search."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "front_snapshots",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("num_complete", sa.Integer(), nullable=False),
        sa.Column("hypervolume", sa.Double(), nullable=False),
        sa.Column("members", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name="fk_front_snapshots_study_id_studies"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_front_snapshots"),
        sa.UniqueConstraint(
            "study_id", "num_complete", name="uq_front_snapshots_study_id_num_complete"
        ),
    )
