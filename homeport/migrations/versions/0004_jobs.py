"""The queue of jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the table of jobs."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("owner_id", sa.Uuid, nullable=False, comment="the app or API key that it is done for"),
        sa.Column("lane", sa.Text, comment="jobs in one lane are done one after the other, in order"),
        sa.Column("payload", sa.JSON, comment="gone as soon as the job is finished"),
        sa.Column("state", sa.Text, server_default="queued", nullable=False),
        number("done"),
        number("total"),
        sa.Column("result", sa.JSON),
        sa.Column("error", sa.Text),
        sa.Column("error_code", sa.Text),
        number("attempts"),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column(
            "visible_at",
            sa.DateTime(timezone=True),
            server_default=sa.func.now(),
            nullable=False,
            comment="when a worker may take it; while one works on it, when that one's lease ends",
        ),
        sa.Column("worker", sa.Text, comment="who holds the lease"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name=op.f("jobs_pkey")),
        sa.CheckConstraint("state IN ('queued', 'running', 'completed', 'failed', 'cancelled')", name=op.f("jobs_state_check")),
    )
    is_open = sa.text("state IN ('queued', 'running')")
    op.create_index("jobs_due_idx", "jobs", ["visible_at", "id"], postgresql_where=is_open)
    op.create_index("jobs_open_idx", "jobs", ["owner_id", "kind"], postgresql_where=is_open)
    in_lane = sa.text("lane IS NOT NULL AND state IN ('queued', 'running')")
    op.create_index("jobs_lane_idx", "jobs", ["lane", "id"], postgresql_where=in_lane)
    op.create_index("jobs_finished_idx", "jobs", ["finished_at"], postgresql_where=sa.text("finished_at IS NOT NULL"))


def number(name: str) -> sa.Column[object]:
    """A count that begins at zero."""
    return sa.Column(name, sa.Integer, server_default="0", nullable=False)
