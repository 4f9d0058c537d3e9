"""What PostgreSQL alone does with the same rows: binary COPY, and the adapter's own statement on connections of psycopg.

``python -m tests.bench.peers.bare_sql DATA_DIR`` joins the embedded server of that data directory. What is sent is made before the clock
runs: rows as COPY takes them, vectors as pgvector does.
"""

import asyncio
import struct
import sys
import time
from logging import WARNING
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import orjson
import psycopg
import structlog
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from adapters.pgvector import VectorBatch, VectorStore
from adapters.pgvector.statements import HNSW_SUFFIX, METADATA_SUFFIX, Statements, VectorTypes
from adapters.postgres import BinaryParameter, Database, EmbeddedPostgres
from adapters.postgres.binary import BinaryParameterDumper
from adapters.postgres.database import VECTOR_SEARCH
from tests.bench.clusters import NEAREST, id_of, metadata_of
from tests.bench.workers import answer_with

HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER = b"\xff\xff"
LOADED_AT_ONCE = 1_000
IS_READY = """
SELECT (SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid IN (to_regclass(%s), to_regclass(%s))),
       EXISTS (SELECT FROM pg_stats WHERE tablename = %s)
"""
COPY = "COPY bench_copy (id, embedding, metadata) FROM STDIN (FORMAT binary)"


class BareSql:
    """Answers the questions of the bench, each with a method's name and its arguments."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._statement = b""
        self._vectors: list[BinaryParameter] = []

    async def load(self, file: str, owner: str, workspace: str) -> int:
        """Upsert the vectors of a file as the server does, without its watch on the size of namespaces; gives how many."""
        database = Database(self._url, 1)
        try:
            store = VectorStore(database)
            vectors = np.load(file)
            for start in range(0, len(vectors), LOADED_AT_ONCE):
                await store.upsert(UUID(owner), workspace, VectorBatch.pack(_records(vectors, start, LOADED_AT_ONCE)))
            return len(vectors)
        finally:
            await database.close()

    def copy(self, file: str, batch: int) -> dict[str, float]:
        """Rows a second of a COPY for each ``batch`` rows, of the same into a table with a primary key, of one COPY for all, from where a
        server starts (JSON, lists of numbers), and by the adapter's own statement."""
        vectors = np.load(file)
        rows = [_copy_row(number, vector) for number, vector in enumerate(vectors)]
        batches = [HEADER + b"".join(rows[start : start + batch]) + TRAILER for start in range(0, len(rows), batch)]
        at_once = [HEADER + b"".join(rows) + TRAILER]
        ways = {"batches": (batches, ""), "with key": (batches, 'COLLATE "C" PRIMARY KEY'), "at once": (at_once, "")}
        with psycopg.connect(self._url, autocommit=True) as connection:
            _time_copies(connection, batches, "")  # so that the first that counts does not pay for being the first
            rates = {name: len(rows) / _time_copies(connection, copies, key) for name, (copies, key) in ways.items()}
            times = {
                "from json": _time_copies_from_json(connection, vectors, batch),
                "from lists": _time_copies_from_lists(connection, vectors.tolist(), batch),
                "statement": _time_upserts(connection, vectors, batch),
            }
            return rates | {way: len(rows) / seconds for way, seconds in times.items()}

    async def prepare(self, file: str) -> bool:
        """Make ready for ``query``: the statement of the only namespace. Gives whether its indexes are there, and its statistics."""
        self._vectors = [BinaryParameter(_vector(each)) for each in np.load(file)]
        database = Database(self._url, 1)
        try:
            [statements] = await VectorStore(database).large_namespaces(0)
            async with database.autocommit() as connection:
                self._statement = statements.nearest
                names = [f'"{statements.table}{suffix}"' for suffix in (HNSW_SUFFIX, METADATA_SUFFIX)]
                row = await (await connection.execute(IS_READY, [*names, statements.table])).fetchone()
            return row == (2, True)
        finally:
            await database.close()

    async def query(self, clients: int, seconds: float, count: int) -> dict[str, Any]:
        """Search on ``clients`` connections for so many seconds or queries: queries a second, and the ids found for the first."""
        numbers, done, found = iter(range(count)), 0, {}
        opened = [await self._connect() for _ in range(clients)]
        deadline = time.perf_counter() + seconds

        async def work(connection: Any) -> None:
            nonlocal done
            while time.perf_counter() < deadline and (number := next(numbers, None)) is not None:
                rows = await (await connection.execute(self._statement, self._values(number))).fetchall()
                done += 1
                if number < len(self._vectors):
                    found[number] = [row[0] for row in rows]

        started = time.perf_counter()
        await asyncio.gather(*map(work, opened))
        rate = done / (time.perf_counter() - started)
        for each in opened:
            await each.close()
        return {"rate": rate, "ids": [found[number] for number in sorted(found)]}

    def _values(self, number: int) -> tuple[BinaryParameter, int]:
        return self._vectors[number % len(self._vectors)], NEAREST

    async def _connect(self) -> Any:
        connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        connection.adapters.register_dumper(BinaryParameter, BinaryParameterDumper)
        psycopg.types.json.set_json_loads(orjson.loads, connection)
        await connection.execute(VECTOR_SEARCH)
        for number in range((connection.prepare_threshold or 0) + 1):
            await connection.execute(self._statement, self._values(number))
        return connection


