"""The table that says which namespaces there are. Each one's vectors are in a table of its own, ``<registry>_<id>``."""

from sqlalchemy import BigInteger, Column, DateTime, Identity, Integer, MetaData, Table, Text, UniqueConstraint, Uuid, func

DEFAULT_REGISTRY = "vector_namespaces"


def registry_table(metadata: MetaData, name: str = DEFAULT_REGISTRY) -> Table:
    """The registry as SQLAlchemy sees it, under the name that it has in this database."""
    return Table(
        name,
        metadata,
        Column("id", BigInteger, Identity(), primary_key=True),
        Column("owner_id", Uuid, nullable=False, comment="the app, or in development the API key, whose vectors they are"),
        Column("workspace", Text, nullable=False),
        Column("dimensions", Integer, nullable=False),
        Column("embedding_provider", Text, comment="who made the vectors from texts, where the server did that itself"),
        Column("embedding_model", Text),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        UniqueConstraint("owner_id", "workspace"),
    )
