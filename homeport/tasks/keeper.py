"""Keeps tasks true: one whose job has ended without telling it does not wait for ever. And forgets events that nobody will repeat."""

import asyncio
import time
from typing import Any

import structlog
from sqlalchemy import RowMapping, Select, and_, delete, func, literal_column, or_, select, text

from adapters.postgres import Database
from homeport.errors import AppError
from homeport.identity import principal_without_grants
from homeport.tables import jobs, tasks, webhook_events
from homeport.tasks.callbacks import Told
from homeport.tasks.changes import Changes
from homeport.tasks.rows import find_task
from homeport.tasks.work import MACHINE

INTERVAL_S = 5.0
BATCH = 100
SWEEP_INTERVAL_S = 3600.0
# For how long an event that comes again counts as the same one.
KEPT = text("interval '7 days'")
LOST = "The job of this task ended, and nobody said why. The server's log may."

log = structlog.get_logger(__name__)


class Keeper:
    """Looks after tasks in the background; any number of processes may."""

    def __init__(self, database: Database, changes: Changes) -> None:
        self._database = database
        self._changes = changes

    async def run(self) -> None:
        """Every five seconds, until cancelled, settle tasks whose job has ended; once an hour remove old events."""
        swept_at = -SWEEP_INTERVAL_S
        while True:
            try:
                if count := await self.settle():
                    log.warning("tasks settled whose jobs had ended", count=count)
                if time.monotonic() - swept_at >= SWEEP_INTERVAL_S:
                    swept_at = time.monotonic()
                    await self.remove_old_events()
            except AppError as error:
                log.warning("tasks could not be looked after; trying again", reason=error.message)
            await asyncio.sleep(INTERVAL_S)

    async def settle(self) -> int:
        """Fail or cancel tasks whose job was given up or cancelled; returns how many. Raises Unavailable."""
        async with self._database.transaction() as connection:
            found = (await connection.execute(select_abandoned().limit(BATCH))).mappings().all()
        return sum([await self._settle(row) for row in found])

    async def remove_old_events(self) -> int:
        """Forget events that came seven days ago; returns how many there were. Raises Unavailable."""
        async with self._database.transaction() as connection:
            return (await connection.execute(delete(webhook_events).where(webhook_events.c.created_at < func.now() - KEPT))).rowcount

    async def _settle(self, row: RowMapping) -> bool:
        async with self._database.transaction() as connection:
            task = await find_task(connection, str(row["id"]), lock=True)
            if task.job_id != row["job_id"]:
                return False
            by: dict[str, Any] = {"principal": principal_without_grants(task.caller), "by": MACHINE}
            if row["state"] == "cancelled":
                await self._changes.apply(connection, task, Told("task.canceled"), **by)
                return True
            if task.status == "pending":  # its job never got as far as to claim it
                task = await self._changes.apply(connection, task, Told("task.claimed", machine_id=MACHINE), **by, is_own=True)
            await self._changes.apply(connection, task, Told("task.failed", {"error": row["error"] or LOST}), **by)
        return True


def select_abandoned() -> Select[Any]:
    """Tasks that wait for a job, or are worked on in one, which has ended, with what is known of its end."""
    is_waiting = tasks.c.status.in_([literal_column(f"'{status}'") for status in ("pending", "claimed", "processing")])
    has_ended = or_(jobs.c.id.is_(None), jobs.c.finished_at.is_not(None))
    joined = tasks.outerjoin(jobs, jobs.c.id == tasks.c.job_id)
    statement = select(tasks.c.id, tasks.c.job_id, jobs.c.state, jobs.c.error).select_from(joined)
    return statement.where(and_(tasks.c.job_id.is_not(None), is_waiting, has_ended)).order_by(tasks.c.id)
