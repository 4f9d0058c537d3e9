"""Jobs for the rest of the program: put in, looked at, cancelled, and worked off in the background."""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import RowMapping, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres import Database, Notifications, notify
from homeport.errors import AppError, NotFound, TooManyRequests
from homeport.ids import parse_uuid, uuid7
from homeport.jobs.attempt import SPREAD, Run, Timing
from homeport.jobs.rows import CANCELLED, FINISHED, IS_OPEN, JOBS_CHANNEL, PUBLIC, QUEUED, JobRows, is_one
from homeport.jobs.worker import Worker
from homeport.tables import jobs

CONCURRENCY = 2
MAX_ATTEMPTS = 5
MAX_OPEN = 100
SWEEP_INTERVAL_S = 3600.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its owner may see it.

    ``state`` is queued, running, completed, failed or cancelled. ``done`` of ``total`` is the progress (0 of 0 while that is unknown).
    ``error`` is a sentence for people and ``error_code`` its stable code: why it failed, or while it waits to be tried again, why the last
    attempt did.
    """

    id: UUID
    kind: str
    owner_id: UUID
    state: str
    done: int
    total: int
    result: Any
    error: str | None
    error_code: str | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Kind:
    max_attempts: int
    max_open: int
    worker: Worker


class Jobs:
    """The queue. Each owner sees its own jobs and no others: another's id is not found.

    Any process may put jobs in; those that run ``run_worker`` carry them out, each job in one process at a time. A job whose process is
    killed is started again by another one, so what a job does must be fit to be done twice.
    """

    def __init__(self, database: Database, notifications: Notifications, *, timing: Timing | None = None) -> None:
        self._database = database
        self._rows = JobRows(database)
        self._timing = timing or Timing()
        self._kinds: dict[str, _Kind] = {}
        notifications.subscribe(JOBS_CHANNEL, self._hear)
        notifications.on_gap(self._wake_all)

    def register(
        self, kind: str, run: Run, *, max_attempts: int = MAX_ATTEMPTS, max_open: int = MAX_OPEN, concurrency: int = CONCURRENCY
    ) -> None:
        """Have jobs of this kind done by ``run``; ``run_worker`` must not have begun.

        A process does at most ``concurrency`` of the kind at once, whatever it does of others. An owner has at most ``max_open`` of them
        waiting and running.
        """
        self._kinds[kind] = _Kind(max_attempts, max_open, Worker(kind, run, self._rows, self._timing, concurrency))

    async def enqueue(
        self,
        kind: str,
        owner_id: UUID,
        payload: Mapping[str, Any],
        *,
        lane: str | None = None,
        connection: AsyncConnection | None = None,
    ) -> Job:
        """Put a job in. Those of an owner and kind in the same ``lane`` are done one after the other, in the order they came.

        With a ``connection`` that happens in its transaction: the job is there when that commits, and not before.
        Raises TooManyRequests when the owner has too many of this kind waiting, KeyError for an unknown kind.
        """
        limits = self._kinds[kind]
        is_open = (IS_OPEN, jobs.c.owner_id == owner_id, jobs.c.kind == kind)
        values = {"id": uuid7(), "kind": kind, "owner_id": owner_id, "payload": payload, "max_attempts": limits.max_attempts}
        values["lane"] = None if lane is None else f"{kind} {owner_id} {lane}"
        async with self._transaction(connection) as inside:
            waiting = (await inside.execute(select(func.count()).where(*is_open))).scalar_one()
            if waiting >= limits.max_open:
                raise TooManyRequests(f"{waiting} such jobs are waiting already. Wait until some are done, or cancel them.")
            job = Job(**(await inside.execute(insert(jobs).values(values).returning(*PUBLIC))).mappings().one())
            await notify(inside, JOBS_CHANNEL, f"{QUEUED}{kind}")
        return job

    async def get(self, owner_id: UUID, job_id: str, *, kind: str | None = None) -> Job:
        """One job, of this kind when one is given. Raises NotFound."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(select(*PUBLIC).where(is_one(owner_id, parse_uuid(job_id), kind)))
            return _found(rows.mappings().one_or_none())

    async def cancel(self, owner_id: UUID, job_id: str, *, kind: str | None = None, connection: AsyncConnection | None = None) -> Job:
        """Cancel a job that waits or runs, and return it; a finished one is returned as it is. Raises NotFound.

        A running one stops a moment later, in whatever process it runs. What it has done until then stays done.
        With a ``connection`` that happens in its transaction.
        """
        mine = is_one(owner_id, parse_uuid(job_id), kind)
        cancelling = update(jobs).where(mine, IS_OPEN).values(FINISHED | {"state": "cancelled"}).returning(*PUBLIC)
        async with self._transaction(connection) as inside:
            if (row := (await inside.execute(cancelling)).mappings().one_or_none()) is None:
                return _found((await inside.execute(select(*PUBLIC).where(mine))).mappings().one_or_none())
            await notify(inside, JOBS_CHANNEL, f"{CANCELLED}{row['id']}")
        return _found(row)

    async def run_worker(self) -> None:
        """Carry out jobs until cancelled; then those that run are given back, to be done by another process or after the next start."""
        async with asyncio.TaskGroup() as group:
            for name, kind in self._kinds.items():
                group.create_task(kind.worker.work(), name=f"jobs {name}")
            group.create_task(self._look_after(), name="interrupted jobs")

    async def run_sweeper(self) -> None:
        """Once an hour, until cancelled, remove jobs that were finished seven days ago."""
        while True:
            try:
                if count := await self._rows.remove_old():
                    log.info("old jobs removed", count=count)
            except AppError as error:
                log.warning("old jobs could not be removed; trying again in an hour", reason=error.message)
            await asyncio.sleep(SWEEP_INTERVAL_S)

    async def _look_after(self) -> None:
        clock = asyncio.get_running_loop().time
        near_at = clock()
        while True:
            try:
                if count := await self._rows.give_up_interrupted():
                    log.warning("jobs given up that were interrupted each time", count=count)
                    self._wake_all()
                if clock() >= near_at:
                    near_at = clock() + self._timing.lease
                    await self._bring_near()
            except AppError as error:
                log.warning("jobs could not be looked after; trying again", reason=error.message)
            await asyncio.sleep(self._timing.poll)

    async def _bring_near(self) -> None:
        most_attempts = max((kind.max_attempts for kind in self._kinds.values()), default=1)
        count = await self._rows.bring_near(self._timing.lease, lambda attempts: self._timing.delay_s(attempts) * SPREAD[1], most_attempts)
        if count:
            log.warning("jobs brought near that were put off before the clock was turned back", count=count)

    def _transaction(self, connection: AsyncConnection | None) -> AbstractAsyncContextManager[AsyncConnection]:
        return self._database.transaction() if connection is None else nullcontext(connection)

    def _hear(self, payload: str) -> None:
        if payload.startswith(QUEUED) and (kind := self._kinds.get(payload.removeprefix(QUEUED))) is not None:
            kind.worker.wake()
        if payload.startswith(CANCELLED) and (job_id := parse_uuid(payload.removeprefix(CANCELLED))) is not None:
            for each in self._kinds.values():
                each.worker.stop_job(job_id)
            self._wake_all()  # it may let the next one in its lane begin

    def _wake_all(self) -> None:
        for kind in self._kinds.values():
            kind.worker.wake()


def _found(row: RowMapping | None) -> Job:
    if row is None:
        raise NotFound("There is no such job. Finished jobs are kept for seven days.")
    return Job(**row)
