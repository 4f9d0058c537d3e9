"""How apps are started, and those that run."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Let apps be started from here."""
    op.add_column("apps", sa.Column("launch", sa.JSON, comment="how to start it; null: it is not started from here"))
    op.add_column("apps", sa.Column("env", sa.LargeBinary, comment="encrypted: what it gets in its environment"))
    create_app_processes()


def create_app_processes() -> None:
    """The process of each app that was ever started."""
    op.create_table(
        "app_processes",
        sa.Column("app_id", sa.Uuid, nullable=False),
        sa.Column("is_wanted", sa.Boolean, nullable=False, comment="whether it is to run"),
        sa.Column("state", sa.Text, server_default="stopped", nullable=False),
        sa.Column("holder", sa.Text, comment="the process that looks after it"),
        sa.Column("held_until", sa.DateTime(timezone=True), comment="after this, another one may"),
        sa.Column("pid", sa.Integer),
        sa.Column("pid_started_at", sa.Double, comment="tells it from a later process with this number"),
        sa.Column("port", sa.Integer),
        sa.Column("restarts", sa.Integer, server_default="0", nullable=False),
        sa.Column("exit_code", sa.Integer),
        sa.Column("error", sa.Text),
        time("started_at", nullable=True),
        time("updated_at"),
        sa.PrimaryKeyConstraint("app_id", name=op.f("app_processes_pkey")),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name=op.f("app_processes_app_id_fkey"), ondelete="CASCADE"),
        sa.UniqueConstraint("port", name=op.f("app_processes_port_key")),
        sa.CheckConstraint("state IN ('stopped', 'starting', 'running', 'error', 'stopping')", name=op.f("app_processes_state_check")),
    )


def time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    """When something was done."""
    return sa.Column(name, sa.DateTime(timezone=True), server_default=None if nullable else sa.func.now(), nullable=nullable)
