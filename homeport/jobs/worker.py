"""A worker takes jobs that are due, a few at once, and carries each out while it holds the lease on it."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import structlog

from homeport.errors import AppError, InternalError, TooManyRequests, Unavailable
from homeport.jobs.rows import Claim, JobRows, Progress

MAX_CAUSE_LENGTH = 500

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. ``poll`` is how often a worker looks for jobs although nobody told it of one; a ``lease`` is renewed three times before it
    ends; ``report`` lies between two writes of progress; the first retry waits for ``backoff``, each later one four times as long; a job
    gets ``stop`` to end when it is told to.
    """

    poll: float = 5.0
    lease: float = 30.0
    report: float = 0.5
    backoff: float = 5.0
    stop: float = 5.0


class LeaseLost(Exception):
    """The job is no longer this worker's: it was cancelled, or took too long to be heard of and went to another worker."""


class JobContext:
    """What the function that does a job is given: the ``payload``, whose job it is, the number of the attempt (from 1), and ``report``."""

    def __init__(self, claim: Claim, write: Callable[[Progress], Awaitable[None]]) -> None:
        self.job_id = claim.id
        self.owner_id = claim.owner_id
        self.payload = claim.payload
        self.attempt = claim.attempt
        self._write = write

    async def report(self, done: int, total: int) -> None:
        """Say how much is done, as often as you like: it is written twice a second at most, and always at the end.

        Raises LeaseLost, which the function lets pass.
        """
        await self._write(Progress(done, total))


Run = Callable[[JobContext], Awaitable[Any]]
"""Does a job and returns its result, JSON data. An AppError below 500 (but 429) fails the job at once; any other failure is retried."""


class Worker:
    """Carries out jobs of the kinds in ``runs``, at most ``concurrency`` at once."""

    def __init__(self, rows: JobRows, runs: Mapping[str, Run], timing: Timing, concurrency: int) -> None:
        self._name = str(uuid4())
        self._rows = rows
        self._runs = runs
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

    async def run(self) -> None:
        """Work until cancelled, then stop what runs and give it back."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self._take()
                except AppError as error:
                    log.warning("no jobs could be taken; trying again", reason=error.message)
                try:
                    async with asyncio.timeout(self._timing.poll):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            await self._stop()

    async def _take(self) -> None:
        free = self._concurrency - len(self._tasks)
        if free <= 0 or not self._runs:
            return
        asked_at = asyncio.get_running_loop().time()
        # A job whose lease was lost here but that has not ended yet goes to another worker, or waits.
        for claim in await self._rows.claim(self._name, self._runs.keys(), free, self._timing.lease, self._tasks.keys()):
            attempt = Attempt(claim, self._rows, self._runs[claim.kind], self._timing, asked_at)
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
        # What does not stop keeps its lease: nobody else may run it until that ends, and this process ends before.
        try:
            if count := await self._rows.give_back(self._name, self._tasks.keys()):
                log.info("jobs given back", count=count)
        except AppError as error:
            log.warning("jobs could not be given back; they are taken again when their leases end", reason=error.message)


class Attempt:
    """One attempt at a job, as long as the lease lasts. ``asked_at`` is the event loop's time just before the lease was asked for."""

    def __init__(self, claim: Claim, rows: JobRows, run: Run, timing: Timing, asked_at: float) -> None:
        self._claim = claim
        self._rows = rows
        self._run = run
        self._timing = timing
        self._loop = asyncio.get_running_loop()
        self._held_until = asked_at + self._safe_lease_s
        self._progress = Progress()
        self._report_at = 0.0
        self._is_lost = False
        self._work: asyncio.Future[Any] | None = None

    def lose(self) -> None:
        """Stop the work: the job is no longer this worker's."""
        self._is_lost = True
        if self._work is not None:
            self._work.cancel()

    async def carry_out(self) -> None:
        """Do the job and write how it ended, unless the lease is lost before."""
        if self._is_lost:
            return
        self._work = work = asyncio.ensure_future(self._run(JobContext(self._claim, self._report)))
        keeper = asyncio.create_task(self._keep_lease())
        try:
            await asyncio.wait([work])
            if not work.cancelled():
                await self._settle(work)
        finally:
            work.cancel()
            keeper.cancel()
            await asyncio.wait([work, keeper])

    async def _settle(self, work: asyncio.Future[Any]) -> None:
        """Write how the work ended. While the database does not answer, this is tried until the lease is lost."""
        error = work.exception()
        while not self._is_lost and not isinstance(error, LeaseLost):
            try:
                if error is None:
                    await self._rows.complete(self._claim, self._progress, work.result())
                else:
                    await self._fail(error)
            except Unavailable as reason:
                log.warning("a job's end could not be written; trying again", job_id=str(self._claim.id), reason=reason.message)
                await asyncio.sleep(self._timing.report)
            except AppError as reason:  # the result cannot be stored
                error = reason
            else:
                return

    async def _fail(self, error: BaseException) -> None:
        claim = self._claim
        if not isinstance(error, AppError):
            log.error("a job failed", job_id=str(claim.id), kind=claim.kind, attempt=claim.attempt, exc_info=error)
            error = InternalError("Something went wrong inside the server; the log has the details under the job's id.")
        else:
            cause = repr(error.__cause__)[:MAX_CAUSE_LENGTH] if error.__cause__ else None
            log.info("a job failed", job_id=str(claim.id), kind=claim.kind, attempt=claim.attempt, reason=error.message, cause=cause)
        if claim.attempt >= claim.max_attempts or _is_final(error):
            await self._rows.fail(claim, self._progress, error.message, error.code)
        else:
            await self._rows.retry(claim, error.message, error.code, _delay_s(claim.attempt, self._timing.backoff))

    async def _report(self, progress: Progress) -> None:
        self._progress = progress
        if self._is_lost:
            raise LeaseLost
        if self._loop.time() < self._report_at:
            return
        self._report_at = self._loop.time() + self._timing.report
        if not await self._renew():
            raise LeaseLost

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(self._timing.lease / 3)
            if not await self._renew():
                return

    async def _renew(self) -> bool:
        """Renew the lease; False when it is lost: told by the database, or because nothing was heard from it for too long."""
        asked_at = self._loop.time()
        try:
            async with asyncio.timeout_at(self._held_until):
                is_held = await self._rows.renew(self._claim, self._progress, self._timing.lease)
            self._held_until = asked_at + self._safe_lease_s
        except AppError as error:
            log.info("a lease was not renewed", job_id=str(self._claim.id), reason=error.message)
            is_held = self._loop.time() < self._held_until
        except TimeoutError:
            is_held = False
        if not is_held and not self._is_lost:
            log.warning("a job was cancelled, or went to another worker", job_id=str(self._claim.id))
            self.lose()
        return is_held

    @property
    def _safe_lease_s(self) -> float:
        """For how long the lease is believed in here: less than the database does, so that there is time to stop."""
        return self._timing.lease * 5 / 6


def _is_final(error: AppError) -> bool:
    """Whether trying again is of no use, because the request itself is at fault."""
    return error.status < 500 and not isinstance(error, TooManyRequests)


def _delay_s(attempt: int, backoff_s: float) -> float:
    return backoff_s * 4.0 ** (attempt - 1) * random.uniform(0.8, 1.2)  # noqa: S311 - only so that not all come back at once
