"""The queue in SQL: each change of a job is one UPDATE that also holds its condition.

Whoever takes a job gets a lease on it, which is ``visible_at`` in the future. A lease is named by the worker and the number of the attempt;
every later change asks for exactly that lease, so that a worker that has lost it can neither report nor finish.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    JSON,
    ColumnElement,
    Double,
    Integer,
    Interval,
    Select,
    Text,
    Update,
    Uuid,
    and_,
    bindparam,
    case,
    cast,
    column,
    delete,
    exists,
    func,
    literal,
    literal_column,
    null,
    select,
    text,
    update,
)
from sqlalchemy.types import TypeEngine

from adapters.postgres import Database, notify
from homeport.tables import jobs

# Told in the transaction that makes a job visible or cancels it: ``queued <kind>``, or ``cancelled <id>``.
JOBS_CHANNEL = "homeport_jobs"
QUEUED = "queued "
CANCELLED = "cancelled "
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


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended. ``state`` is completed, failed, or queued: tried again after ``delay_s``. ``result`` is JSON text."""

    claim: Claim
    progress: Progress
    state: Literal["completed", "failed", "queued"]
    result: str | None = None
    error: str | None = None
    code: str | None = None
    delay_s: float = 0.0


class JobRows:
    """What workers read and write. Every method raises Unavailable when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, worker: str, kind: str, number: int, lease_s: float, except_for: Collection[UUID]) -> list[Claim]:
        """Take up to ``number`` jobs of a kind that are due, oldest first."""
        due = select_due(kind, except_for).limit(number).with_for_update(skip_locked=True).cte("due")
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
            return [Claim(*row) for row in await connection.execute(taken)]

    async def renew(self, claim: Claim, progress: Progress, lease_s: float) -> bool:
        """Keep the lease for ``lease_s`` from now on, and write the progress; False when it is lost or the job was cancelled."""
        values = {"visible_at": _after(lease_s), "done": progress.done, "total": progress.total}
        is_held = (jobs.c.id == claim.id, IS_RUNNING, jobs.c.worker == claim.worker, jobs.c.attempts == claim.attempt)
        async with self._database.transaction() as connection:
            return bool((await connection.execute(update(jobs).where(*is_held).values(values))).rowcount)

    async def end(self, endings: Sequence[Ending]) -> set[UUID]:
        """Write how attempts ended, all or none; returns the ids of those whose lease was still held. The others' are not changed.

        Raises InvalidRequest when one of them cannot be stored.
        """
        rows = [
            (
                ending.claim.id,
                ending.claim.worker,
                ending.claim.attempt,
                ending.state,
                ending.progress.done,
                ending.progress.total,
                ending.result,
                None if ending.error is None else storable(ending.error),
                ending.code,
                ending.delay_s,
            )
            for ending in endings
        ]
        values = {f"ended_{name}": list(each) for name, each in zip(_ENDED, zip(*rows, strict=True), strict=True)}
        async with self._database.transaction() as connection:
            return set((await connection.execute(_END, values)).scalars())

    async def give_back(self, worker: str, kind: str, except_for: Collection[UUID]) -> int:
        """Put back what this worker has taken, as if it had never been tried; returns how many jobs there were."""
        mine = (IS_RUNNING, jobs.c.worker == worker, _is_none_of(except_for))
        async with self._database.transaction() as connection:
            given = await connection.execute(update(jobs).where(*mine).values(**RELEASED, attempts=jobs.c.attempts - 1))
            if given.rowcount:
                await notify(connection, JOBS_CHANNEL, f"{QUEUED}{kind}")
            return given.rowcount

    async def give_up_interrupted(self) -> int:
        """Fail jobs that have been interrupted in their last attempt; returns how many there were.

        A job that takes its process down with it must not do so for ever.
        """
        error = "The server was interrupted each time it worked on this. Its log may say why."
        values = FINISHED | {"state": "failed", "error": error, "error_code": "INTERRUPTED"}
        # Rows that another process is failing, or a worker is renewing after all, are left to them.
        exhausted = select(jobs.c.id).where(IS_DUE, IS_RUNNING, jobs.c.attempts >= jobs.c.max_attempts).with_for_update(skip_locked=True)
        async with self._database.transaction() as connection:
            return (await connection.execute(update(jobs).where(jobs.c.id.in_(exhausted)).values(values))).rowcount

    async def bring_near(self, lease_s: float, longest_s: Callable[[int], float], most_attempts: int) -> int:
        """Have what lies further ahead than it was ever put off be due after one lease; returns how many jobs there were.

        When the clock is turned back, jobs would otherwise wait for the time that it had shown. ``longest_s`` says for how long one is put
        off after so many attempts. Whoever works on one renews its lease before that ends.
        """
        waits = {attempts: literal(longest_s(attempts) + lease_s) for attempts in range(1, most_attempts + 1)}
        put_off_s = case(
            (IS_RUNNING, literal(2 * lease_s)), *((jobs.c.attempts == n, wait) for n, wait in waits.items()), else_=literal(lease_s)
        )
        is_far = jobs.c.visible_at > _after(put_off_s)
        async with self._database.transaction() as connection:
            return (await connection.execute(update(jobs).where(IS_OPEN, is_far).values(visible_at=_after(lease_s)))).rowcount

    async def remove_old(self) -> int:
        """Remove jobs that were finished seven days ago; returns how many there were."""
        async with self._database.transaction() as connection:
            return (await connection.execute(delete(jobs).where(jobs.c.finished_at < func.now() - KEPT))).rowcount


def select_due(kind: str, except_for: Collection[UUID] = ()) -> Select[Any]:
    """The ids of jobs of a kind that a worker may take, oldest first: none that has an older one before it in its lane."""
    is_takeable = (IS_DUE, jobs.c.kind == kind, jobs.c.attempts < jobs.c.max_attempts, _is_none_of(except_for))
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


def _after(seconds: float | ColumnElement[float]) -> ColumnElement[Any]:
    return func.now() + func.make_interval(0, 0, 0, 0, 0, 0, literal(seconds) if isinstance(seconds, float) else seconds, type_=Interval)


def _is_none_of(ids: Collection[UUID]) -> ColumnElement[bool]:
    """One parameter, however many there are: the statement stays the same, and is parsed and planned once."""
    return jobs.c.id != func.all(cast(literal(list(ids), ARRAY(Uuid)), ARRAY(Uuid)))


# What ``end`` writes, as arrays of one element for each job: a statement of one size for any number of them.
_ENDED: dict[str, TypeEngine[Any]] = {
    "id": Uuid(),
    "worker": Text(),
    "attempt": Integer(),
    "state": Text(),
    "done": Integer(),
    "total": Integer(),
    "result": Text(),
    "error": Text(),
    "error_code": Text(),
    "delay_s": Double(),
}


def _end() -> Update:
    arrays = [bindparam(f"ended_{name}", type_=ARRAY(kind)) for name, kind in _ENDED.items()]
    ended = func.unnest(*arrays).table_valued(*(column(name, kind) for name, kind in _ENDED.items()), name="ended").render_derived()
    is_held = (jobs.c.id == ended.c.id, IS_RUNNING, jobs.c.worker == ended.c.worker, jobs.c.attempts == ended.c.attempt)
    is_again = ended.c.state == literal_column("'queued'")
    values = {
        "state": ended.c.state,
        "done": ended.c.done,
        "total": ended.c.total,
        "result": cast(ended.c.result, JSON),
        "error": ended.c.error,
        "error_code": ended.c.error_code,
        "worker": None,
        "payload": case((is_again, jobs.c.payload), else_=null()),
        "visible_at": case((is_again, _after(ended.c.delay_s)), else_=jobs.c.visible_at),
        "finished_at": case((is_again, null()), else_=func.now()),
    }
    return update(jobs).where(*is_held).values(values).returning(jobs.c.id)


_END = _end()
