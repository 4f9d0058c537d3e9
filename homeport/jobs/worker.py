"""A worker takes jobs of one kind that are due, a few at once, and carries each out while it holds the lease on it."""

import asyncio
from functools import partial
from uuid import UUID, uuid4

import structlog

from homeport.errors import AppError
from homeport.jobs.attempt import Attempt, Run, Timing
from homeport.jobs.endings import Endings
from homeport.jobs.rows import JobRows

log = structlog.get_logger(__name__)


class Worker:
    """Carries out jobs of a kind, at most ``concurrency`` at once. One counts until its end is written."""

    def __init__(self, kind: str, run: Run, rows: JobRows, timing: Timing, concurrency: int) -> None:
        self._name = str(uuid4())
        self._kind = kind
        self._run = run
        self._rows = rows
        self._endings = Endings(rows)
        self._timing = timing
        self._concurrency = concurrency
        self._wake = asyncio.Event()
        self._attempts: dict[UUID, Attempt] = {}
        self._tasks: dict[UUID, asyncio.Task[None]] = {}

    def wake(self) -> None:
        """Look for jobs now."""
        self._wake.set()

    def stop_job(self, job_id: UUID) -> None:
        """Stop a job that was cancelled, if it runs here."""
        if (attempt := self._attempts.get(job_id)) is not None:
            attempt.lose()

    async def work(self) -> None:
        """Work until cancelled, then stop what runs and give it back."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self._take()
                except AppError as error:
                    log.warning("no jobs could be taken; trying again", kind=self._kind, reason=error.message)
                try:
                    async with asyncio.timeout(self._timing.poll):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            await self._stop()

    async def _take(self) -> None:
        free = self._concurrency - len(self._tasks)
        if free <= 0:
            return
        asked_at = asyncio.get_running_loop().time()
        # A job whose lease was lost here but that has not ended yet goes to another worker, or waits.
        for claim in await self._rows.claim(self._name, self._kind, free, self._timing.lease, self._tasks.keys()):
            attempt = Attempt(claim, self._rows, self._endings, self._run, self._timing, asked_at)
            task = asyncio.create_task(attempt.carry_out(), name=f"job {claim.kind} {claim.id}")
            self._attempts[claim.id], self._tasks[claim.id] = attempt, task
            task.add_done_callback(partial(self._ended, claim.id))

    def _ended(self, job_id: UUID, task: asyncio.Task[None]) -> None:
        del self._attempts[job_id], self._tasks[job_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a job's end could not be written", job_id=str(job_id), exc_info=error)
        self.wake()

    async def _stop(self) -> None:
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self._timing.stop)
        await self._endings.close()
        # What does not stop keeps its lease: nobody else may run it until that ends, and this process ends before.
        try:
            if count := await self._rows.give_back(self._name, self._kind, self._tasks.keys()):
                log.info("jobs given back", count=count)
        except AppError as error:
            log.warning("jobs could not be given back; they are taken again when their leases end", reason=error.message)
