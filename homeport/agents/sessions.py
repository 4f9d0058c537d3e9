"""Sessions: the conversations of an app, or of whoever holds a key, with an agent.

They are in the database and nowhere else, so that any process continues any of them, also after a restart. A session ends when it is
closed, or by itself an hour after the last thing that happened in it; then it is not found any more, and its rows are kept for RETENTION.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import structlog
from sqlalchemy import (
    ColumnElement,
    RowMapping,
    Select,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres import Database
from homeport.agents.catalog import DEFAULT_AGENT, Agent, read_agent
from homeport.agents.run_ends import RunEnds
from homeport.errors import AppError, NotFound
from homeport.identity import Principal
from homeport.ids import parse_uuid, uuid7
from homeport.models import Models
from homeport.paging import Page, fetch_page
from homeport.slugs import insert_with_slug, slugs_for
from homeport.tables import agent_runs, agent_sessions, agents, threads, workspaces
from homeport.workspaces import DEFAULT_WORKSPACE

NEW_THREAD = "create_new"
EXPIRES_AFTER = timedelta(hours=1)
RETENTION = timedelta(days=90)
SWEEP_INTERVAL_S = 3600.0
SWEEP_BATCH = 500

SessionState = Literal["open", "closed", "expired"]

log = structlog.get_logger(__name__)

_HAS_OPEN_RUN = exists().where(
    agent_runs.c.session_id == agent_sessions.c.id,
    agent_runs.c.state.in_((literal_column("'running'"), literal_column("'waiting'"))),
)
_IS_ACTIVE = or_(agent_sessions.c.last_active_at > func.now() - EXPIRES_AFTER, _HAS_OPEN_RUN)
_IS_OPEN = and_(agent_sessions.c.closed_at.is_(None), _IS_ACTIVE)
_STATE = case((agent_sessions.c.closed_at.is_not(None), "closed"), (_IS_ACTIVE, "open"), else_="expired")


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation. ``workspace`` and ``thread`` are slugs; ``message_count`` counts questions and final answers."""

    id: UUID
    owner_id: UUID
    agent: Agent
    workspace: str
    workspace_name: str
    thread: str | None
    thread_name: str | None
    message_count: int
    last_message_at: datetime | None
    last_active_at: datetime
    created_at: datetime
    state: SessionState


