"""Activities: rows that an app keeps, and works off with one or several machines.

A status that the app invents is stored as it is. Five have a meaning: ``pending``, ``claimed``, ``processing``, ``completed``, ``failed``.
Each change of status is one UPDATE that also holds its condition, so that of two machines, in any processes, one wins. The lock of a
machine that has not been heard of for LOCK_LIFE no longer counts.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import (
    ColumnElement,
    RowMapping,
    Select,
    and_,
    any_,
    case,
    delete,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from adapters.postgres import Database
from homeport.clock import format_time
from homeport.errors import AppError, Conflict, Forbidden, InvalidRequest, NotFound
from homeport.identity import Principal
from homeport.ids import parse_uuid, uuid7
from homeport.tables import activities
from homeport.user_tokens import UserTokens

LOCK_LIFE = timedelta(minutes=5)
SWEEP_INTERVAL_S = 60.0
MAX_STATUS_LENGTH = 100

_CHANGEABLE = ("raw_data", "old_data", "status", "result", "error_message", "locked_by")
_NEVER_NULL = ("raw_data", "status")
_COLUMNS = [column for column in activities.c if column.name != "owner_id"]
_STATUS = activities.c.status
_HOLDER = activities.c.locked_by
# Written as constants: only then does the planner see that the partial index on locked_at applies.
_IS_LOCKED = _STATUS.in_((literal_column("'claimed'"), literal_column("'processing'")))
_IS_STALE = or_(activities.c.locked_at.is_(None), activities.c.locked_at < func.now() - LOCK_LIFE)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Activity:
    """One row. ``raw_data``, ``old_data`` and ``result`` are any JSON; ``attempted_by`` names the machines that have failed it."""

    id: UUID
    raw_data: Any
    old_data: Any
    status: str
    locked_by: str | None
    locked_at: datetime | None
    completed_at: datetime | None
    error_message: str | None
    attempted_by: list[str]
    retry_count: int
    result: Any
    created_at: datetime


@dataclass(frozen=True, slots=True)
class _Transition:
    """What a change of status demands of the row, and what it sets besides the fields that the app sends."""

    allowed: ColumnElement[bool]
    values: Mapping[str, Any]


class Activities:
    """Each principal sees the rows of its owner id and no others: another's id is not found."""

    def __init__(self, database: Database, user_tokens: UserTokens) -> None:
        self._database = database
        self._user_tokens = user_tokens

    async def create(self, principal: Principal, raw_data: Any, old_data: Any = None) -> Activity:
        """Add a pending activity."""
        await self._require_user(principal)
        values = {"id": uuid7(), "owner_id": principal.owner_id, "raw_data": raw_data, "old_data": old_data}
        async with self._database.transaction() as connection:
            rows = await connection.execute(insert(activities).values(values).returning(*_COLUMNS))
            return Activity(**rows.mappings().one())

    async def get(self, principal: Principal, activity_id: str) -> Activity:
        """One activity. Raises NotFound."""
        await self._require_user(principal)
        async with self._database.transaction() as connection:
            rows = await connection.execute(select(*_COLUMNS).where(_is(principal, activity_id)))
            return _found(rows.mappings().one_or_none())

    async def list(self, principal: Principal, *, status: str | None = None, limit: int = 50, offset: int = 0) -> Sequence[Activity]:
        """Activities, newest first, only those in ``status`` when it is given."""
        await self._require_user(principal)
        async with self._database.transaction() as connection:
            rows = await connection.execute(select_newest(principal.owner_id, status, limit=limit, offset=offset))
            return [Activity(**row) for row in rows.mappings()]

    async def update(self, principal: Principal, activity_id: str, changes: Mapping[str, Any]) -> Activity:
        """Change what ``changes`` names of raw_data, old_data, status, result, error_message and locked_by; other names are ignored,
        and so is a raw_data or status of None.

        ``locked_by`` names the machine that speaks; a claim without it is made in the principal's name. Raises NotFound, InvalidRequest,
        and Conflict, saying by whom and since when, when the row's state does not allow the change.
        """
        await self._require_user(principal)
        values = {name: changes[name] for name in _CHANGEABLE if name in changes and not (changes[name] is None and name in _NEVER_NULL)}
        status = _check_status(values.get("status"))
        machine = values.get("locked_by") or None
        transition = _transition(status, machine, principal.name, sets_lock="locked_by" in values)
        values |= transition.values
        mine = _is(principal, activity_id)
        async with self._database.transaction() as connection:
            if not values:
                return _found((await connection.execute(select(*_COLUMNS).where(mine))).mappings().one_or_none())
            changed = await connection.execute(update(activities).where(mine, transition.allowed).values(values).returning(*_COLUMNS))
            if (row := changed.mappings().one_or_none()) is not None:
                return Activity(**row)
            current = _found((await connection.execute(select(*_COLUMNS).where(mine))).mappings().one_or_none())
        raise _conflict(current, status, machine or principal.name)

    async def delete(self, principal: Principal, activity_id: str) -> Activity:
        """Delete an activity and return what it was. Raises NotFound."""
        await self._require_user(principal)
        async with self._database.transaction() as connection:
            rows = await connection.execute(delete(activities).where(_is(principal, activity_id)).returning(*_COLUMNS))
            return _found(rows.mappings().one_or_none())

    async def return_stale(self) -> int:
        """Put every activity back to pending whose machine has not been heard of for LOCK_LIFE; returns how many there were."""
        # Rows that another process is returning, or a machine is touching, are left to them.
        stale = select_stale().with_for_update(skip_locked=True)
        statement = update(activities).where(activities.c.id.in_(stale)).values(status="pending", locked_by=None, locked_at=None)
        async with self._database.transaction() as connection:
            return (await connection.execute(statement)).rowcount

    async def run_sweeper(self) -> None:
        """Return stale activities once a minute until cancelled."""
        while True:
            try:
                if count := await self.return_stale():
                    log.info("stale activities returned to pending", count=count)
            except AppError as error:
                log.warning("stale activities could not be returned; trying again in a minute", reason=error.message)
            await asyncio.sleep(SWEEP_INTERVAL_S)

    async def _require_user(self, principal: Principal) -> None:
        if principal.requires_user and not await self._user_tokens.has_current(principal):
            raise Forbidden(
                "This app requires a signed-in user: call sdk.auth.syncSupabaseToken with the user's token first.",
                code="USER_AUTH_REQUIRED",
            )


