"""Trials report at rungs, drivers number their transactions, and commands hold no password."""

import re
from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

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
        without = " ".join(_masked(argument) for argument in command.split(" "))
        if without != command:
            connection.execute(
                sa.update(studies)
                .where(studies.c.id == study_id)
                .values(provenance={**provenance, "command": without})
            )


# `results.masking.masked` as it was when this version was released. A copy, since what a version
# does to a database is fixed, while the package goes on.

_MASK = "***"
_SCHEME = re.compile(
    r"(?P<file>\b(?:sqlite|sqlite\+pysqlite|file):///+)|[a-z][a-z0-9+.-]*:/+"
    r"|postgres(?:ql)?(?:\+\w+)?:",
    re.I,
)
_HOST = r"(?:\[[0-9A-Fa-f:.%]*\]|[^\s/?#:@,\[\]]*)"
_HOSTS_WITH_PORTS = re.compile(rf"{_HOST}:\d{{1,5}}(?:,{_HOST}:\d{{1,5}})*(?=[/?,;\s'\"`)]|$)")
_HOST_ALONE = re.compile(rf"{_HOST}(?=[/?]|$)")
_SETTING_TO_THE_END = re.compile(r"(\w*(?:password|passwd|secret)\s*=\s*).+", re.I | re.DOTALL)


def _masked(text: str) -> str:
    """An argument of a command without what may be a password in it."""
    return _SETTING_TO_THE_END.sub(rf"\g<1>{_MASK}", _without_userinfo(text))


def _without_userinfo(text: str) -> str:
    """Mask the password of every URL; without a host behind it, it may reach to the end."""
    shown, rest = "", text
    while match := _SCHEME.search(rest):
        shown += rest[: match.end()]
        rest = rest[match.end() :]
        if match["file"]:
            continue
        at = rest.rfind("@")
        colon = _password_colon(rest, at)
        if colon is None:
            continue
        shown += rest[: colon + 1] + _MASK
        rest = rest[at:] if at > colon else ""
    return shown + rest


def _password_colon(rest: str, at: int) -> int | None:
    """The colon before what may be a password; None: there is none.

    Args:
        rest: what follows the scheme.
        at: the last @ in it; -1: there is none.
    """
    begin = 0
    if rest.startswith("[") and at < 0:
        begin = rest.find("]") + 1
    colon = rest.find(":", begin)
    if 0 <= colon < at:
        return colon
    hosts = rest[at + 1 :]
    if colon < 0 or _HOSTS_WITH_PORTS.match(hosts) or _HOST_ALONE.match(hosts):
        return None
    return rest.find(":", at + 1) if ":" in hosts else None
