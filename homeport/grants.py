"""What is stored about permissions: decisions (grants) and open or decided requests. Functions work inside the caller's transaction.

Every change first locks the app's row, so that decisions about one app happen one after the other and never deadlock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, Select, and_, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from homeport.errors import NotFound
from homeport.ids import uuid7
from homeport.tables import apps, grants, permission_requests

State = Literal["granted", "denied"]

GRANT_COLUMNS = (grants.c.permission, grants.c.state, grants.c.decided_by, grants.c.decided_at)


@dataclass(frozen=True, slots=True)
class Grant:
    """A remembered decision about one permission of one app."""

    permission: str
    state: State
    decided_by: str
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class PermissionRequest:
    """What an app asked for. ``app_name`` is the name that the app gave itself."""

    id: UUID
    app_id: UUID
    app_slug: str
    permission: str
    app_name: str
    state: Literal["pending", "granted", "denied"]
    requested_at: datetime
    decided_at: datetime | None


def app_not_found() -> NotFound:
    """The error for an app id that is not registered."""
    return NotFound("App not found", code="APP_NOT_FOUND")


async def lock_app(connection: AsyncConnection, app_id: UUID) -> RowMapping:
    """The app's row, locked until the transaction ends. Raises NotFound (APP_NOT_FOUND)."""
    # NO KEY: others may still refer to the app meanwhile.
    rows = await connection.execute(select(apps).where(apps.c.id == app_id).with_for_update(key_share=True))
    if (app := rows.mappings().one_or_none()) is None:
        raise app_not_found()
    return app


async def read_states(connection: AsyncConnection, app_id: UUID, names: Sequence[str]) -> dict[str, State]:
    """What is remembered of the permissions ``names``. Raises NotFound (APP_NOT_FOUND)."""
    decided = and_(grants.c.app_id == apps.c.id, grants.c.permission.in_(names))
    statement = select(grants.c.permission, grants.c.state).select_from(apps.outerjoin(grants, decided)).where(apps.c.id == app_id)
    rows = (await connection.execute(statement)).all()
    if not rows:
        raise app_not_found()
    return {permission: state for permission, state in rows if permission is not None}


async def count_grants(connection: AsyncConnection, app_id: UUID) -> int:
    """How many decisions are remembered for the app."""
    return (await connection.execute(select(func.count()).where(grants.c.app_id == app_id))).scalar_one()


async def store_grant(connection: AsyncConnection, app_id: UUID, permission: str, state: State, decided_by: str) -> Grant:
    """Remember a decision in place of an earlier one."""
    values = {"state": state, "decided_by": decided_by, "decided_at": func.now()}
    statement = insert(grants).values(app_id=app_id, permission=permission, **values)
    rows = await connection.execute(
        statement.on_conflict_do_update(index_elements=[grants.c.app_id, grants.c.permission], set_=values).returning(*GRANT_COLUMNS)
    )
    return Grant(**rows.mappings().one())


async def delete_grants(connection: AsyncConnection, app_id: UUID, *only: ColumnElement[bool]) -> list[Grant]:
    """Forget the app's decisions (those that meet ``only``); returns what was forgotten."""
    rows = await connection.execute(delete(grants).where(grants.c.app_id == app_id, *only).returning(*GRANT_COLUMNS))
    return [Grant(**row) for row in rows.mappings()]


async def add_requests(connection: AsyncConnection, app_id: UUID, app_name: str, names: Sequence[str]) -> None:
    """Record pending requests for ``names``, for which there are none yet."""
    rows = [{"id": uuid7(), "app_id": app_id, "permission": name, "app_name": app_name} for name in names]
    await connection.execute(insert(permission_requests), rows)


async def pending_permissions(connection: AsyncConnection, app_id: UUID) -> set[str]:
    """The permissions for which the app has a pending request."""
    is_pending = and_(permission_requests.c.app_id == app_id, permission_requests.c.state == "pending")
    return set((await connection.execute(select(permission_requests.c.permission).where(is_pending))).scalars())


async def close_request(connection: AsyncConnection, state: State, *only: ColumnElement[bool]) -> bool:
    """Mark pending requests that meet ``only`` as decided; whether there were any."""
    statement = update(permission_requests).where(permission_requests.c.state == "pending", *only)
    return bool((await connection.execute(statement.values(state=state, decided_at=func.now()))).rowcount)


def select_requests() -> Select[Any]:
    """All requests, in the fields of PermissionRequest."""
    columns = [column for column in permission_requests.c if column.name != "app_slug"]
    return select(*columns, apps.c.slug.label("app_slug")).join_from(permission_requests, apps)


async def find_request(connection: AsyncConnection, request_id: UUID) -> PermissionRequest:
    """One request. Raises NotFound."""
    rows = await connection.execute(select_requests().where(permission_requests.c.id == request_id))
    if (row := rows.mappings().one_or_none()) is None:
        raise NotFound("Permission request not found")
    return PermissionRequest(**row)
