"""MCP servers, what was approved of their tools, who may use which tool, and what happened."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the tables of tools and of events."""
    create_mcp_servers()
    create_mcp_tools()
    create_tool_rules()
    create_events()


def create_mcp_servers() -> None:
    """Where tools come from. A server is a command on this machine or an address."""
    op.create_table(
        "mcp_servers",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("display_name", sa.Text, server_default="", nullable=False),
        sa.Column("description", sa.Text, server_default="", nullable=False),
        texts("tags"),
        sa.Column("transport", sa.Text, nullable=False),
        sa.Column("command", sa.Text),
        texts("args"),
        sa.Column("cwd", sa.Text),
        sa.Column("env", sa.LargeBinary, comment="encrypted"),
        sa.Column("url", sa.Text),
        sa.Column("headers", sa.LargeBinary, comment="encrypted"),
        sa.Column("enabled", sa.Boolean, server_default=sa.text("true"), nullable=False),
        sa.Column("timeout_s", sa.Double, nullable=False),
        time("created_at"),
        time("updated_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("mcp_servers_pkey")),
        sa.UniqueConstraint("name", name=op.f("mcp_servers_name_key")),
        sa.CheckConstraint("transport IN ('stdio', 'http', 'sse')", name=op.f("mcp_servers_transport_check")),
        sa.CheckConstraint("(transport = 'stdio') = (command IS NOT NULL)", name=op.f("mcp_servers_command_check")),
        sa.CheckConstraint("(transport = 'stdio') = (url IS NULL)", name=op.f("mcp_servers_url_check")),
    )


def create_mcp_tools() -> None:
    """What was approved of each tool."""
    op.create_table(
        "mcp_tools",
        sa.Column("server_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False, comment="SHA-256 of name, description, schema and annotations"),
        time("approved_at"),
        sa.PrimaryKeyConstraint("server_id", "name", name=op.f("mcp_tools_pkey")),
        sa.ForeignKeyConstraint(["server_id"], ["mcp_servers.id"], name=op.f("mcp_tools_server_id_fkey"), ondelete="CASCADE"),
    )


def create_tool_rules() -> None:
    """Who may use which tool."""
    op.create_table(
        "tool_rules",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("subject", sa.Text, nullable=False, comment="everybody, app:<id> or agent:<slug>"),
        sa.Column("app_id", sa.Uuid, comment="the app of the subject"),
        sa.Column("server", sa.Text, server_default="", nullable=False, comment="empty: every server"),
        sa.Column("tool", sa.Text, server_default="", nullable=False, comment="empty: every tool of the server"),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("decided_by", sa.Text, nullable=False),
        time("created_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("tool_rules_pkey")),
        sa.UniqueConstraint("subject", "server", "tool", name=op.f("tool_rules_subject_server_tool_key")),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name=op.f("tool_rules_app_id_fkey"), ondelete="CASCADE"),
        sa.CheckConstraint("decision IN ('allow', 'ask', 'deny')", name=op.f("tool_rules_decision_check")),
        sa.CheckConstraint("server <> '' OR tool = ''", name=op.f("tool_rules_tool_check")),
        sa.CheckConstraint("(app_id IS NOT NULL) = (subject LIKE 'app:%')", name=op.f("tool_rules_app_check")),
    )


def create_events() -> None:
    """What happened, oldest first by number."""
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("app_id", sa.Uuid, comment="the app that did it"),
        sa.Column("key_id", sa.Uuid, comment="the API key that did it"),
        sa.Column("subject", sa.Text, nullable=False, comment="what it was done to"),
        sa.Column("data", sa.JSON, server_default="{}", nullable=False),
        time("created_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("events_pkey")),
    )
    op.create_index("events_kind_idx", "events", ["kind", "id"])
    op.create_index("events_app_idx", "events", ["app_id", "id"], postgresql_where=sa.text("app_id IS NOT NULL"))
    op.create_index("events_created_at_idx", "events", ["created_at"])


def texts(name: str) -> sa.Column[object]:
    """A list of texts, empty at first."""
    return sa.Column(name, ARRAY(sa.Text), server_default=sa.text("'{}'"), nullable=False)


def time(name: str) -> sa.Column[object]:
    """When something was done."""
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)
