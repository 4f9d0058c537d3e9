"""The kinds of database that an app's vectors can be in, and what is asked for each."""

from dataclasses import dataclass

HOMEPORT, PGVECTOR = "homeport", "pgvector"
DEFAULT_TABLE = "vectors"


@dataclass(frozen=True, slots=True)
class ProviderField:
    """Something that a provider's configuration says."""

    name: str
    label: str
    placeholder: str
    type: str = "string"


@dataclass(frozen=True, slots=True)
class VectorProvider:
    """A kind of database that vectors can be in."""

    name: str
    label: str
    description: str
    fields: tuple[ProviderField, ...] = ()


PROVIDERS = (
    VectorProvider(HOMEPORT, "Homeport", "The server's own PostgreSQL with pgvector, which needs no configuration"),
    VectorProvider(
        PGVECTOR,
        "PGVector",
        "PostgreSQL with pgvector extension",
        (
            ProviderField("databaseUrl", "Database URL", "postgresql://user:pass@host:5432/dbname"),
            ProviderField("tableName", "Table Name", DEFAULT_TABLE),
        ),
    ),
)
