"""What is stored about approvals. Functions work inside the caller's transaction."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, Select, Text, and_, cast, func, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from homeport.tables import approvals, apps, grants

ApprovalState = Literal["pending", "granted", "denied", "expired"]
Decision = Literal["granted", "denied"]

MAX_SHOWN_ARGUMENTS = 10_000
# Written as a constant: only then does the planner see that the partial index applies.
IS_PENDING = approvals.c.state == literal_column("'pending'")
IS_OVER = approvals.c.expires_at <= func.now()
_SHOWN = [column for column in approvals.c if column.name != "arguments"]


@dataclass(frozen=True, slots=True)
class Approval:
    """A question, and what became of it.

    ``app_id`` and ``app_slug`` name the app that the agent works for, None when it works for an API key. ``arguments`` is JSON, for people;
    ``is_cut`` says that there is more of it. ``permission`` is what the app would have to hold in order not to be asked about again.
    """

    id: UUID
    run_id: UUID
    owner_id: UUID
    app_id: UUID | None
    app_slug: str | None
    agent: str
    server: str
    tool: str
    tool_call_id: str
    arguments: str = field(repr=False)
    is_cut: bool
    permission: str
    state: ApprovalState
    decided_by: str | None
    requested_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Pending:
    """How a question stands while it is waited for: the seconds that are left, and what was decided about the app's permission."""

    state: ApprovalState
    left_s: float
    grant: Decision | None
    granted_by: str | None


def select_approvals() -> Select[Any]:
    """Approvals with the slugs of their apps, and as much of the arguments as is shown."""
    shown = func.left(cast(approvals.c.arguments, Text), MAX_SHOWN_ARGUMENTS + 1).label("arguments")
    joined = approvals.outerjoin(apps, apps.c.id == approvals.c.app_id)
    return select(*_SHOWN, shown, apps.c.slug.label("app_slug")).select_from(joined)


def to_approval(row: RowMapping) -> Approval:
    """A row of ``select_approvals``."""
    text = row["arguments"]
    return Approval(**{**row, "arguments": text[:MAX_SHOWN_ARGUMENTS], "is_cut": len(text) > MAX_SHOWN_ARGUMENTS})


async def read_one(connection: AsyncConnection, *which: ColumnElement[bool]) -> Approval | None:
    """The approval that meets these conditions; None when there is none."""
    row = (await connection.execute(select_approvals().where(*which))).mappings().one_or_none()
    return to_approval(row) if row is not None else None


async def read_pending(connection: AsyncConnection, approval_id: UUID) -> Pending | None:
    """How a question stands; None when it is gone."""
    granted = and_(grants.c.app_id == approvals.c.app_id, grants.c.permission == approvals.c.permission)
    left_s = func.extract("epoch", approvals.c.expires_at - func.now())
    statement = (
        select(approvals.c.state, left_s, grants.c.state, grants.c.decided_by)
        .select_from(approvals.outerjoin(grants, granted))
        .where(approvals.c.id == approval_id)
    )
    row = (await connection.execute(statement)).one_or_none()
    return Pending(row[0], float(row[1]), row[2], row[3]) if row is not None else None


async def settle(
    connection: AsyncConnection, state: ApprovalState, decided_by: str | None, *which: ColumnElement[bool]
) -> list[RowMapping]:
    """Decide those of these questions that are pending; returns what is told about each."""
    told = (approvals.c.id, approvals.c.run_id, approvals.c.agent, approvals.c.server, approvals.c.tool, approvals.c.permission)
    values = {"state": state, "decided_by": decided_by, "decided_at": func.now()}
    rows = await connection.execute(update(approvals).where(IS_PENDING, *which).values(values).returning(*told))
    return [*rows.mappings()]
