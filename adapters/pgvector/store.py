"""The vectors of many owners in one database: namespaces, each a table of its own, made by its first upsert and gone with a delete of all.

What a namespace is (its table, its dimensions) never changes, and the number of a table is never used again. So it is remembered without
asking twice: when the table is gone, somebody has deleted the namespace meanwhile, and the registry is read anew.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import psycopg
import structlog
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb
from sqlalchemy import MetaData, RowMapping, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateTable

from adapters.pgvector.batch import VectorBatch, is_half, pack_vector
from adapters.pgvector.indexes import Unindexed, list_large, list_states, no_build
from adapters.pgvector.registry import DEFAULT_REGISTRY, registry_table
from adapters.pgvector.statements import FIND_TYPES, Statements, VectorTypes, drop_table, find_orphans
from adapters.postgres import BinaryParameter, Database, DatabaseUnsuitable, check_server, dump_json
from homeport.errors import Conflict, InvalidRequest, Unavailable

log = structlog.get_logger(__name__)

# Up to so many rows that match a filter are all compared, which takes 2 to 3 µs each and misses nothing. Where more match, enough of them
# are near every place of the index. Among many vectors that is a larger number: the index takes longer there, and finds no more.
COMPARED_ROWS = 5_000
COMPARED_ROOT = 250
CACHE_SIZE = 10_000
TRIES = 20
# Whoever makes a database ready holds the lock of this number in it.
PREPARE_LOCK = int.from_bytes(b"hp-vects")

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class EmbeddingOf:
    """Which model made the vectors of a namespace from texts."""

    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class Match:
    """A vector that was found. ``score`` is its cosine similarity, from -1 to 1."""

    id: str
    score: float
    metadata: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace as it is shown. ``rows`` is an estimate; ``is_indexed`` says whether searching uses an index yet."""

    workspace: str
    dimensions: int
    embedding: EmbeddingOf | None
    rows: int
    is_indexed: bool


@dataclass(frozen=True, slots=True)
class _Known:
    """What is remembered of a namespace."""

    id: int
    dimensions: int
    embedding: EmbeddingOf | None
    statements: Statements = field(compare=False)