def _vector(vector: Any) -> bytes:
    """A vector in pgvector's binary form."""
    return struct.pack(">HH", len(vector), 0) + bytes(vector.astype(">f4").tobytes())


def _copy_row(number: int, vector: Any) -> bytes:
    """A row as binary COPY takes it."""
    return _fields(id_of(number), _vector(vector), metadata_of(number))


def _fields(id: str, vector: bytes, metadata: dict[str, Any]) -> bytes:
    """The number of fields, then each with its length."""
    fields = (id.encode(), vector, b"\x01" + orjson.dumps(metadata))
    return struct.pack(">h", len(fields)) + b"".join(struct.pack(">i", len(each)) + each for each in fields)


def _time_copies_from_json(connection: Any, vectors: Any, batch: int) -> float:
    """The least that a body in JSON takes: it is parsed by orjson, its numbers are packed by struct, its rows sent by COPY. Nothing is
    checked, and no HTTP is spoken."""
    bodies = [orjson.dumps(_records(vectors, start, batch)) for start in range(0, len(vectors), batch)]
    pack = struct.Struct(f">{vectors.shape[1]}f").pack
    head = struct.pack(">HH", vectors.shape[1], 0)
    _make_table(connection, "")
    cursor = connection.cursor()
    started = time.perf_counter()
    for body in bodies:
        rows = [_fields(record["id"], head + pack(*record["vector"]), record["metadata"]) for record in orjson.loads(body)]
        with cursor.copy(COPY) as copy:
            copy.write(HEADER + b"".join(rows) + TRAILER)
    return time.perf_counter() - started


def _time_upserts(connection: Any, vectors: Any, batch: int) -> float:
    """The statement of the adapter, which also finds what is there already, with values that were packed before."""
    oid = connection.execute("SELECT 'vector'::regtype::oid::bigint").fetchone()[0]
    connection.execute("DROP TABLE IF EXISTS bench_upsert_0")
    types = VectorTypes("public", oid, oid)
    statements = Statements("bench_upsert", 0, vectors.shape[1], types, is_half=False)
    connection.execute(statements.create)
    connection.adapters.register_dumper(BinaryParameter, BinaryParameterDumper)
    batches = [VectorBatch.pack(_records(vectors, start, batch)).as_arrays(oid) for start in range(0, len(vectors), batch)]
    values = [[BinaryParameter(array) for array in arrays] for arrays in batches]
    started = time.perf_counter()
    for each in values:
        connection.execute(statements.upsert, each)
    seconds = time.perf_counter() - started
    connection.execute("DROP TABLE bench_upsert_0")
    return seconds


def _records(vectors: Any, start: int, batch: int) -> list[dict[str, Any]]:
    """Rows as clients send them."""
    rows = enumerate(vectors[start : start + batch].tolist(), start)
    return [{"id": id_of(row), "vector": vector, "metadata": metadata_of(row)} for row, vector in rows]


def _time_copies_from_lists(connection: Any, vectors: list[list[float]], batch: int) -> float:
    """The same from where a server starts: lists of numbers, which pgvector's own package and psycopg turn into binary."""
    register_vector(connection)
    records = [(id_of(number), vector, metadata_of(number)) for number, vector in enumerate(vectors)]
    _make_table(connection, "")
    cursor = connection.cursor()
    started = time.perf_counter()
    for start in range(0, len(records), batch):
        with cursor.copy(COPY) as copy:
            copy.set_types(["text", "vector", "jsonb"])
            for id, vector, metadata in records[start : start + batch]:
                copy.write_row((id, Vector(vector), Jsonb(metadata)))
    return time.perf_counter() - started


def _make_table(connection: Any, key: str) -> None:
    connection.execute("DROP TABLE IF EXISTS bench_copy")
    connection.execute(f"CREATE TABLE bench_copy (id text {key}, embedding vector(384), metadata jsonb)")


def _time_copies(connection: Any, copies: list[bytes], key: str) -> float:
    _make_table(connection, key)
    cursor = connection.cursor()
    started = time.perf_counter()
    for each in copies:
        with cursor.copy(COPY) as copy:
            copy.write(each)
    return time.perf_counter() - started


def main(data_dir: str) -> None:
    """Answer until nobody asks any more."""
    import uvloop

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(WARNING))
    server = EmbeddedPostgres(Path(data_dir))
    bare = BareSql(server.start())
    try:
        answer_with(bare, uvloop.new_event_loop)
    finally:
        server.stop()


if __name__ == "__main__":
    main(sys.argv[1])
