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
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)

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
    Column("is_default", Boolean, nullable=False, server_default=text("false")),
    _time("created_at", nullable=False),
    Index("model_providers_default_idx", "is_default", unique=True, postgresql_where=text("is_default")),
)
