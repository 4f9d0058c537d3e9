"""The queue in SQL: each change of a job is one UPDATE that also holds its condition.

Whoever takes a job gets a lease on it, which is ``visible_at`` in the future. A lease is named by the worker and the number of the attempt;
every later change asks for exactly that lease, so that a worker that has lost it can neither report nor finish.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Interval, Select, and_, delete, exists, func, literal, literal_column, select, text, update

from adapters.postgres import Database, notify
from homeport.tables import jobs

# Told in the transaction that makes a job visible or cancels it: ``queued``, or ``cancelled <id>``.
JOBS_CHANNEL = "homeport_jobs"
QUEUED = "queued"
KEPT = text("interval '7 days'")
MAX_ERROR_LENGTH = 1000
PUBLIC = [column for column in jobs.c if column.name not in ("lane", "payload", "max_attempts", "visible_at", "worker")]
# Written as constants: only then does the planner see that the partial indexes apply.
IS_OPEN = jobs.c.state.in_((literal_column("'queued'"), literal_column("'running'")))
IS_RUNNING = jobs.c.state == literal_column("'running'")
IS_DUE = and_(IS_OPEN, jobs.c.visible_at <= func.now())
# What a finished job keeps is small: the payload, which may be megabytes, goes at once.
FINISHED: dict[str, Any] = {"finished_at": func.now(), "payload": None, "worker": None}
RELEASED: dict[str, Any] = {"state": "queued", "worker": None, "visible_at": func.now()}


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this worker may carry out, while its lease lasts. ``attempt`` counts from 1."""

    id: UUID
    kind: str
    owner_id: UUID
    payload: Any
    worker: str
    attempt: int
    max_attempts: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How much is done, out of how much; 0 of 0 as long as nobody knows."""

    done: int = 0
    total: int = 0


class JobRows:
    """What workers read and write. Every method raises Unavailable when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, worker: str, kinds: Collection[str], number: int, lease_s: float, except_for: Collection[UUID]) -> list[Claim]:
        """Take up to ``number`` jobs that are due, oldest first; those that have run out of attempts fail."""
        due = select_due(kinds, except_for).limit(number).with_for_update(skip_locked=True).cte("due")
        taken = (
            update(jobs)
            .where(jobs.c.id == due.c.id)
            .values(
                state="running",
                worker=worker,
                attempts=jobs.c.attempts + 1,
                visible_at=_after(lease_s),
                started_at=func.coalesce(jobs.c.started_at, func.now()),
            )
            .returning(*(jobs.c[name] for name in ("id", "kind", "owner_id", "payload", "worker", "attempts", "max_attempts")))
        )
        async with self._database.transaction() as connection:
            await connection.execute(_fail_interrupted())
            return [Claim(*row) for row in await connection.execute(taken)]

    async def renew(self, claim: Claim, progress: Progress, lease_s: float) -> bool:
        """Keep the lease for ``lease_s`` from now on, and write the progress; False when it is lost or the job was cancelled."""
        return await self._change(claim, visible_at=_after(lease_s), done=progress.done, total=progress.total)

    async def complete(self, claim: Claim, progress: Progress, result: Any) -> bool:
        """Write the result; False when the lease is lost. Raises InvalidRequest for a result that cannot be stored."""
        values = FINISHED | {"done": progress.done, "total": progress.total, "result": result, "error": None, "error_code": None}
        return await self._change(claim, state="completed", **values)

    async def fail(self, claim: Claim, progress: Progress, error: str, code: str) -> bool:
        """Give the job up; False when the lease is lost."""
        values = FINISHED | {"done": progress.done, "total": progress.total, "error": storable(error), "error_code": code}
        return await self._change(claim, state="failed", **values)

    async def retry(self, claim: Claim, error: str, code: str, delay_s: float) -> bool:
        """Have the job tried again after ``delay_s``; False when the lease is lost."""
        values = RELEASED | {"visible_at": _after(delay_s), "error": storable(error), "error_code": code}
        return await self._change(claim, **values)

    async def give_back(self, worker: str, except_for: Collection[UUID]) -> int:
        """Put back what this worker has taken, as if it had never been tried; returns how many jobs there were."""
        mine = (IS_RUNNING, jobs.c.worker == worker, jobs.c.id.not_in(except_for))
        async with self._database.transaction() as connection:
            given = await connection.execute(update(jobs).where(*mine).values(**RELEASED, attempts=jobs.c.attempts - 1))
            if given.rowcount:
                await notify(connection, JOBS_CHANNEL, QUEUED)
            return given.rowcount

    async def remove_old(self) -> int:
        """Remove jobs that were finished seven days ago; returns how many there were."""
        async with self._database.transaction() as connection:
            return (await connection.execute(delete(jobs).where(jobs.c.finished_at < func.now() - KEPT))).rowcount

    async def _change(self, claim: Claim, **values: Any) -> bool:
        async with self._database.transaction() as connection:
            return bool((await connection.execute(update(jobs).where(_is_held(claim)).values(values))).rowcount)


def select_due(kinds: Collection[str], except_for: Collection[UUID] = ()) -> Select[Any]:
    """The ids of jobs of these kinds that a worker may take, oldest first: none that has an older one before it in its lane."""
    is_takeable = (IS_DUE, jobs.c.kind.in_(kinds), jobs.c.attempts < jobs.c.max_attempts, jobs.c.id.not_in(except_for))
    older = jobs.alias("older")
    is_open = older.c.state.in_((literal_column("'queued'"), literal_column("'running'")))
    # Whoever is taking the older one at this moment does not matter: it is open before and after.
    is_blocked = exists().where(older.c.lane == jobs.c.lane, older.c.lane.is_not(None), is_open, older.c.id < jobs.c.id)
    return select(jobs.c.id).where(*is_takeable, ~is_blocked).order_by(jobs.c.visible_at, jobs.c.id)


def storable(message: str) -> str:
    """``message`` as text that the database takes: it may quote what a caller has sent."""
    return message[:MAX_ERROR_LENGTH].encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def is_one(owner_id: UUID, job_id: UUID | None, kind: str | None) -> ColumnElement[bool]:
    """The job with this id of this owner, and of this kind when one is given."""
    found = and_(jobs.c.id == job_id, jobs.c.owner_id == owner_id)
    return found if kind is None else and_(found, jobs.c.kind == kind)


def _after(seconds: float) -> ColumnElement[Any]:
    return func.now() + func.make_interval(0, 0, 0, 0, 0, 0, literal(seconds), type_=Interval)


def _is_held(claim: Claim) -> ColumnElement[bool]:
    return and_(jobs.c.id == claim.id, IS_RUNNING, jobs.c.worker == claim.worker, jobs.c.attempts == claim.attempt)


def _fail_interrupted() -> Any:
    """A job that takes its process down with it must not do so for ever."""
    error = "The server was interrupted each time it worked on this. Its log may say why."
    values = FINISHED | {"state": "failed", "error": error, "error_code": "INTERRUPTED"}
    # Rows that another process is failing, or a worker is renewing after all, are left to them.
    exhausted = select(jobs.c.id).where(IS_DUE, IS_RUNNING, jobs.c.attempts >= jobs.c.max_attempts).with_for_update(skip_locked=True)
    return update(jobs).where(jobs.c.id.in_(exhausted)).values(values)