class Sessions:
    """Creates, finds and closes sessions. Each owner sees its own and no others: another's id is not found."""

    def __init__(self, database: Database, models: Models, ends: RunEnds) -> None:
        self._database = database
        self._models = models
        self._ends = ends

    async def create(
        self, principal: Principal, *, workspace: str | None = None, thread: str | None = None, agent: str | None = None
    ) -> Session:
        """Begin a conversation with an agent (a slug), else the default one; in a workspace, else the default one; in a thread of it, in
        a new one (``create_new``), or in none.

        Raises NotFound (AGENT_NOT_FOUND, WORKSPACE_NOT_FOUND, THREAD_NOT_FOUND).
        """
        session_id = uuid7()
        async with self._database.transaction() as connection:
            agent_id = await find_agent(connection, agent or DEFAULT_AGENT)
            workspace_id = await find_workspace(connection, workspace or DEFAULT_WORKSPACE)
            thread_id = await find_thread(connection, workspace_id, thread) if thread else None
            values = {
                "id": session_id,
                "owner_id": principal.owner_id,
                "agent_id": agent_id,
                "workspace_id": workspace_id,
                "thread_id": thread_id,
            }
            await connection.execute(insert(agent_sessions).values(values))
            rows = await connection.execute(_select_sessions().where(agent_sessions.c.id == session_id))
            return _session(rows.mappings().one())

    async def get(self, principal: Principal, session_id: str) -> Session:
        """One session that is open. Raises NotFound (SESSION_NOT_FOUND), also for one that is closed, has expired, or is another's."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(_select_sessions().where(_is_one(principal, session_id)))
            return _found(rows.mappings().one_or_none())

    async def close(self, principal: Principal, session_id: str) -> Session:
        """End a session; what the agent is doing in it is cancelled. Returns it as it was. Raises NotFound as ``get`` does."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                _select_sessions().where(_is_one(principal, session_id)).with_for_update(of=agent_sessions, key_share=True)
            )
            session = _found(rows.mappings().one_or_none())
            await connection.execute(update(agent_sessions).where(agent_sessions.c.id == session.id).values(closed_at=func.now()))
            await self._ends.cancel(connection, agent_runs.c.session_id == session.id)
        return session

    async def list(
        self, *, owner_id: UUID | None = None, agent: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[Session]:
        """Sessions of everybody, newest first, those that have ended included; only those of an owner, or with an agent (a slug)."""
        statement = _select_sessions()
        if owner_id is not None:
            statement = statement.where(agent_sessions.c.owner_id == owner_id)
        if agent is not None:
            statement = statement.where(agents.c.slug == agent)
        scope = f"agent sessions {owner_id or ''} {agent or ''}"
        async with self._database.transaction() as connection:
            page = await fetch_page(connection, statement, [agent_sessions.c.id], scope=scope, limit=limit, cursor=cursor, descending=True)
        return Page([_session(row) for row in page.items], page.next_cursor)

    async def model_of(self, session: Session) -> tuple[str, str] | None:
        """The provider and the model that would answer now; None when nothing is configured that could."""
        try:
            endpoint, model = await self._models.resolve(session.agent.provider, session.agent.model)
        except AppError:
            return None
        return endpoint.provider, model

    async def run_sweeper(self) -> None:
        """Once an hour, until cancelled, remove sessions that ended RETENTION ago, with everything that was said in them."""
        while True:
            try:
                if count := await self.remove_old():
                    log.info("old agent sessions removed", count=count)
            except AppError as error:
                log.warning("old agent sessions could not be removed; trying again in an hour", reason=error.message)
            await asyncio.sleep(SWEEP_INTERVAL_S)

    async def remove_old(self) -> int:
        """Remove sessions that ended RETENTION ago, some at a time; returns how many. Raises Unavailable."""
        # An old last_active_at is old enough: whoever closed it did so before it would have expired.
        old = select(agent_sessions.c.id).where(agent_sessions.c.last_active_at < func.now() - RETENTION - EXPIRES_AFTER, ~_HAS_OPEN_RUN)
        batch = old.order_by(agent_sessions.c.last_active_at).limit(SWEEP_BATCH)
        count = SWEEP_BATCH
        total = 0
        while count == SWEEP_BATCH:
            async with self._database.transaction() as connection:
                count = (await connection.execute(delete(agent_sessions).where(agent_sessions.c.id.in_(batch)))).rowcount
            total += count
        return total


def not_found() -> NotFound:
    """There is no such session for this caller."""
    return NotFound(
        "There is no such session. A session ends when it is closed, and after an hour in which nothing was said: create a new one.",
        code="SESSION_NOT_FOUND",
    )


def _select_sessions() -> Select[Any]:
    own = [agent_sessions.c[name] for name in ("id", "owner_id", "message_count", "last_message_at", "last_active_at", "created_at")]
    return select(
        *own,
        *(column.label(f"agent_{column.name}") for column in agents.c),
        workspaces.c.slug.label("workspace"),
        workspaces.c.name.label("workspace_name"),
        threads.c.slug.label("thread"),
        threads.c.name.label("thread_name"),
        _STATE.label("state"),
    ).select_from(
        agent_sessions.join(agents)
        .join(workspaces, workspaces.c.id == agent_sessions.c.workspace_id)
        .outerjoin(threads, threads.c.id == agent_sessions.c.thread_id)
    )


def _is_one(principal: Principal, session_id: str) -> ColumnElement[bool]:
    return and_(agent_sessions.c.id == parse_uuid(session_id), agent_sessions.c.owner_id == principal.owner_id, _IS_OPEN)


def _found(row: RowMapping | None) -> Session:
    if row is None:
        raise not_found()
    return _session(row)


def _session(row: RowMapping) -> Session:
    values = dict(row)
    agent = read_agent({column.name: values.pop(f"agent_{column.name}") for column in agents.c})
    return Session(agent=agent, **values)


async def find_agent(connection: AsyncConnection, slug: str) -> int:
    """The id of an agent. Raises NotFound (AGENT_NOT_FOUND)."""
    return await _find(connection, select(agents.c.id).where(agents.c.slug == slug), f"There is no agent '{slug[:80]}'.", "AGENT_NOT_FOUND")


async def find_workspace(connection: AsyncConnection, slug: str) -> int:
    """The id of a workspace. Raises NotFound (WORKSPACE_NOT_FOUND)."""
    statement = select(workspaces.c.id).where(workspaces.c.slug == slug)
    return await _find(connection, statement, f"There is no workspace '{slug[:80]}'.", "WORKSPACE_NOT_FOUND")


async def find_thread(connection: AsyncConnection, workspace_id: int, slug: str) -> int:
    """The id of a thread of a workspace, which NEW_THREAD makes. Raises NotFound (THREAD_NOT_FOUND)."""
    if slug == NEW_THREAD:
        name = f"Conversation {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
        values = {"workspace_id": workspace_id, "name": name}
        row = await insert_with_slug(connection, threads, values, slugs_for(name, "thread"), [threads.c.workspace_id, threads.c.slug])
        return int(row["id"])
    statement = select(threads.c.id).where(threads.c.workspace_id == workspace_id, threads.c.slug == slug)
    return await _find(connection, statement, f"There is no thread '{slug[:80]}' in this workspace.", "THREAD_NOT_FOUND")


async def _find(connection: AsyncConnection, statement: Select[Any], message: str, code: str) -> int:
    """An id, locked so that nobody removes it before the session is there. Raises NotFound."""
    found = (await connection.execute(statement.with_for_update(read=True, key_share=True))).scalar_one_or_none()
    if found is None:
        raise NotFound(message, code=code)
    return int(found)