def select_newest(owner_id: UUID, status: str | None, *, limit: int, offset: int) -> Select[Any]:
    """A page of an owner's activities, newest first; answered from an index without sorting.

    What is passed over is counted in the index alone: the rows themselves are only read for the page.
    """
    mine = activities.c.owner_id == owner_id
    conditions = (mine, _STATUS == status) if status else (mine,)
    newest = (activities.c.created_at.desc(), activities.c.id.desc())
    if not offset:
        return select(*_COLUMNS).where(*conditions).order_by(*newest).limit(limit)
    page = select(activities.c.id, activities.c.created_at).where(*conditions).order_by(*newest).limit(limit).offset(offset).subquery()
    rows = select(*_COLUMNS).join(page, activities.c.id == page.c.id)
    return rows.order_by(page.c.created_at.desc(), page.c.id.desc())


def select_stale() -> Select[Any]:
    """The ids of activities whose machine has not been heard of for LOCK_LIFE."""
    return select(activities.c.id).where(_IS_LOCKED, _IS_STALE)


def _is(principal: Principal, activity_id: str) -> ColumnElement[bool]:
    return and_(activities.c.id == parse_uuid(activity_id), activities.c.owner_id == principal.owner_id)


def _found(row: RowMapping | None) -> Activity:
    if row is None:
        raise NotFound("Activity not found")
    return Activity(**row)


def _check_status(status: str | None) -> str | None:
    if status is not None and not 1 <= len(status) <= MAX_STATUS_LENGTH:
        raise InvalidRequest(f"A status has 1 to {MAX_STATUS_LENGTH} characters.")
    return status


def _transition(status: str | None, machine: str | None, principal_name: str, *, sets_lock: bool) -> _Transition:
    """``machine`` is who speaks, None when the app does not say; then only a claim asks who holds the lock."""
    may_touch = true() if machine is None else or_(not_(_IS_LOCKED), _IS_STALE, _HOLDER == machine)
    released = {"locked_by": None, "locked_at": None}
    match status:
        case "claimed":
            return _claim(machine or principal_name)
        case "processing":
            return _process(machine, principal_name)
        case "completed":
            completed_at = case((_STATUS == "completed", activities.c.completed_at), else_=func.now())
            return _Transition(and_(_STATUS != "failed", may_touch), released | {"completed_at": completed_at})
        case "failed":
            return _Transition(and_(_STATUS != "completed", may_touch), released | _failure(machine))
        case "pending":
            return _Transition(may_touch, released | {"completed_at": None})
        case None if sets_lock:
            # Without a status the machine only says that it is still at work, or (null) that it lets go.
            locked_at = None if machine is None else case((_IS_LOCKED, func.now()), else_=activities.c.locked_at)
            return _Transition(may_touch, {"locked_by": machine, "locked_at": locked_at})
        case _:
            return _Transition(true(), {})


def _claim(machine: str) -> _Transition:
    is_free = or_(_STATUS.in_(("pending", "failed")), and_(_IS_LOCKED, _IS_STALE))
    return _Transition(and_(is_free, _has_not_failed_for(machine)), {"locked_by": machine, "locked_at": func.now(), "completed_at": None})


def _process(machine: str | None, principal_name: str) -> _Transition:
    """Go on with what one has claimed, or start on what nobody has."""
    holds = _IS_LOCKED if machine is None else and_(_IS_LOCKED, _HOLDER == machine)
    starts = and_(_STATUS == "pending", _has_not_failed_for(machine or principal_name))
    locked_by = literal(machine) if machine else func.coalesce(_HOLDER, principal_name)
    return _Transition(or_(holds, starts), {"locked_by": locked_by, "locked_at": func.now()})


def _failure(machine: str | None) -> dict[str, Any]:
    """A machine is remembered once, and reporting the same failure again does not count as another try."""
    attempted = activities.c.attempted_by
    culprit = literal(machine) if machine else _HOLDER
    is_known = or_(_STATUS == "failed", culprit.is_(None), culprit == any_(attempted))
    return {
        "attempted_by": case((is_known, attempted), else_=func.array_append(attempted, culprit)),
        "retry_count": activities.c.retry_count + case((_STATUS == "failed", 0), else_=1),
    }


def _has_not_failed_for(machine: str) -> ColumnElement[bool]:
    return not_(literal(machine) == any_(activities.c.attempted_by))


def _conflict(current: Activity, status: str | None, machine: str) -> Conflict:
    """Why the row as it is now does not allow the change."""
    if status in ("claimed", "processing") and machine in current.attempted_by:
        reason = f"'{machine}' has failed this activity before; another machine (locked_by) may take it."
    elif current.locked_by and current.locked_at:
        reason = f"This activity is {current.status} by '{current.locked_by}' since {format_time(current.locked_at)}."
    else:
        reason = f"This activity is {current.status}; it cannot become {status or 'locked'} from there."
    return Conflict(reason, code="ACTIVITY_CONFLICT")
