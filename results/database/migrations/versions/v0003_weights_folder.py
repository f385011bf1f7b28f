"""Studies say where their weights are, and trials are found by their evaluation."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    op.add_column("studies", sa.Column("weights_dir", sa.Text(), nullable=True))
    op.create_index("ix_trials_evaluation_id", "trials", ["evaluation_id"])
