"""The tables, as SQLAlchemy Core sees them. ``homeport/migrations`` creates them; a test compares the two.

Free-form JSON that an app owns is ``json``, not ``jsonb``: it comes back exactly as it was sent (order, number spelling, U+0000).
Times are ``timestamptz``, set by the database, so that several server processes agree on them.
"""

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)

from adapters.pgvector import registry_table

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)


def _time(name: str, *, nullable: bool = True) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=None if nullable else func.now())


def _texts(name: str) -> Column[object]:
    return Column(name, ARRAY(Text), nullable=False, server_default=text("'{}'"))


api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("prefix", Text, nullable=False, unique=True, comment="the readable first part of the key"),
    Column("secret_hash", LargeBinary, nullable=False, comment="SHA-256 of the secret part"),
    Column("name", Text, nullable=False),
    _texts("scopes"),
    _time("expires_at"),
    _time("last_used_at"),
    _time("revoked_at"),
    _time("created_at", nullable=False),
)

apps = Table(
    "apps",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("slug", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("kind", Text, nullable=False, server_default="local"),
    Column("manifest", JSON, nullable=False, server_default="{}"),
    Column("requires_user", Boolean, nullable=False, server_default=text("false")),
    _time("created_at", nullable=False),
    _time("updated_at", nullable=False),
    CheckConstraint("kind IN ('local', 'worker', 'agent', 'integration')", name="kind"),
)

grants = Table(
    "grants",
    metadata,
    Column("app_id", Uuid, ForeignKey(apps.c.id, ondelete="CASCADE"), primary_key=True),
    Column("permission", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("decided_by", Text, nullable=False),
    _time("decided_at", nullable=False),
    CheckConstraint("state IN ('granted', 'denied')", name="state"),
)

permission_requests = Table(
    "permission_requests",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("app_id", Uuid, ForeignKey(apps.c.id, ondelete="CASCADE"), nullable=False),
    Column("permission", Text, nullable=False),
    Column("app_name", Text, nullable=False, comment="the name that the app gave itself; not to be trusted"),
    Column("state", Text, nullable=False, server_default="pending"),
    _time("requested_at", nullable=False),
    _time("decided_at"),
    CheckConstraint("state IN ('pending', 'granted', 'denied')", name="state"),
    Index("permission_requests_pending_idx", "app_id", "permission", unique=True, postgresql_where=text("state = 'pending'")),
    Index("permission_requests_requested_at_idx", "requested_at", "id"),
)

workspaces = Table(
    "workspaces",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("slug", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False, server_default="workspace"),
    _time("created_at", nullable=False),
)

threads = Table(
    "threads",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("workspace_id", BigInteger, ForeignKey(workspaces.c.id, ondelete="CASCADE"), nullable=False),
    Column("slug", Text, nullable=False),
    Column("name", Text, nullable=False),
    _time("created_at", nullable=False),
    UniqueConstraint("workspace_id", "slug"),
)

agents = Table(
    "agents",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("slug", Text, nullable=False, unique=True),
    Column("display_name", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("hub_id", Text),
    _time("created_at", nullable=False),
)

activities = Table(
    "activities",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner_id", Uuid, nullable=False, comment="the app, or in development the API key, that owns the row"),
    Column("raw_data", JSON, nullable=False),
    Column("old_data", JSON(none_as_null=True)),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("locked_by", Text),
    _time("locked_at"),
    _time("completed_at"),
    Column("error_message", Text),
    _texts("attempted_by"),
    Column("retry_count", Integer, nullable=False, server_default="0"),
    Column("result", JSON(none_as_null=True)),
    _time("created_at", nullable=False),
    Index("activities_owner_idx", "owner_id", text("created_at DESC"), text("id DESC")),
    Index("activities_owner_status_idx", "owner_id", "status", text("created_at DESC"), text("id DESC")),
    Index("activities_locked_idx", "locked_at", postgresql_where=text("status IN ('claimed', 'processing')")),
)

user_tokens = Table(
    "user_tokens",
    metadata,
    Column("owner_id", Uuid, primary_key=True, comment="the app or API key that a person signed in to"),
    Column("token", LargeBinary, nullable=False, comment="encrypted"),
    Column("source", Text, nullable=False),
    _time("expires_at"),
    _time("synced_at", nullable=False),
)

model_providers = Table(
    "model_providers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("kind", Text, nullable=False, comment="'openai' speaks OpenAI's protocol; anything else is LiteLLM's provider name"),
    Column("base_url", Text),
    Column("api_key", LargeBinary, comment="encrypted"),
    _texts("models"),
    _time("created_at", nullable=False),
)

model_routes = Table(
    "model_routes",
    metadata,
    Column("role", Text, primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("provider", Text, nullable=False, comment="of the database, the environment, or built in"),
    Column("model", Text, comment="null: the provider's own default"),
    CheckConstraint("role IN ('chat', 'embedding')", name="role"),
)

model_limits = Table(
    "model_limits",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("model", Text, primary_key=True, server_default="", comment="empty: all models of the provider"),
    Column("timeout_s", Double),
    Column("retries", Integer),
    Column("concurrency", Integer, comment="calls at once in each server process"),
)

model_usage = Table(
    "model_usage",
    metadata,
    Column("hour", DateTime(timezone=True), primary_key=True),
    Column("app_id", Uuid, primary_key=True, comment="all zeros: no app"),
    Column("key_id", Uuid, primary_key=True, comment="all zeros: no key"),
    Column("provider", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("operation", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("latency_sum_s", Double, nullable=False),
    Column("latency_max_s", Double, nullable=False),
    Column("cost_usd", Numeric, comment="null: the price is not known"),
    CheckConstraint("operation IN ('chat', 'embedding', 'speech')", name="operation"),
)

# The vectors of each namespace are in a table that it brings: adapters/pgvector.
vector_namespaces = registry_table(metadata)

vector_configs = Table(
    "vector_configs",
    metadata,
    Column("owner_id", Uuid, primary_key=True, comment="the app or API key whose vectors are elsewhere"),
    Column("provider", Text, nullable=False),
    Column("config", LargeBinary, nullable=False, comment="encrypted"),
    _time("updated_at", nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("owner_id", Uuid, nullable=False, comment="the app or API key that it is done for"),
    Column("lane", Text, comment="jobs in one lane are done one after the other, in order"),
    Column("payload", JSON(none_as_null=True), comment="gone as soon as the job is finished"),
    Column("state", Text, nullable=False, server_default="queued"),
    Column("done", Integer, nullable=False, server_default="0"),
    Column("total", Integer, nullable=False, server_default="0"),
    Column("result", JSON(none_as_null=True)),
    Column("error", Text),
    Column("error_code", Text),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("max_attempts", Integer, nullable=False),
    Column(
        "visible_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.now(),
        comment="when a worker may take it; while one works on it, when that one's lease ends",
    ),
    Column("worker", Text, comment="who holds the lease"),
    _time("created_at", nullable=False),
    _time("started_at"),
    _time("finished_at"),
    CheckConstraint("state IN ('queued', 'running', 'completed', 'failed', 'cancelled')", name="state"),
    Index("jobs_due_idx", "visible_at", "id", postgresql_where=text("state IN ('queued', 'running')")),
    Index("jobs_open_idx", "owner_id", "kind", postgresql_where=text("state IN ('queued', 'running')")),
    Index("jobs_lane_idx", "lane", "id", postgresql_where=text("lane IS NOT NULL AND state IN ('queued', 'running')")),
    Index("jobs_finished_idx", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
)

mcp_servers = Table(
    "mcp_servers",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("display_name", Text, nullable=False, server_default=""),
    Column("description", Text, nullable=False, server_default=""),
    _texts("tags"),
    Column("transport", Text, nullable=False),
    Column("command", Text),
    _texts("args"),
    Column("cwd", Text),
    Column("env", LargeBinary, comment="encrypted"),
    Column("url", Text),
    Column("headers", LargeBinary, comment="encrypted"),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    Column("timeout_s", Double, nullable=False),
    _time("created_at", nullable=False),
    _time("updated_at", nullable=False),
    CheckConstraint("transport IN ('stdio', 'http', 'sse')", name="transport"),
    CheckConstraint("(transport = 'stdio') = (command IS NOT NULL)", name="command"),
    CheckConstraint("(transport = 'stdio') = (url IS NULL)", name="url"),
)

mcp_tools = Table(
    "mcp_tools",
    metadata,
    Column("server_id", Uuid, ForeignKey(mcp_servers.c.id, ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False, comment="SHA-256 of name, description, schema and annotations"),
    _time("approved_at", nullable=False),
)

tool_rules = Table(
    "tool_rules",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("subject", Text, nullable=False, comment="everybody, app:<id> or agent:<slug>"),
    Column("app_id", Uuid, ForeignKey(apps.c.id, ondelete="CASCADE"), comment="the app of the subject"),
    Column("server", Text, nullable=False, server_default="", comment="empty: every server"),
    Column("tool", Text, nullable=False, server_default="", comment="empty: every tool of the server"),
    Column("decision", Text, nullable=False),
    Column("decided_by", Text, nullable=False),
    _time("created_at", nullable=False),
    UniqueConstraint("subject", "server", "tool"),
    CheckConstraint("decision IN ('allow', 'ask', 'deny')", name="decision"),
    CheckConstraint("server <> '' OR tool = ''", name="tool"),
    CheckConstraint("(app_id IS NOT NULL) = (subject LIKE 'app:%')", name="app"),
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("app_id", Uuid, comment="the app that did it"),
    Column("key_id", Uuid, comment="the API key that did it"),
    Column("subject", Text, nullable=False, comment="what it was done to"),
    Column("data", JSON, nullable=False, server_default="{}"),
    _time("created_at", nullable=False),
    Index("events_kind_idx", "kind", "id"),
    Index("events_app_idx", "app_id", "id", postgresql_where=text("app_id IS NOT NULL")),
    Index("events_created_at_idx", "created_at"),
)
