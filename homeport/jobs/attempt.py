"""One attempt at a job: done while the lease on it lasts, and its end written."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog

from adapters.postgres import dump_json
from homeport.errors import AppError, InternalError, TooManyRequests, Unavailable
from homeport.jobs.endings import Endings
from homeport.jobs.rows import Claim, Ending, JobRows, Progress

MAX_CAUSE_LENGTH = 500
SPREAD = (0.8, 1.2)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. ``poll`` is how often a worker looks for jobs although nobody told it of one; a ``lease`` is renewed three times before it
    ends; ``report`` lies between two writes of progress; the first retry waits for ``backoff``, each later one four times as long; a job
    gets ``stop`` to end when it is told to.
    """

    poll: float = 5.0
    lease: float = 15.0
    report: float = 0.5
    backoff: float = 5.0
    stop: float = 5.0

    def delay_s(self, attempt: int) -> float:
        """For how long a job is put off after an attempt that failed, but for the spread."""
        return self.backoff * 4.0 ** (attempt - 1)


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


class Attempt:
    """One attempt at a job, as long as the lease lasts. ``asked_at`` is the event loop's time just before the lease was asked for."""

    def __init__(self, claim: Claim, rows: JobRows, endings: Endings, run: Run, timing: Timing, asked_at: float) -> None:
        self._claim = claim
        self._rows = rows
        self._endings = endings
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
        ending = self._ending(work)
        while ending is not None and not self._is_lost:
            try:
                await self._endings.write(ending)
            except Unavailable as reason:
                log.warning("a job's end could not be written; trying again", job_id=str(self._claim.id), reason=reason.message)
                await asyncio.sleep(self._timing.report)
            except AppError as reason:  # the result or the progress cannot be stored
                self._progress = Progress()
                ending = self._failure(reason)
            else:
                return

    def _ending(self, work: asyncio.Future[Any]) -> Ending | None:
        """None: the lease was lost, and nothing is to be written."""
        error = work.exception()
        if error is None:
            try:
                result = work.result()
                return Ending(self._claim, self._progress, "completed", None if result is None else dump_json(result).decode())
            except Exception as reason:  # noqa: BLE001 - whatever is no JSON
                error = reason
        return None if isinstance(error, LeaseLost) else self._failure(error)

    def _failure(self, error: BaseException) -> Ending:
        claim = self._claim
        if not isinstance(error, AppError):
            log.error("a job failed", job_id=str(claim.id), kind=claim.kind, attempt=claim.attempt, exc_info=error)
            error = InternalError("Something went wrong inside the server; the log has the details under the job's id.")
        else:
            cause = repr(error.__cause__)[:MAX_CAUSE_LENGTH] if error.__cause__ else None
            log.info("a job failed", job_id=str(claim.id), kind=claim.kind, attempt=claim.attempt, reason=error.message, cause=cause)
        if claim.attempt >= claim.max_attempts or _is_final(error):
            return Ending(claim, self._progress, "failed", error=error.message, code=error.code)
        delay_s = self._timing.delay_s(claim.attempt) * random.uniform(*SPREAD)  # noqa: S311 - only so that not all come back at once
        return Ending(claim, self._progress, "queued", error=error.message, code=error.code, delay_s=delay_s)

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
