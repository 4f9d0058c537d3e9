"""The model in a thread of its own, and the queue in front of it. Everything but the model itself lives on the event loop."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import TypeVar

import structlog

from adapters.minilm.batches import Job, Place, Queue
from adapters.minilm.runtime import Runtime
from homeport.errors import AppError, TooManyRequests, Unavailable, UpstreamError

MAX_WAITING_PIECES = 262_144  # a thousand of the longest texts: a minute on one core
MAX_WAITING_REQUESTS = 256
RETRY_AFTER_S = 5

log = structlog.get_logger(__name__)

Result = TypeVar("Result")


class Worker:
    """One life of the model: loaded at the first call, gone with ``close``."""

    def __init__(self, load: Callable[[], Runtime]) -> None:
        self._load = load
        self._thread = ThreadPoolExecutor(1, "minilm")
        self._runtime: Runtime | None = None
        self._queue = Queue()
        self._running: asyncio.Task[None] | None = None
        self._is_closed = False

    async def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The word pieces of each text. Raises InvalidRequest, and what loading the model raises."""
        return await self._call(lambda runtime: runtime.encode(texts))

    async def embed(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """A vector for each text, given as its word pieces. When the caller is cancelled, what has not run yet is dropped.

        Raises TooManyRequests when too much waits already.
        """
        if not texts:
            return []
        if self._queue.waiting_pieces >= MAX_WAITING_PIECES or len(self._queue) >= MAX_WAITING_REQUESTS:
            message = f"Too many texts wait for the local embedding model. Try again in {RETRY_AFTER_S} s."
            raise TooManyRequests(message, headers={"Retry-After": str(RETRY_AFTER_S)})
        job = Job(texts, asyncio.get_running_loop().create_future())
        self._queue.add(job)
        if self._running is None or self._running.done():
            # In a context of its own: it works for other requests, too, and what it logs is not this one's.
            self._running = asyncio.create_task(self._run_waiting(), context=Context())
        try:
            return await job.done
        finally:
            self._queue.remove(job)

    async def close(self) -> None:
        """End the thread, after what runs in it now, and free the memory. Requests that wait fail with Unavailable."""
        self._is_closed = True
        for job in self._queue.jobs():
            job.fail(_closed())
            self._queue.remove(job)
        if self._running is not None:
            await self._running
        await asyncio.to_thread(self._thread.shutdown)
        self._runtime = None

    async def _run_waiting(self) -> None:
        while run := self._queue.take_run():
            try:
                vectors = await self._embed_run(run)
            except AppError as error:
                for place in run:
                    place.job.fail(error)
                    self._queue.remove(place.job)
            else:
                for place, vector in zip(run, vectors, strict=True):
                    place.job.put(place.index, vector)

    async def _embed_run(self, run: Sequence[Place]) -> list[list[float]]:
        return await self._call(lambda runtime: runtime.embed([place.text for place in run]))

    async def _call(self, use: Callable[[Runtime], Result]) -> Result:
        if self._is_closed:
            raise _closed()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._in_thread, use)

    def _in_thread(self, use: Callable[[Runtime], Result]) -> Result:
        try:
            if self._runtime is None:
                self._runtime = self._load()
            return use(self._runtime)
        except AppError:
            raise
        except Exception as error:  # onnxruntime raises classes of its own; a request must end all the same
            log.exception("the local embedding model failed")
            message = "The local embedding model failed. Try again; the server's log has the reason."
            raise UpstreamError(message, code="LLM_ERROR") from error


def _closed() -> AppError:
    return Unavailable("The local embedding model was stopped before this was done. Try again.", code="PROVIDER_UNAVAILABLE")
