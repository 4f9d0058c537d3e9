"""The SQL of one namespace, written once. Names of tables are identifiers, never text."""

from dataclasses import dataclass
from typing import LiteralString

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

HNSW_SUFFIX, METADATA_SUFFIX = "_embedding_idx", "_metadata_idx"
# How many candidates a search of the vector index keeps, which is what its time goes by. With 150 of 100 000 vectors it finds 99 of 100 of
# the nearest ten (the bench measures it). Of more vectors it takes more, as the square root grows. Where a filter leaves only
# a part of the candidates, those that are left must be as good. pgvector allows up to 1000.
CANDIDATES = 150
FILTERED = 3
MOST_CANDIDATES = 1000

# Supabase and others keep the extension's types and operators in a schema that is not searched.
FIND_TYPES = """
SELECT extnamespace::regnamespace::text,
       max(pg_type.oid::bigint) FILTER (WHERE typname = 'vector'), max(pg_type.oid::bigint) FILTER (WHERE typname = 'halfvec')
FROM pg_extension JOIN pg_type ON typnamespace = extnamespace AND typname IN ('vector', 'halfvec')
WHERE extname = 'vector' GROUP BY extnamespace
"""


@dataclass(frozen=True, slots=True)
class VectorTypes:
    """Where pgvector is in a database, and the numbers of its types there."""

    schema: str
    vector_oid: int
    halfvec_oid: int


class Statements:
    """What is said about the table of one namespace."""

    def __init__(self, registry: str, namespace_id: int, dimensions: int, types: VectorTypes, *, is_half: bool) -> None:
        self.registry = registry
        self.number = namespace_id
        self.dimensions = dimensions
        self.is_half = is_half
        self.table = f"{registry}_{namespace_id}"
        self.element_oid = types.halfvec_oid if is_half else types.vector_oid
        vector = "halfvec" if is_half else "vector"
        names: dict[str, Composable] = {
            "table": Identifier(self.table),
            "type": Identifier(types.schema, vector),
            "sized": SQL("{}({})").format(Identifier(types.schema, vector), dimensions),
            "distance": SQL("embedding OPERATOR({}.<=>) %s::{}").format(Identifier(types.schema), Identifier(types.schema, vector)),
            "operators": Identifier(types.schema, f"{vector}_cosine_ops"),
            "hnsw": Identifier(self.table + HNSW_SUFFIX),
            "gin": Identifier(self.table + METADATA_SUFFIX),
            "name": Literal(Identifier(self.table).as_string()),
            "wide": _widen(self.table, 1),
            "wider": _widen(self.table, FILTERED),
        }

        def compose(statement: LiteralString) -> bytes:
            return SQL(statement).format(**names).as_bytes()

        self.create = compose("""
            CREATE TABLE {table} (id text COLLATE "C" PRIMARY KEY, embedding {sized} NOT NULL, metadata jsonb NOT NULL)
        """)
        self.lock = compose("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        self.count = compose("SELECT count(*) FROM {table}")
        self.upsert = compose("""
            INSERT INTO {table} (id, embedding, metadata)
            SELECT id, embedding, metadata::jsonb FROM unnest(%s::text[], %s::{type}[], %s::text[]) AS new (id, embedding, metadata)
            ON CONFLICT (id) DO UPDATE SET embedding = excluded.embedding, metadata = excluded.metadata
        """)
        self.nearest = compose("SELECT id, {distance}, metadata FROM {table} WHERE {wide} ORDER BY 2 LIMIT %s")
        self.nearest_matching = compose("SELECT id, {distance}, metadata FROM {table} WHERE metadata @> %s AND {wider} ORDER BY 2 LIMIT %s")
        # OFFSET 0 keeps the planner from walking the vector index: all rows that match are compared.
        self.nearest_of_all_matching = compose("""
            SELECT id, {distance}, metadata FROM (SELECT * FROM {table} WHERE metadata @> %s OFFSET 0) AS matching ORDER BY 2 LIMIT %s
        """)
        self.estimate_matching = compose("EXPLAIN (FORMAT JSON) SELECT FROM {table} WHERE metadata @> %s")
        self.estimate_stored = compose("SELECT greatest(reltuples, 0) FROM pg_class WHERE oid = {name}::regclass")
        self.delete = compose("""
            DELETE FROM {table} WHERE (%(ids)s::text[] IS NULL OR id = ANY (%(ids)s))
            AND (%(filter)s::jsonb IS NULL OR metadata @> %(filter)s) AND (%(kept)s::text[] IS NULL OR id <> ALL (%(kept)s))
        """)
        self.compare = compose("""
            SELECT id, stored.metadata = new.metadata::jsonb
            FROM {table} AS stored JOIN unnest(%s::text[], %s::text[]) AS new (id, metadata) USING (id)
        """)
        self.list_values = compose("SELECT DISTINCT metadata ->> %s::text FROM {table} WHERE metadata @> %s")
        self.create_hnsw = compose("CREATE INDEX CONCURRENTLY IF NOT EXISTS {hnsw} ON {table} USING hnsw (embedding {operators})")
        self.create_gin = compose("CREATE INDEX CONCURRENTLY IF NOT EXISTS {gin} ON {table} USING gin (metadata jsonb_path_ops)")
        self.drop_hnsw = compose("DROP INDEX CONCURRENTLY IF EXISTS {hnsw}")
        self.drop_gin = compose("DROP INDEX CONCURRENTLY IF EXISTS {gin}")
        self.has_rows = compose("SELECT count(*) >= %s FROM (SELECT FROM {table} LIMIT %s) AS first")
        self.analyze = compose("ANALYZE {table}")


def _widen(table: str, factor: int) -> Composed:
    """A condition that always holds, and is looked at before the table: it sets for this statement how many candidates a search of the
    vector index keeps."""
    return SQL("""(
        SELECT set_config('hnsw.ef_search', least({most}, {factor} * greatest({least}, sqrt(greatest(reltuples, 0)) / 2))::int::text, true)
        FROM pg_class WHERE oid = {table}::regclass
    ) IS NOT NULL""").format(
        most=Literal(MOST_CANDIDATES), least=Literal(CANDIDATES), factor=Literal(factor), table=Literal(Identifier(table).as_string())
    )


def find_orphans(registry: str) -> Composed:
    """Finds the numbers of tables whose namespaces are gone from the registry."""
    return SQL("""
        SELECT substr(relname, length({name}) + 2)::bigint FROM pg_class
        WHERE relkind = 'r' AND pg_table_is_visible(oid)
        AND left(relname, length({name}) + 1) = {name} || '_' AND substr(relname, length({name}) + 2) ~ '^[0-9]+$'
        AND NOT EXISTS (SELECT FROM {registry} AS known WHERE relname = {name} || '_' || known.id)
    """).format(name=Literal(registry), registry=Identifier(registry))


def drop_table(registry: str, number: int) -> Composed:
    """Drops the table of a namespace."""
    return SQL("DROP TABLE IF EXISTS {}").format(Identifier(f"{registry}_{number}"))
