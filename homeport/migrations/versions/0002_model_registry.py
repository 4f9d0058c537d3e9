"""Which models answer when a request names none, how hard each may be called, and how much it was used."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables of the model registry; a provider that was the default stays it."""
    create_model_routes()
    create_model_limits()
    create_model_usage()
    op.execute("INSERT INTO model_routes (role, position, provider) SELECT 'chat', 0, name FROM model_providers WHERE is_default")
    op.drop_index("model_providers_default_idx", table_name="model_providers")
    op.drop_column("model_providers", "is_default")


def create_model_routes() -> None:
    """The default of each role at position 0, its fallbacks after it."""
    op.create_table(
        "model_routes",
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("provider", sa.Text, nullable=False, comment="of the database, the environment, or built in"),
        sa.Column("model", sa.Text, comment="null: the provider's own default"),
        sa.PrimaryKeyConstraint("role", "position", name=op.f("model_routes_pkey")),
        sa.CheckConstraint("role IN ('chat', 'embedding')", name=op.f("model_routes_role_check")),
    )


def create_model_limits() -> None:
    """What was set for a provider or one of its models."""
    op.create_table(
        "model_limits",
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, server_default="", nullable=False, comment="empty: all models of the provider"),
        sa.Column("timeout_s", sa.Double),
        sa.Column("retries", sa.Integer),
        sa.Column("concurrency", sa.Integer, comment="calls at once in each server process"),
        sa.PrimaryKeyConstraint("provider", "model", name=op.f("model_limits_pkey")),
    )


def create_model_usage() -> None:
    """What was asked of models, by the hour."""
    op.create_table(
        "model_usage",
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("app_id", sa.Uuid, nullable=False, comment="all zeros: no app"),
        sa.Column("key_id", sa.Uuid, nullable=False, comment="all zeros: no key"),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("errors", sa.BigInteger, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("latency_sum_s", sa.Double, nullable=False),
        sa.Column("latency_max_s", sa.Double, nullable=False),
        sa.Column("cost_usd", sa.Numeric, comment="null: the price is not known"),
        sa.PrimaryKeyConstraint("hour", "app_id", "key_id", "provider", "model", "operation", name=op.f("model_usage_pkey")),
        sa.CheckConstraint("operation IN ('chat', 'embedding')", name=op.f("model_usage_operation_check")),
    )
