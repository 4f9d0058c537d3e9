"""What an agent is, its conversations, what it does in them, and what it asks a person."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Let agents work."""
    extend_agents()
    create_agent_sessions()
    create_agent_runs()
    create_agent_messages()
    create_approvals()
    op.create_index("events_subject_idx", "events", ["subject", "id"])


def extend_agents() -> None:
    """Instructions, model, tools and limits."""
    op.add_column("agents", sa.Column("instructions", sa.Text, server_default="", nullable=False))
    op.add_column("agents", sa.Column("provider", sa.Text, comment="null: the default"))
    op.add_column("agents", sa.Column("model", sa.Text, comment="null: the provider's own default"))
    op.add_column("agents", texts("tools"))
    op.add_column("agents", sa.Column("limits", sa.JSON, server_default="{}", nullable=False))
    op.add_column("agents", time("updated_at"))


def create_agent_sessions() -> None:
    """Conversations with an agent."""
    op.create_table(
        "agent_sessions",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("owner_id", sa.Uuid, nullable=False, comment="the app or API key whose conversation it is"),
        sa.Column("agent_id", sa.BigInteger, nullable=False),
        sa.Column("workspace_id", sa.BigInteger, nullable=False),
        sa.Column("thread_id", sa.BigInteger),
        sa.Column("message_count", sa.Integer, server_default="0", nullable=False, comment="what was said: questions and final answers"),
        time("last_message_at", nullable=True),
        time("last_active_at"),
        time("closed_at", nullable=True),
        time("created_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("agent_sessions_pkey")),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name=op.f("agent_sessions_agent_id_fkey"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("agent_sessions_workspace_id_fkey"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["thread_id"], ["threads.id"], name=op.f("agent_sessions_thread_id_fkey"), ondelete="CASCADE"),
    )
    op.create_index("agent_sessions_agent_idx", "agent_sessions", ["agent_id"])
    op.create_index("agent_sessions_last_active_at_idx", "agent_sessions", ["last_active_at"])
    op.create_index("agent_sessions_owner_idx", "agent_sessions", ["owner_id", "id"])
    op.create_index("agent_sessions_workspace_idx", "agent_sessions", ["workspace_id", "thread_id"])


def create_agent_runs() -> None:
    """What an agent does to answer one message."""
    op.create_table(
        "agent_runs",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("session_id", sa.Uuid, nullable=False),
        sa.Column("owner_id", sa.Uuid, nullable=False),
        sa.Column("agent", sa.Text, nullable=False, comment="its slug"),
        sa.Column("task_id", sa.Uuid, comment="the task that it is done for"),
        sa.Column("state", sa.Text, server_default="running", nullable=False),
        sa.Column("provider", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("turns", sa.Integer, server_default="0", nullable=False, comment="how often the model was asked"),
        sa.Column("tool_calls", sa.Integer, server_default="0", nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("error_code", sa.Text),
        sa.Column("worker", sa.Text, nullable=False, comment="the process that carries it out"),
        sa.Column("held_until", sa.DateTime(timezone=True), nullable=False, comment="if it is open then, its process is gone"),
        time("created_at"),
        time("finished_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("agent_runs_pkey")),
        sa.ForeignKeyConstraint(["session_id"], ["agent_sessions.id"], name=op.f("agent_runs_session_id_fkey"), ondelete="CASCADE"),
        sa.CheckConstraint("state IN ('running', 'waiting', 'completed', 'failed', 'cancelled')", name=op.f("agent_runs_state_check")),
    )
    op.create_index("agent_runs_held_idx", "agent_runs", ["held_until"], postgresql_where=sa.text("state IN ('running', 'waiting')"))
    op.create_index(
        "agent_runs_open_idx", "agent_runs", ["session_id"], unique=True, postgresql_where=sa.text("state IN ('running', 'waiting')")
    )
    op.create_index("agent_runs_session_idx", "agent_runs", ["session_id", "id"])
    op.create_index("agent_runs_task_idx", "agent_runs", ["task_id"], postgresql_where=sa.text("task_id IS NOT NULL"))


def create_agent_messages() -> None:
    """What was said in a conversation, tools included."""
    op.create_table(
        "agent_messages",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("session_id", sa.Uuid, nullable=False),
        sa.Column("run_id", sa.Uuid, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("content", sa.JSON, nullable=False, comment="the whole message, as OpenAI's protocol writes it"),
        time("created_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("agent_messages_pkey")),
        sa.ForeignKeyConstraint(["session_id"], ["agent_sessions.id"], name=op.f("agent_messages_session_id_fkey"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["run_id"], ["agent_runs.id"], name=op.f("agent_messages_run_id_fkey"), ondelete="CASCADE"),
        sa.CheckConstraint("role IN ('user', 'assistant', 'tool')", name=op.f("agent_messages_role_check")),
    )
    op.create_index("agent_messages_run_idx", "agent_messages", ["run_id", "id"])
    op.create_index("agent_messages_session_idx", "agent_messages", ["session_id", "id"])


def create_approvals() -> None:
    """What an agent asks a person before it uses a tool."""
    op.create_table(
        "approvals",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("run_id", sa.Uuid, nullable=False),
        sa.Column("owner_id", sa.Uuid, nullable=False),
        sa.Column("app_id", sa.Uuid, comment="the app that the agent works for; null: an API key"),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("server", sa.Text, nullable=False),
        sa.Column("tool", sa.Text, nullable=False),
        sa.Column("tool_call_id", sa.Text, nullable=False),
        sa.Column("arguments", sa.JSON, nullable=False, comment="what the tool would be called with"),
        sa.Column("permission", sa.Text, nullable=False, comment="what would have to be granted for it not to be asked again"),
        sa.Column("state", sa.Text, server_default="pending", nullable=False),
        sa.Column("decided_by", sa.Text),
        time("requested_at"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        time("decided_at", nullable=True),
        time("used_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("approvals_pkey")),
        sa.ForeignKeyConstraint(["run_id"], ["agent_runs.id"], name=op.f("approvals_run_id_fkey"), ondelete="CASCADE"),
        sa.UniqueConstraint("run_id", "tool_call_id", name=op.f("approvals_run_id_tool_call_id_key")),
        sa.CheckConstraint("state IN ('pending', 'granted', 'denied', 'expired')", name=op.f("approvals_state_check")),
    )
    op.create_index("approvals_pending_idx", "approvals", ["expires_at"], postgresql_where=sa.text("state = 'pending'"))
    op.create_index("approvals_requested_at_idx", "approvals", ["requested_at", "id"])


def texts(name: str) -> sa.Column[object]:
    """A list of texts, empty at first."""
    return sa.Column(name, ARRAY(sa.Text), server_default=sa.text("'{}'"), nullable=False)


def time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    """When something was done."""
    return sa.Column(name, sa.DateTime(timezone=True), server_default=None if nullable else sa.func.now(), nullable=nullable)
