"""The queue of Homeport alone, with the embedded database of a data directory.

``python -m tests.bench.peers.homeport_queue DATA_DIR``. Asked to work, it answers how many empty jobs a second were claimed and finished;
asked to wait, how many seconds passed from putting a job in until it began, for jobs that find the queue idle. Asked for
its URL, it answers where the database is.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from logging import WARNING
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog
from sqlalchemy import text

from adapters.postgres import Database, EmbeddedPostgres, Notifications, migrate
from homeport.jobs import JobContext, Jobs
from homeport.migrations import SCRIPTS
from tests.bench.peers.shapes import IDLE_S, QUEUE_CONNECTIONS
from tests.bench.workers import answer_questions

# The rows that ``enqueue`` writes: to put jobs in is not what is measured here.
PUT_IN = text(
    "INSERT INTO jobs (id, kind, owner_id, payload, max_attempts) "
    "SELECT gen_random_uuid(), 'empty', :owner, '{}', 5 FROM generate_series(1, :count)"
)
UNFINISHED = text("SELECT count(*) FROM jobs WHERE state <> 'completed'")


class Queue:
    """A process that carries out empty jobs."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ran = 0
        self._started_at = 0.0

    async def url(self) -> str:
        """Where the database is."""
        return self._url

    async def work(self, count: int, concurrency: int) -> float:
        """How many a second, until the last one is written as completed."""
        async with self._opened(concurrency) as (database, jobs):
            async with database.transaction() as connection:
                await connection.execute(PUT_IN, {"owner": uuid4(), "count": count})
            self._ran = 0
            started = time.perf_counter()
            worker = asyncio.create_task(jobs.run_worker())
            while self._ran < count or await _count_unfinished(database):  # noqa: ASYNC110 - what is waited for happens in the database
                await asyncio.sleep(0.005)
            rate = count / (time.perf_counter() - started)
            await _stop(worker)
        return rate

    async def wait(self, count: int, concurrency: int) -> list[float]:
        """How long each waited."""
        waited = []
        async with self._opened(concurrency) as (database, jobs):
            worker = asyncio.create_task(jobs.run_worker())
            for number in range(count):
                await asyncio.sleep(IDLE_S)
                self._ran = 0
                started = time.perf_counter()
                await jobs.enqueue("empty", uuid4(), {"number": number})
                while not self._ran or await _count_unfinished(database):  # noqa: ASYNC110 - what is waited for happens in the database
                    await asyncio.sleep(0.001)
                waited.append(self._started_at - started)
            await _stop(worker)
        return waited

    async def _run(self, _context: JobContext) -> None:
        self._ran += 1
        self._started_at = time.perf_counter()

    @asynccontextmanager
    async def _opened(self, concurrency: int) -> AsyncIterator[tuple[Database, Jobs]]:
        await migrate(self._url, SCRIPTS)
        database, notifications = Database(self._url, QUEUE_CONNECTIONS), Notifications(self._url)
        await database.open()
        jobs = Jobs(database, notifications)
        jobs.register("empty", self._run, concurrency=concurrency)
        try:
            async with notifications:
                yield database, jobs
        finally:
            await database.close()


async def _count_unfinished(database: Database) -> int:
    async with database.transaction() as connection:
        return int((await connection.execute(UNFINISHED)).scalar_one())


async def _stop(worker: "asyncio.Task[None]") -> None:
    worker.cancel()
    await asyncio.wait([worker])


def main(data_dir: str) -> None:
    """Answer until nobody asks any more."""
    import uvloop

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(WARNING))
    server = EmbeddedPostgres(Path(data_dir))
    queue = Queue(server.start())
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

            def answer(question: dict[str, Any]) -> Any:
                return runner.run(getattr(queue, question.pop("ask"))(**question))

            answer_questions(answer)
    finally:
        server.stop()


if __name__ == "__main__":
    main(sys.argv[1])
