"""The indexes of a namespace: built while it is read and written, by one process at a time.

A build that is interrupted leaves an index that is not valid: that is dropped and built again.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.pgvector.build_memory import find_build_memory_mb
from adapters.pgvector.statements import HNSW_SUFFIX, METADATA_SUFFIX, Statements
from adapters.postgres.database import LOCK_LIMIT
from homeport.errors import Unavailable

log = structlog.get_logger(__name__)

MAX_INDEXED_DIMENSIONS = 4_000
GIVE_UP_S = 10.0

_STATES = text("""
SELECT number, CASE WHEN reltuples < 0 THEN 0 ELSE reltuples END::bigint, coalesce(indisvalid, false)
FROM unnest(CAST(:numbers AS bigint[])) AS number
JOIN pg_class ON pg_class.oid = to_regclass(quote_ident(:registry || '_' || number))
LEFT JOIN pg_index ON indexrelid = to_regclass(quote_ident(:registry || '_' || number || :suffix))
""")
_SIZES = text("""
SELECT number, pg_table_size(to_regclass(quote_ident(:registry || '_' || number))) FROM unnest(CAST(:numbers AS bigint[])) AS number
""")
_TRY_LOCK, _UNLOCK = "SELECT pg_try_advisory_lock(%s, %s)", "SELECT pg_advisory_unlock(%s, %s)"
_CANCEL = """
SELECT pg_cancel_backend(pid) FROM pg_locks JOIN pg_database ON pg_database.oid = database AND datname = current_database()
WHERE locktype = 'advisory' AND granted AND classid::bigint = %s AND objid::bigint = %s
"""
_INVALID = """
SELECT indexrelid::regclass::text FROM pg_index
WHERE NOT indisvalid AND indexrelid IN (to_regclass(quote_ident(%s)), to_regclass(quote_ident(%s)))
"""


@dataclass(slots=True)
class Unindexed:
    """What a store remembers of its namespaces without index: the rows written since they were looked at last; and those that have one."""

    written: dict[str, int] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)


async def build_if_large(connection: Any, statements: Statements, rows: int) -> bool:
    """Build the indexes of a namespace if it has so many rows and nobody else is at it; whether it has them now.

    ``connection`` must not be in a transaction.
    """
    lock = _lock_of(statements.registry, statements.number)
    if not await _first(connection, statements.has_rows, rows, rows) or not await _first(connection, _TRY_LOCK, *lock):
        return False
    try:
        await connection.execute(f"SET maintenance_work_mem = '{await find_build_memory_mb(connection, statements)}MB'")
        # A build waits for all transactions that are older than itself, however long they take.
        await connection.execute("SET lock_timeout = 0")
        await _build_both(connection, statements)
    finally:
        if not connection.closed:
            for name in ("maintenance_work_mem", "max_parallel_maintenance_workers"):
                await connection.execute(f"RESET {name}")
            await connection.execute(LOCK_LIMIT)
            await _first(connection, _UNLOCK, *lock)
    return True


async def list_states(connection: AsyncConnection, registry: str, numbers: Sequence[int]) -> dict[int, tuple[int, bool]]:
    """By the number of a namespace: how many rows it has, about, and whether its index is in use."""
    values = {"numbers": list(numbers), "registry": registry, "suffix": HNSW_SUFFIX}
    return {number: (rows, is_valid) for number, rows, is_valid in await connection.execute(_STATES, values)}


async def list_large(connection: AsyncConnection, registry: str, dimensions: Mapping[int, int], least_rows: int) -> set[int]:
    """Of the namespaces with these numbers and dimensions, those whose tables are large enough to have so many rows."""
    sizes = await connection.execute(_SIZES, {"numbers": list(dimensions), "registry": registry})
    return {number for number, size in sizes if size is not None and size >= least_rows * dimensions[number] * 2}


@asynccontextmanager
async def no_build(connection: Any, registry: str, number: int) -> AsyncIterator[None]:
    """Keep the index of a namespace from being built inside of the block; a build that is under way is given up.

    ``connection`` must not be in a transaction: a build waits for all those that are older than itself, so that one which in turn waits
    for the table would wait for ever. Raises Unavailable when the builder does not let go.
    """
    lock = _lock_of(registry, number)
    try:
        async with asyncio.timeout(GIVE_UP_S):
            while not await _first(connection, _TRY_LOCK, *lock):
                await connection.execute(_CANCEL, lock)
                await asyncio.sleep(0.01)
    except TimeoutError as error:
        raise Unavailable("The workspace is busy: its index is being built and does not let go. Try again later.") from error
    try:
        yield
    finally:
        if not connection.closed:
            await _first(connection, _UNLOCK, *lock)


async def _build_both(connection: Any, statements: Statements) -> None:
    names = (statements.table + HNSW_SUFFIX, statements.table + METADATA_SUFFIX)
    is_broken = [row[0] async for row in await connection.execute(_INVALID, names)]
    if is_broken:
        log.info("an index that was not finished is built again", indexes=is_broken)
        await connection.execute(statements.drop_hnsw)
        await connection.execute(statements.drop_gin)
    log.info("building a vector index", table=statements.table)
    if statements.dimensions <= MAX_INDEXED_DIMENSIONS:
        await _create_hnsw(connection, statements)
    await connection.execute(statements.create_gin)
    # So that the planner knows how many rows a filter leaves.
    await connection.execute(statements.analyze)
    log.info("vector index is ready", table=statements.table)


async def _create_hnsw(connection: Any, statements: Statements) -> None:
    try:
        await connection.execute(statements.create_hnsw)
    except psycopg.errors.DiskFull:
        # Processes that build together do so in shared memory, of which containers have little; one alone uses its own.
        log.warning("a vector index is built by one process, because there is too little shared memory for several")
        await connection.execute(statements.drop_hnsw)
        await connection.execute("SET max_parallel_maintenance_workers = 0")
        await connection.execute(statements.create_hnsw)


async def _first(connection: Any, statement: Any, *values: object) -> Any:
    row = await (await connection.execute(statement, values)).fetchone()
    return row[0]


def _lock_of(registry: str, number: int) -> tuple[int, int]:
    """The lock of whoever builds the index of a namespace, among all that a database may hold."""
    return zlib.crc32(f"homeport vector index {registry}".encode()) & 0x7FFFFFFF, number % 2**31
