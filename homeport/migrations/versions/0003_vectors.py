"""Namespaces of vectors, and the vector databases that apps registered. The vectors of each namespace are in a table that it brings."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "vector_namespaces",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("owner_id", sa.Uuid, nullable=False, comment="the app, or in development the API key, whose vectors they are"),
        sa.Column("workspace", sa.Text, nullable=False),
        sa.Column("dimensions", sa.Integer, nullable=False),
        sa.Column("embedding_provider", sa.Text, comment="who made the vectors from texts, where the server did that itself"),
        sa.Column("embedding_model", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("vector_namespaces_pkey")),
        sa.UniqueConstraint("owner_id", "workspace", name=op.f("vector_namespaces_owner_id_workspace_key")),
    )
    op.create_table(
        "vector_configs",
        sa.Column("owner_id", sa.Uuid, nullable=False, comment="the app or API key whose vectors are elsewhere"),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("config", sa.LargeBinary, nullable=False, comment="encrypted"),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", name=op.f("vector_configs_pkey")),
    )
