"""Procrastinate as its documentation has it run: ``python -m tests.bench.peers.procrastinate_queue URL``.

It is asked what ``homeport_queue`` is asked, and answers in the same way. Jobs are put in by its own call for many at once.
"""

import asyncio
import logging
import sys
import time
from typing import Any

from procrastinate import App, PsycopgConnector

from tests.bench.peers.shapes import IDLE_S, QUEUE_CONNECTIONS
from tests.bench.workers import answer_questions

UNFINISHED = "SELECT count(*) AS number FROM procrastinate_jobs WHERE status <> 'succeeded'"
# A worker that waits must not look for jobs in the meantime: it is to be told of them.
OPTIONS: Any = {"install_signal_handlers": False, "listen_notify": True}


class Queue:
    """A process that carries out empty jobs."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ran = 0
        self._started_at = 0.0

    async def prepare(self) -> None:
        """Make the tables."""
        async with self._app().open_async() as app:
            await app.schema_manager.apply_schema_async()

    async def work(self, count: int, concurrency: int) -> float:
        """How many a second, until the last one is written as succeeded."""
        async with (app := self._app()).open_async():
            await app.tasks["empty"].batch_defer_async(*({} for _ in range(count)))
            started = time.perf_counter()
            await app.run_worker_async(wait=False, concurrency=concurrency, **OPTIONS)
            rate = count / (time.perf_counter() - started)
            await self._check(app)
        return rate

    async def wait(self, count: int, concurrency: int) -> list[float]:
        """How long each waited."""
        waited = []
        async with (app := self._app()).open_async():
            worker = asyncio.create_task(app.run_worker_async(concurrency=concurrency, **OPTIONS))
            for _ in range(count):
                await asyncio.sleep(IDLE_S)
                self._ran = 0
                started = time.perf_counter()
                await app.tasks["empty"].defer_async()
                while not self._ran or await self._count_unfinished(app):  # noqa: ASYNC110 - what is waited for happens in the database
                    await asyncio.sleep(0.001)
                waited.append(self._started_at - started)
            worker.cancel()
            await asyncio.wait([worker])
        return waited

    async def _run(self) -> None:
        self._ran += 1
        self._started_at = time.perf_counter()

    def _app(self) -> App:
        app = App(connector=PsycopgConnector(conninfo=self._url, min_size=QUEUE_CONNECTIONS, max_size=QUEUE_CONNECTIONS))
        app.task(name="empty")(self._run)
        return app

    async def _count_unfinished(self, app: App) -> int:
        row = await app.connector.execute_query_one_async(UNFINISHED)
        return int(row["number"])

    async def _check(self, app: App) -> None:
        if left := await self._count_unfinished(app):
            raise RuntimeError(f"{left} jobs did not succeed")


def main(url: str) -> None:
    """Answer until nobody asks any more."""
    import uvloop

    logging.basicConfig(level=logging.ERROR)
    queue = Queue(url)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(queue.prepare())

        def answer(question: dict[str, Any]) -> Any:
            return runner.run(getattr(queue, question.pop("ask"))(**question))

        answer_questions(answer)


if __name__ == "__main__":
    main(sys.argv[1])
