"""Fills a namespace and builds its index with Homeport's own store, and says what that took.

``python -m tests.bench.peers.growth_vectors DATA_DIR`` joins the embedded server of that data directory.
"""

import asyncio
import sys
import time
from logging import WARNING
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import structlog

from adapters.pgvector import VectorBatch, VectorStore
from adapters.pgvector.indexes import build_if_large
from adapters.pgvector.statements import HNSW_SUFFIX, METADATA_SUFFIX
from adapters.postgres import Database, EmbeddedPostgres
from tests.bench.clusters import PARTS, Clusters, id_of
from tests.bench.workers import answer_with

BATCH = 1_000
TENTHS = 10
LOOK_S = 2.0
SAID_S = 20.0
SIZES = "SELECT pg_table_size(to_regclass(%s)), pg_relation_size(to_regclass(%s)), pg_relation_size(to_regclass(%s))"
PROGRESS = "SELECT phase, tuples_done FROM pg_stat_progress_create_index"


class Filling:
    """Answers the questions of the bench, each with a method's name and its arguments."""

    def __init__(self, url: str, postmaster: int) -> None:
        self._url = url
        self._postmaster = psutil.Process(postmaster)

    async def fill(self, owner: str, workspace: str, count: int, queries: int) -> dict[str, Any]:
        """Upsert ``count`` vectors, ``BATCH`` at a time; gives the seconds it took, ``queries``, and the rows nearest to them: of all,
        of one in ``PARTS`` and of one in ``TENTHS``."""
        clusters = Clusters.make(count, queries)
        database = Database(self._url, 1)
        try:
            store = VectorStore(database)
            started = said = time.perf_counter()
            for start in range(0, count, BATCH):
                rows = enumerate(clusters.vectors[start : start + BATCH].tolist(), start)
                await store.upsert(UUID(owner), workspace, VectorBatch.pack([_record(row, vector) for row, vector in rows]))
                if time.perf_counter() - said > SAID_S:
                    said = time.perf_counter()
                    print(f"  {start + BATCH:,} of {count:,} vectors are in", file=sys.stderr, flush=True)
            took_s = time.perf_counter() - started
        finally:
            await database.close()
        nearest = {"": clusters.find_nearest(), "part": clusters.find_nearest_in_parts(), "tenth": clusters.find_nearest_in_parts(TENTHS)}
        return {"took_s": took_s, "queries": clusters.queries.tolist(), "nearest": nearest}

    async def build(self) -> dict[str, float]:
        """Build what the namespace that was filled last needs, as the server would: seconds, and megabytes of the table, of its two
        indexes, and of all processes of the database while it was built, at most."""
        database = Database(self._url, 2)
        try:
            store = VectorStore(database)
            newest = max(await store.large_namespaces(0), key=lambda each: each.number)
            watching = asyncio.create_task(self._watch(database))
            started = time.perf_counter()
            async with database.autocommit() as connection:
                if not await build_if_large(connection, newest, 1):
                    raise RuntimeError("somebody else is building the index")
                took_s = time.perf_counter() - started
                names = (newest.table, newest.table + HNSW_SUFFIX, newest.table + METADATA_SUFFIX)
                table, hnsw, gin = await (await connection.execute(SIZES, [f'"{name}"' for name in names])).fetchone()
            watching.cancel()
            (peak_mb,) = await asyncio.gather(watching)
        finally:
            await database.close()
        return {"took_s": took_s, "table_mb": table / 1e6, "index_mb": hnsw / 1e6, "metadata_mb": gin / 1e6, "peak_mb": peak_mb}

    def memory(self) -> float:
        """Megabytes of all processes of the database, what they share counted once."""
        return memory_mb(self._postmaster)

    async def _watch(self, database: Database) -> float:
        """Say how far a build is, until cancelled; gives the most memory that the database took meanwhile."""
        peak_mb, said = 0.0, time.perf_counter()
        try:
            while True:
                peak_mb = max(peak_mb, await asyncio.to_thread(self.memory))
                if time.perf_counter() - said > SAID_S:
                    said = time.perf_counter()
                    async with database.autocommit() as connection:
                        rows = await (await connection.execute(PROGRESS)).fetchall()
                    print("".join(f"  index: {phase}, {done:,} done" for phase, done in rows), file=sys.stderr, flush=True)
                await asyncio.sleep(LOOK_S)
        except asyncio.CancelledError:
            return peak_mb


def memory_mb(process: psutil.Process) -> float:
    """Megabytes of a process and its children, what they share counted once."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_full_info().pss
        except psutil.NoSuchProcess:  # a worker of the database has ended
            continue
    return total / 1e6


def _record(row: int, vector: list[float]) -> dict[str, Any]:
    return {
        "id": id_of(row),
        "vector": vector,
        "metadata": {"text": f"the text of chunk {row}", "part": row % PARTS, "tenth": row % TENTHS},
    }


def main(data_dir: str) -> None:
    """Answer until nobody asks any more."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(WARNING))
    server = EmbeddedPostgres(Path(data_dir))
    url = server.start()
    file = Path(data_dir) / "postgres" / "data" / "postmaster.pid"
    filling = Filling(url, int(file.read_text(encoding="utf-8").split("\n", 1)[0]))
    try:
        answer_with(filling)
    finally:
        server.stop()


if __name__ == "__main__":
    main(sys.argv[1])
