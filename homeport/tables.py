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
    Column("launch", JSON(none_as_null=True), comment="how to start it; null: it is not started from here"),
    Column("env", LargeBinary, comment="encrypted: what it gets in its environment"),
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
    Column("instructions", Text, nullable=False, server_default=""),
    Column("provider", Text, comment="null: the default"),
    Column("model", Text, comment="null: the provider's own default"),
    _texts("tools"),
    Column("limits", JSON, nullable=False, server_default="{}"),
    _time("updated_at", nullable=False),
)

agent_sessions = Table(
    "agent_sessions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner_id", Uuid, nullable=False, comment="the app or API key whose conversation it is"),
    Column("agent_id", BigInteger, ForeignKey(agents.c.id, ondelete="CASCADE"), nullable=False),
    Column("workspace_id", BigInteger, ForeignKey(workspaces.c.id, ondelete="CASCADE"), nullable=False),
    Column("thread_id", BigInteger, ForeignKey(threads.c.id, ondelete="CASCADE")),
    Column("message_count", Integer, nullable=False, server_default="0", comment="what was said: questions and final answers"),
    _time("last_message_at"),
    _time("last_active_at", nullable=False),
    _time("closed_at"),
    _time("created_at", nullable=False),
    Index("agent_sessions_owner_idx", "owner_id", "id"),
    Index("agent_sessions_last_active_at_idx", "last_active_at"),
    Index("agent_sessions_agent_idx", "agent_id"),
    Index("agent_sessions_workspace_idx", "workspace_id", "thread_id"),
)

agent_runs = Table(
    "agent_runs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("session_id", Uuid, ForeignKey(agent_sessions.c.id, ondelete="CASCADE"), nullable=False),
    Column("owner_id", Uuid, nullable=False),
    Column("agent", Text, nullable=False, comment="its slug"),
    Column("task_id", Uuid, comment="the task that it is done for"),
    Column("state", Text, nullable=False, server_default="running"),
    Column("provider", Text),
    Column("model", Text),
    Column("turns", Integer, nullable=False, server_default="0", comment="how often the model was asked"),
    Column("tool_calls", Integer, nullable=False, server_default="0"),
    Column("prompt_tokens", BigInteger, nullable=False, server_default="0"),
    Column("completion_tokens", BigInteger, nullable=False, server_default="0"),
    Column("error", Text),
    Column("error_code", Text),
    Column("worker", Text, nullable=False, comment="the process that carries it out"),
    Column("held_until", DateTime(timezone=True), nullable=False, comment="if it is open then, its process is gone"),
    _time("created_at", nullable=False),
    _time("finished_at"),
    CheckConstraint("state IN ('running', 'waiting', 'completed', 'failed', 'cancelled')", name="state"),
    Index("agent_runs_open_idx", "session_id", unique=True, postgresql_where=text("state IN ('running', 'waiting')")),
    Index("agent_runs_held_idx", "held_until", postgresql_where=text("state IN ('running', 'waiting')")),
    Index("agent_runs_session_idx", "session_id", "id"),
    Index("agent_runs_task_idx", "task_id", postgresql_where=text("task_id IS NOT NULL")),
)

agent_messages = Table(
    "agent_messages",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("session_id", Uuid, ForeignKey(agent_sessions.c.id, ondelete="CASCADE"), nullable=False),
    Column("run_id", Uuid, ForeignKey(agent_runs.c.id, ondelete="CASCADE"), nullable=False),
    Column("role", Text, nullable=False),
    Column("content", JSON, nullable=False, comment="the whole message, as OpenAI's protocol writes it"),
    _time("created_at", nullable=False),
    CheckConstraint("role IN ('user', 'assistant', 'tool')", name="role"),
    Index("agent_messages_session_idx", "session_id", "id"),
    Index("agent_messages_run_idx", "run_id", "id"),
)

