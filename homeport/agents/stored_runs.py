"""Runs and messages as operators see them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import select

from adapters.postgres import Database
from homeport.agents.context import in_call_order
from homeport.errors import NotFound
from homeport.ids import parse_uuid
from homeport.models import ToolCall
from homeport.paging import Page, fetch_page
from homeport.tables import agent_messages, agent_runs, agent_sessions

RunState = Literal["running", "waiting", "completed", "failed", "cancelled"]

_COLUMNS = [column for column in agent_runs.c if column.name not in ("worker", "held_until")]


@dataclass(frozen=True, slots=True)
class Run:
    """What an agent does, or has done, to answer one message.

    ``agent`` is a slug. ``turns`` is how often the model was asked, ``provider`` and ``model`` are those that answered last. ``error`` is a
    sentence for people and ``error_code`` its stable code.
    """

    id: UUID
    session_id: UUID
    owner_id: UUID
    agent: str
    task_id: UUID | None
    state: RunState
    provider: str | None
    model: str | None
    turns: int
    tool_calls: int
    prompt_tokens: int
    completion_tokens: int
    error: str | None
    error_code: str | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Message:
    """Something that was said: ``content`` is the whole message as OpenAI's protocol writes it, tool calls and results included."""

    id: int
    run_id: UUID
    role: Literal["user", "assistant", "tool"]
    content: dict[str, Any] = field(repr=False)
    created_at: datetime

    @property
    def text(self) -> str:
        """What it says; empty where it only calls tools."""
        return self.content.get("content") or ""

    @property
    def tool_calls(self) -> "list[ToolCall]":
        """The calls of tools that it asks for."""
        return [ToolCall(call["id"], **call["function"]) for call in self.content.get("tool_calls") or ()]

    @property
    def tool_call_id(self) -> str | None:
        """The call that it is the result of, if it is one."""
        return self.content.get("tool_call_id")


class StoredRuns:
    """Reads them, whoever's they are."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self,
        *,
        state: str | None = None,
        session_id: str | None = None,
        agent: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Run]:
        """Runs, newest first; only those in a state, of a session, or of an agent (a slug)."""
        statement = select(*_COLUMNS)
        if state is not None:
            statement = statement.where(agent_runs.c.state == state)
        if session_id is not None:
            statement = statement.where(agent_runs.c.session_id == parse_uuid(session_id))
        if agent is not None:
            statement = statement.where(agent_runs.c.agent == agent)
        scope = f"agent runs {state or ''} {session_id or ''} {agent or ''}"
        async with self._database.transaction() as connection:
            page = await fetch_page(connection, statement, [agent_runs.c.id], scope=scope, limit=limit, cursor=cursor, descending=True)
        return Page([Run(**row) for row in page.items], page.next_cursor)

    async def get(self, run_id: str) -> Run:
        """One run. Raises NotFound."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(select(*_COLUMNS).where(agent_runs.c.id == parse_uuid(run_id)))
            row = rows.mappings().one_or_none()
        if row is None:
            raise NotFound("There is no such run.", code="RUN_NOT_FOUND")
        return Run(**row)

    async def messages(self, run_id: str) -> Sequence[Message]:
        """What was said in a run, in order; results of tools stand in the order of their calls. Raises NotFound."""
        run = await self.get(run_id)
        columns = [column for column in agent_messages.c if column.name != "session_id"]
        statement = select(*columns).where(agent_messages.c.run_id == run.id).order_by(agent_messages.c.id)
        async with self._database.transaction() as connection:
            found = [Message(**row) for row in (await connection.execute(statement)).mappings()]
        return in_call_order(found, lambda message: message.content)

    async def message_count(self, session_id: UUID) -> int:
        """How much was said in a session: questions and final answers."""
        async with self._database.transaction() as connection:
            count = await connection.execute(select(agent_sessions.c.message_count).where(agent_sessions.c.id == session_id))
            return count.scalar() or 0
