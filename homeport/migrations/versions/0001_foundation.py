"""Keys, apps, grants and permission requests; workspaces, threads and agents; activities; user tokens; model providers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables of the foundation."""
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    create_api_keys()
    create_apps()
    create_permissions()
    create_workspaces()
    create_agents()
    create_activities()
    create_user_tokens()
    create_model_providers()


def time(name: str) -> sa.Column[object]:
    """A time that may be missing."""
    return sa.Column(name, sa.DateTime(timezone=True))


def time_of_row(name: str) -> sa.Column[object]:
    """A time that the database sets when the row is made."""
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)


def texts(name: str) -> sa.Column[object]:
    """A list of texts, empty unless given."""
    return sa.Column(name, sa.ARRAY(sa.Text), server_default=sa.text("'{}'"), nullable=False)


def create_api_keys() -> None:
    """Developers' keys."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("prefix", sa.Text, nullable=False, comment="the readable first part of the key"),
        sa.Column("secret_hash", sa.LargeBinary, nullable=False, comment="SHA-256 of the secret part"),
        sa.Column("name", sa.Text, nullable=False),
        texts("scopes"),
        time("expires_at"),
        time("last_used_at"),
        time("revoked_at"),
        time_of_row("created_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("api_keys_pkey")),
        sa.UniqueConstraint("prefix", name=op.f("api_keys_prefix_key")),
    )


def create_apps() -> None:
    """Registered apps."""
    op.create_table(
        "apps",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("slug", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, server_default="", nullable=False),
        sa.Column("kind", sa.Text, server_default="local", nullable=False),
        sa.Column("manifest", sa.JSON, server_default="{}", nullable=False),
        sa.Column("requires_user", sa.Boolean, server_default=sa.text("false"), nullable=False),
        time_of_row("created_at"),
        time_of_row("updated_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("apps_pkey")),
        sa.UniqueConstraint("slug", name=op.f("apps_slug_key")),
        sa.CheckConstraint("kind IN ('local', 'worker', 'agent', 'integration')", name=op.f("apps_kind_check")),
    )


def create_permissions() -> None:
    """What apps may do, and what they have asked for."""
    op.create_table(
        "grants",
        sa.Column("app_id", sa.Uuid, nullable=False),
        sa.Column("permission", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("decided_by", sa.Text, nullable=False),
        time_of_row("decided_at"),
        sa.PrimaryKeyConstraint("app_id", "permission", name=op.f("grants_pkey")),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name=op.f("grants_app_id_fkey"), ondelete="CASCADE"),
        sa.CheckConstraint("state IN ('granted', 'denied')", name=op.f("grants_state_check")),
    )
    op.create_table(
        "permission_requests",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("app_id", sa.Uuid, nullable=False),
        sa.Column("permission", sa.Text, nullable=False),
        sa.Column("app_name", sa.Text, nullable=False, comment="the name that the app gave itself; not to be trusted"),
        sa.Column("state", sa.Text, server_default="pending", nullable=False),
        time_of_row("requested_at"),
        time("decided_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("permission_requests_pkey")),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name=op.f("permission_requests_app_id_fkey"), ondelete="CASCADE"),
        sa.CheckConstraint("state IN ('pending', 'granted', 'denied')", name=op.f("permission_requests_state_check")),
    )
    op.create_index(
        "permission_requests_pending_idx",
        "permission_requests",
        ["app_id", "permission"],
        unique=True,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index("permission_requests_requested_at_idx", "permission_requests", ["requested_at", "id"])


def create_workspaces() -> None:
    """Workspaces and their threads."""
    op.create_table(
        "workspaces",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("slug", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("type", sa.Text, server_default="workspace", nullable=False),
        time_of_row("created_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("workspaces_pkey")),
        sa.UniqueConstraint("slug", name=op.f("workspaces_slug_key")),
    )
    op.create_table(
        "threads",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("workspace_id", sa.BigInteger, nullable=False),
        sa.Column("slug", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        time_of_row("created_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("threads_pkey")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("threads_workspace_id_fkey"), ondelete="CASCADE"),
        sa.UniqueConstraint("workspace_id", "slug", name=op.f("threads_workspace_id_slug_key")),
    )


def create_agents() -> None:
    """Agents."""
    op.create_table(
        "agents",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("slug", sa.Text, nullable=False),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, server_default="", nullable=False),
        sa.Column("hub_id", sa.Text),
        time_of_row("created_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("agents_pkey")),
        sa.UniqueConstraint("slug", name=op.f("agents_slug_key")),
    )


def create_activities() -> None:
    """Rows that apps own and claim, with the indexes that keep their lists flat."""
    op.create_table(
        "activities",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("owner_id", sa.Uuid, nullable=False, comment="the app, or in development the API key, that owns the row"),
        sa.Column("raw_data", sa.JSON, nullable=False),
        sa.Column("old_data", sa.JSON),
        sa.Column("status", sa.Text, server_default="pending", nullable=False),
        sa.Column("locked_by", sa.Text),
        time("locked_at"),
        time("completed_at"),
        sa.Column("error_message", sa.Text),
        texts("attempted_by"),
        sa.Column("retry_count", sa.Integer, server_default="0", nullable=False),
        sa.Column("result", sa.JSON),
        time_of_row("created_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("activities_pkey")),
    )
    newest_first = [sa.text("created_at DESC"), sa.text("id DESC")]
    op.create_index("activities_owner_idx", "activities", ["owner_id", *newest_first])
    op.create_index("activities_owner_status_idx", "activities", ["owner_id", "status", *newest_first])
    op.create_index("activities_locked_idx", "activities", ["locked_at"], postgresql_where=sa.text("status IN ('claimed', 'processing')"))


def create_user_tokens() -> None:
    """The tokens of people who signed in to an app."""
    op.create_table(
        "user_tokens",
        sa.Column("owner_id", sa.Uuid, nullable=False, comment="the app or API key that a person signed in to"),
        sa.Column("token", sa.LargeBinary, nullable=False, comment="encrypted"),
        sa.Column("source", sa.Text, nullable=False),
        time("expires_at"),
        time_of_row("synced_at"),
        sa.PrimaryKeyConstraint("owner_id", name=op.f("user_tokens_pkey")),
    )


def create_model_providers() -> None:
    """Where models are found."""
    op.create_table(
        "model_providers",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False, comment="'openai' speaks OpenAI's protocol; anything else is LiteLLM's provider name"),
        sa.Column("base_url", sa.Text),
        sa.Column("api_key", sa.LargeBinary, comment="encrypted"),
        texts("models"),
        sa.Column("is_default", sa.Boolean, server_default=sa.text("false"), nullable=False),
        time_of_row("created_at"),
        sa.PrimaryKeyConstraint("name", name=op.f("model_providers_pkey")),
    )
    op.create_index("model_providers_default_idx", "model_providers", ["is_default"], unique=True, postgresql_where=sa.text("is_default"))