class VectorStore:
    """The vectors in one database. ``registry`` names the table of namespaces; the others are called ``<registry>_<number>``."""

    def __init__(self, database: Database, registry: str = DEFAULT_REGISTRY) -> None:
        self.database = database
        self.registry = registry_table(MetaData(), registry)
        self.on_written: Callable[[VectorStore, Statements, int], None] | None = None
        self.unindexed = Unindexed()
        self._known: dict[tuple[UUID, str], _Known] = {}
        self._types: VectorTypes | None = None

    async def prepare(self) -> None:
        """Make a database that is not Homeport's own ready: the extension and the registry, if they are missing. Several may do so at once.

        Raises DatabaseUnsuitable with the reason when the server, the rights of its user or a table of that name do not allow it.
        """
        try:
            async with self.database.transaction() as connection:
                await connection.execute(select(func.pg_advisory_xact_lock(PREPARE_LOCK)))
                try:
                    async with connection.begin_nested():
                        await connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS vector")
                except DBAPIError as error:
                    # What follows tells what is missing: the extension on the server, or the right to create it.
                    log.info("the extension could not be created", reason=str(error.orig))
                await check_server(connection)
                await connection.execute(CreateTable(self.registry, if_not_exists=True))
                await connection.execute(select(self.registry).limit(0))
        except ProgrammingError as error:
            raise DatabaseUnsuitable(_unprepared(self.registry.name, error)) from error
        await self._find_types()

    async def upsert(self, owner: UUID, workspace: str, batch: VectorBatch, *, embedding: EmbeddingOf | None = None) -> int:
        """Add vectors, or replace those with the same ids; returns how many. The first upsert makes the namespace and fixes its dimensions.

        Raises InvalidRequest (DIMENSION_MISMATCH), and Conflict (EMBEDDING_MISMATCH) when ``embedding`` is not what the namespace was
        made with.
        """

        async def write() -> Statements:
            known = await self._find_fitting(owner, workspace, batch.dimensions)
            if known is None:
                known = await self._create(owner, workspace, batch.dimensions, embedding)
            if embedding is not None and (known.embedding is None or known.embedding.model != embedding.model):
                await self._note_embedding(owner, workspace, embedding)
            values = [BinaryParameter(array) for array in batch.as_arrays(known.statements.element_oid)]
            async with self.database.autocommit() as connection:
                await connection.execute(known.statements.upsert, values)
            return known.statements

        statements = await self._retried(owner, workspace, write)
        if self.on_written is not None:
            self.on_written(self, statements, len(batch.ids))
        return len(batch.ids)

    async def query(
        self, owner: UUID, workspace: str, vector: Sequence[float], *, top_k: int, filter: Mapping[str, Any] | None = None
    ) -> list[Match]:
        """The ``top_k`` most similar vectors, the best first, of those whose metadata contain ``filter``. None when there is no such
        namespace. Raises InvalidRequest (DIMENSION_MISMATCH)."""
        packed = BinaryParameter(pack_vector(vector))

        async def read() -> list[Match]:
            known = await self._find_fitting(owner, workspace, len(vector))
            if known is None:
                return []
            async with self.database.autocommit() as connection:
                if filter:
                    rows = await _nearest_matching(connection, known.statements, packed, top_k, filter)
                else:
                    rows = await (await connection.execute(known.statements.nearest, (packed, top_k))).fetchall()
            return [Match(id, 1.0 - distance, metadata) for id, distance, metadata in rows]

        return await self._retried(owner, workspace, read)

    async def delete(
        self,
        owner: UUID,
        workspace: str,
        *,
        ids: Sequence[str] | None = None,
        filter: Mapping[str, Any] | None = None,
        kept: Sequence[str] | None = None,
    ) -> int:
        """Delete vectors: those with these ids, of them those whose metadata contain ``filter``, but none of ``kept``; returns how many."""

        async def remove() -> int:
            known = await self._find(owner, workspace)
            if known is None:
                return 0
            values = {"ids": ids, "filter": None if filter is None else Jsonb(filter), "kept": kept}
            async with self.database.autocommit() as connection:
                return (await connection.execute(known.statements.delete, values)).rowcount

        return await self._retried(owner, workspace, remove)

    async def compare(self, owner: UUID, workspace: str, metadata: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
        """Which of these ids are there, and whether they have exactly this metadata."""

        async def read() -> dict[str, bool]:
            known = await self._find(owner, workspace)
            if known is None:
                return {}
            values = (list(metadata), [dump_json(each).decode() for each in metadata.values()])
            async with self.database.autocommit() as connection:
                return dict(await (await connection.execute(known.statements.compare, values)).fetchall())

        return await self._retried(owner, workspace, read)

    async def list_values(self, owner: UUID, workspace: str, name: str, filter: Mapping[str, Any]) -> set[str]:
        """The different values of ``name`` in the metadata that contain ``filter``, as texts."""

        async def read() -> set[str]:
            known = await self._find(owner, workspace)
            if known is None:
                return set()
            async with self.database.autocommit() as connection:
                rows = await (await connection.execute(known.statements.list_values, (name, Jsonb(filter)))).fetchall()
            return {value for (value,) in rows if value is not None}

        return await self._retried(owner, workspace, read)

    async def count(self, owner: UUID, workspace: str) -> int:
        """How many vectors a namespace has, counted; 0 when it is not there."""

        async def read() -> int:
            known = await self._find(owner, workspace)
            if known is None:
                return 0
            async with self.database.autocommit() as connection:
                row = await (await connection.execute(known.statements.count)).fetchone()
            return int(row[0]) if row else 0

        return await self._retried(owner, workspace, read)

    async def delete_namespace(self, owner: UUID, workspace: str) -> int:
        """Delete a namespace with all its vectors; returns how many there were. Waits for searches and upserts that have begun."""
        known = await self._find(owner, workspace)
        if known is None:
            return 0
        registry = self.registry.name
        async with self.database.autocommit() as connection, no_build(connection, registry, known.id), connection.transaction():
            forget = SQL("DELETE FROM {} WHERE id = %s").format(Identifier(registry))
            if (await connection.execute(forget, (known.id,))).rowcount:
                await connection.execute(known.statements.lock)
                row = await (await connection.execute(known.statements.count)).fetchone()
                await connection.execute(drop_table(registry, known.id))
            else:
                row = None
        self._known.pop((owner, workspace), None)
        return int(row[0]) if row else await self.delete_namespace(owner, workspace)

    async def drop_orphans(self) -> None:
        """Drop the tables of namespaces that were forgotten together with their owner."""
        registry = self.registry.name
        async with self.database.autocommit() as connection:
            found = await (await connection.execute(find_orphans(registry))).fetchall()
            for (number,) in found:
                async with no_build(connection, registry, number):
                    await connection.execute(drop_table(registry, number))

    async def list_workspaces(self, owner: UUID) -> list[str]:
        """The names of an owner's namespaces, sorted."""
        async with self.database.transaction() as connection:
            found = await connection.execute(select(self.registry.c.workspace).where(self.registry.c.owner_id == owner))
            return sorted(found.scalars())

    async def list_namespaces(self, owner: UUID) -> list[Namespace]:
        """An owner's namespaces with what is known of them, sorted by name."""
        async with self.database.transaction() as connection:
            found = await connection.execute(select(self.registry).where(self.registry.c.owner_id == owner))
            rows = found.mappings().all()
            states = await list_states(connection, self.registry.name, [row["id"] for row in rows])
        shown = [Namespace(row["workspace"], row["dimensions"], _embedding_of(row), *states.get(row["id"], (0, False))) for row in rows]
        return sorted(shown, key=lambda namespace: namespace.workspace)

    async def embedding_of(self, owner: UUID, workspace: str) -> EmbeddingOf | None:
        """Which model made the vectors of a namespace, where that is known."""
        known = await self._find(owner, workspace)
        return known.embedding if known else None

    async def _retried(self, owner: UUID, workspace: str, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do ``work``, again when the namespace that it knew was deleted meanwhile."""
        for _ in range(TRIES):
            try:
                return await work()
            except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedObject):
                self._known.pop((owner, workspace), None)
                self._types = None
        raise Unavailable(f"The workspace '{workspace[:80]}' is being deleted and made anew all the time. Try again later.")

    async def _find(self, owner: UUID, workspace: str) -> _Known | None:
        if (known := self._known.get((owner, workspace))) is not None:
            return known
        types = await self._find_types()
        async with self.database.transaction() as connection:
            row = (await connection.execute(select(self.registry).where(*self._is(owner, workspace)))).mappings().one_or_none()
        return None if row is None else self._remember(owner, workspace, self._understand(row, types))

    async def _find_fitting(self, owner: UUID, workspace: str, dimensions: int) -> _Known | None:
        """The namespace if its vectors have so many dimensions, None when there is none. Raises InvalidRequest (DIMENSION_MISMATCH)."""
        known = await self._find(owner, workspace)
        if known is not None and known.dimensions != dimensions:
            # It may have been deleted and made anew meanwhile; look before refusing.
            self._known.pop((owner, workspace), None)
            known = await self._find(owner, workspace)
        if known is not None and known.dimensions != dimensions:
            raise InvalidRequest(
                f"The workspace '{workspace[:80]}' holds vectors of {known.dimensions} dimensions, and this has {dimensions}. Use the same "
                "embedding model for all vectors of a workspace, or another workspace.",
                code="DIMENSION_MISMATCH",
            )
        return known

    async def _create(self, owner: UUID, workspace: str, dimensions: int, embedding: EmbeddingOf | None) -> _Known:
        """Make a namespace, unless another process was faster; then that one counts."""
        types = await self._find_types()
        values: dict[str, Any] = {"owner_id": owner, "workspace": workspace, "dimensions": dimensions}
        if embedding is not None:
            values |= {"embedding_provider": embedding.provider, "embedding_model": embedding.model}
        async with self.database.transaction() as connection:
            # Waits for whoever is making the same one.
            statement = insert(self.registry).values(values).on_conflict_do_nothing().returning(self.registry)
            row = (await connection.execute(statement)).mappings().one_or_none()
            if row is not None:
                known = self._understand(row, types)
                await (await _driver(connection)).execute(known.statements.create)
        if row is not None:
            return self._remember(owner, workspace, known)
        found = await self._find_fitting(owner, workspace, dimensions)
        if found is None:
            raise psycopg.errors.UndefinedTable("deleted between being made and being read")
        return found

    async def _note_embedding(self, owner: UUID, workspace: str, embedding: EmbeddingOf) -> None:
        """Note the model of a namespace that has none yet. Raises Conflict when it has another."""
        columns = self.registry.c
        note = update(self.registry).where(*self._is(owner, workspace), columns.embedding_model.is_(None))
        async with self.database.transaction() as connection:
            await connection.execute(note.values(embedding_provider=embedding.provider, embedding_model=embedding.model))
        self._known.pop((owner, workspace), None)
        known = await self._find(owner, workspace)
        if known is not None and known.embedding is not None and known.embedding.model != embedding.model:
            raise Conflict(
                f"The vectors of the workspace '{workspace[:80]}' were made by the model {known.embedding.model}, and these by "
                f"{embedding.model}: they cannot be compared. Use that model, another workspace, or delete this one first.",
                code="EMBEDDING_MISMATCH",
            )

    async def _find_types(self) -> VectorTypes:
        if self._types is None:
            async with self.database.autocommit() as connection:
                row = await (await connection.execute(FIND_TYPES)).fetchone()
            if row is None:
                raise DatabaseUnsuitable("The extension pgvector is missing from the database: run CREATE EXTENSION vector in it.")
            self._types = VectorTypes(*row)
        return self._types

    async def large_namespaces(self, least_rows: int) -> list[Statements]:
        """Those that may have so many rows, judged by the size of their tables."""
        types = await self._find_types()
        async with self.database.transaction() as connection:
            rows = (await connection.execute(select(self.registry))).mappings().all()
            large = await list_large(connection, self.registry.name, {row["id"]: row["dimensions"] for row in rows}, least_rows)
        return [self._understand(row, types).statements for row in rows if row["id"] in large]

    def _understand(self, row: RowMapping, types: VectorTypes) -> _Known:
        dimensions = row["dimensions"]
        statements = Statements(self.registry.name, row["id"], dimensions, types, is_half=is_half(dimensions))
        return _Known(row["id"], dimensions, _embedding_of(row), statements)

    def _remember(self, owner: UUID, workspace: str, known: _Known) -> _Known:
        if len(self._known) >= CACHE_SIZE:
            del self._known[next(iter(self._known))]
        self._known[owner, workspace] = known
        return known

    def _is(self, owner: UUID, workspace: str) -> tuple[Any, Any]:
        return self.registry.c.owner_id == owner, self.registry.c.workspace == workspace


async def forget_namespaces(connection: AsyncConnection, owner: UUID) -> None:
    """Forget all that an owner has in Homeport's own database, in a transaction of the caller's; ``drop_orphans`` drops the tables later,
    because waiting for them inside of a transaction could be for ever."""
    registry = registry_table(MetaData())
    await connection.execute(delete(registry).where(registry.c.owner_id == owner))


async def _nearest_matching(
    connection: Any, statements: Statements, packed: BinaryParameter, top_k: int, filter: Mapping[str, Any]
) -> Sequence[Any]:
    """Along the vector index only where the planner expects many rows to match, and not even then when it ends with too few."""
    wanted = Jsonb(filter)
    plan = await (await connection.execute(statements.estimate_matching, (wanted,))).fetchone()
    matching = plan[0][0]["Plan"]["Plan Rows"]
    rows: Sequence[Any] = ()
    if matching > COMPARED_ROWS and matching > await _compared_rows(connection, statements):
        rows = await (await connection.execute(statements.nearest_matching, (packed, wanted, top_k))).fetchall()
    if len(rows) < top_k:
        rows = await (await connection.execute(statements.nearest_of_all_matching, (packed, wanted, top_k))).fetchall()
    return rows


async def _compared_rows(connection: Any, statements: Statements) -> float:
    (stored,) = await (await connection.execute(statements.estimate_stored)).fetchone()
    return math.sqrt(COMPARED_ROOT * stored)


async def _driver(connection: AsyncConnection) -> Any:
    """psycopg's connection below a transaction of SQLAlchemy's, which it takes part in."""
    return (await connection.get_raw_connection()).driver_connection


def _embedding_of(row: RowMapping) -> EmbeddingOf | None:
    provider, model = row["embedding_provider"], row["embedding_model"]
    return EmbeddingOf(provider, model) if provider and model else None


def _unprepared(registry: str, error: ProgrammingError) -> str:
    if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
        return f"its user may not create tables there (CREATE TABLE {registry})"
    return f"there is a table '{registry}' already, and it is not one of Homeport's: choose another table name"
