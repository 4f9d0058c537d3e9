"""Tasks that apps hand over, and who worked on them."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create the tables of tasks."""
    create_tasks()
    create_task_runs()
    create_webhook_events()


def create_tasks() -> None:
    """Pieces of work for an agent."""
    op.create_table(
        "tasks",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("calendar_event_id", sa.Uuid, nullable=False),
        sa.Column("owner_id", sa.Uuid, nullable=False, comment="the app or API key that it was triggered by"),
        sa.Column("caller", sa.JSON, nullable=False, comment="on whose behalf its agent works"),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("action_type", sa.Text, server_default="SDK_TRIGGER", nullable=False),
        sa.Column("status", sa.Text, server_default="pending", nullable=False),
        sa.Column("auto_run", sa.Boolean, nullable=False),
        sa.Column("agent", sa.Text),
        sa.Column("workspace", sa.Text),
        sa.Column("thread", sa.Text),
        sa.Column("prompt", sa.Text, server_default="", nullable=False),
        sa.Column("raw_data", sa.JSON, nullable=False),
        sa.Column("machine_id", sa.Text, comment="who works on it"),
        sa.Column("progress", sa.JSON),
        sa.Column("result", sa.JSON),
        sa.Column("error", sa.Text),
        sa.Column("callback_url", sa.Text),
        sa.Column("job_id", sa.Uuid, comment="the job that carries it out"),
        time("created_at"),
        time("updated_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("tasks_pkey")),
        sa.UniqueConstraint("calendar_event_id", name=op.f("tasks_calendar_event_id_key")),
        sa.CheckConstraint(
            "status IN ('pending', 'claimed', 'processing', 'completed', 'failed', 'canceled')", name=op.f("tasks_status_check")
        ),
    )
    op.create_index("tasks_owner_idx", "tasks", ["owner_id", "id"])
    op.create_index("tasks_status_idx", "tasks", ["status", "id"])


def create_task_runs() -> None:
    """The attempts at a task."""
    op.create_table(
        "task_runs",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("task_id", sa.Uuid, nullable=False),
        sa.Column("number", sa.Integer, nullable=False, comment="counts from 1"),
        sa.Column("attempt_id", sa.Text, nullable=False),
        sa.Column("agent", sa.Text),
        sa.Column("workspace", sa.Text),
        sa.Column("thread", sa.Text),
        sa.Column("machine_id", sa.Text),
        sa.Column("status", sa.Text, server_default="pending", nullable=False),
        sa.Column("session_id", sa.Uuid, comment="the conversation in which an agent of this server works on it"),
        sa.Column("error", sa.Text),
        time("created_at"),
        time("started_at", nullable=True),
        time("completed_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("task_runs_pkey")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("task_runs_task_id_fkey"), ondelete="CASCADE"),
        sa.UniqueConstraint("task_id", "number", name=op.f("task_runs_task_id_number_key")),
        sa.CheckConstraint("status IN ('pending', 'running', 'completed', 'failed', 'canceled')", name=op.f("task_runs_status_check")),
    )


def create_webhook_events() -> None:
    """What was reported already, so that it counts once."""
    op.create_table(
        "webhook_events",
        sa.Column("owner_id", sa.Uuid, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("answer", sa.JSON, nullable=False, comment="what is answered when it comes again"),
        time("created_at"),
        sa.PrimaryKeyConstraint("owner_id", "event_id", name=op.f("webhook_events_pkey")),
    )
    op.create_index("webhook_events_created_at_idx", "webhook_events", ["created_at"])


def time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    """When something was done."""
    return sa.Column(name, sa.DateTime(timezone=True), server_default=None if nullable else sa.func.now(), nullable=nullable)