approvals = Table(
    "approvals",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("run_id", Uuid, ForeignKey(agent_runs.c.id, ondelete="CASCADE"), nullable=False),
    Column("owner_id", Uuid, nullable=False),
    Column("app_id", Uuid, comment="the app that the agent works for; null: an API key"),
    Column("agent", Text, nullable=False),
    Column("server", Text, nullable=False),
    Column("tool", Text, nullable=False),
    Column("tool_call_id", Text, nullable=False),
    Column("arguments", JSON, nullable=False, comment="what the tool would be called with"),
    Column("permission", Text, nullable=False, comment="what would have to be granted for it not to be asked again"),
    Column("state", Text, nullable=False, server_default="pending"),
    Column("decided_by", Text),
    _time("requested_at", nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    _time("decided_at"),
    _time("used_at"),
    UniqueConstraint("run_id", "tool_call_id"),
    CheckConstraint("state IN ('pending', 'granted', 'denied', 'expired')", name="state"),
    Index("approvals_pending_idx", "expires_at", postgresql_where=text("state = 'pending'")),
    Index("approvals_requested_at_idx", "requested_at", "id"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("calendar_event_id", Uuid, nullable=False, unique=True),
    Column("owner_id", Uuid, nullable=False, comment="the app or API key that it was triggered by"),
    Column("caller", JSON, nullable=False, comment="on whose behalf its agent works"),
    Column("title", Text, nullable=False),
    Column("action_type", Text, nullable=False, server_default="SDK_TRIGGER"),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("auto_run", Boolean, nullable=False),
    Column("agent", Text),
    Column("workspace", Text),
    Column("thread", Text),
    Column("prompt", Text, nullable=False, server_default=""),
    Column("raw_data", JSON, nullable=False),
    Column("machine_id", Text, comment="who works on it"),
    Column("progress", JSON(none_as_null=True)),
    Column("result", JSON(none_as_null=True)),
    Column("error", Text),
    Column("callback_url", Text),
    Column("job_id", Uuid, comment="the job that carries it out"),
    _time("created_at", nullable=False),
    _time("updated_at", nullable=False),
    CheckConstraint("status IN ('pending', 'claimed', 'processing', 'completed', 'failed', 'canceled')", name="status"),
    Index("tasks_owner_idx", "owner_id", "id"),
    Index("tasks_status_idx", "status", "id"),
)

task_runs = Table(
    "task_runs",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("task_id", Uuid, ForeignKey(tasks.c.id, ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False, comment="counts from 1"),
    Column("attempt_id", Text, nullable=False),
    Column("agent", Text),
    Column("workspace", Text),
    Column("thread", Text),
    Column("machine_id", Text),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("session_id", Uuid, comment="the conversation in which an agent of this server works on it"),
    Column("error", Text),
    _time("created_at", nullable=False),
    _time("started_at"),
    _time("completed_at"),
    UniqueConstraint("task_id", "number"),
    CheckConstraint("status IN ('pending', 'running', 'completed', 'failed', 'canceled')", name="status"),
)

webhook_events = Table(
    "webhook_events",
    metadata,
    Column("owner_id", Uuid, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("answer", JSON, nullable=False, comment="what is answered when it comes again"),
    _time("created_at", nullable=False),
    Index("webhook_events_created_at_idx", "created_at"),
)

app_processes = Table(
    "app_processes",
    metadata,
    Column("app_id", Uuid, ForeignKey(apps.c.id, ondelete="CASCADE"), primary_key=True),
    Column("is_wanted", Boolean, nullable=False, comment="whether it is to run"),
    Column("state", Text, nullable=False, server_default="stopped"),
    Column("holder", Text, comment="the process that looks after it"),
    Column("held_until", DateTime(timezone=True), comment="after this, another one may"),
    Column("pid", Integer),
    Column("pid_started_at", Double, comment="tells it from a later process with this number"),
    Column("port", Integer, unique=True),
    Column("restarts", Integer, nullable=False, server_default="0"),
    Column("exit_code", Integer),
    Column("error", Text),
    _time("started_at"),
    _time("updated_at", nullable=False),
    CheckConstraint("state IN ('stopped', 'starting', 'running', 'error', 'stopping')", name="state"),
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
    Index("events_subject_idx", "subject", "id"),
    Index("events_created_at_idx", "created_at"),
)
