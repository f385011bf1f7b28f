"""Latencies are of a study and its device; the column of evaluations, never written, goes."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    op.add_column("studies", sa.Column("latency", sa.JSON(), nullable=True))
    op.create_table(
        "latencies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("spec_id", sa.Integer(), nullable=False),
        sa.Column("latency_ms", sa.Double(), nullable=False),
        sa.Column("latency_source", sa.String(16), nullable=False),
        sa.Column("repeats", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(255), nullable=False),
        sa.Column("batch_size", sa.Integer(), nullable=False),
        sa.Column("peak_bytes", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["spec_id"], ["specs.id"], name="fk_latencies_spec_id_specs"),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name="fk_latencies_study_id_studies"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_latencies"),
        sa.UniqueConstraint("study_id", "spec_id", name="uq_latencies_study_id_spec_id"),
    )
    op.drop_column("evaluations", "latency_ms")
