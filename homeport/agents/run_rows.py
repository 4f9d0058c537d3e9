"""The life of a run in SQL: each step of it is one statement that also holds its condition.

A run belongs to the process that carries it out, ``worker``, for as long as that one keeps saying so. Every later change asks for a run
that is open and still this worker's, so that one that was ended, or went to another process, is not written any more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row

from adapters.postgres import Database, dump_json
from homeport.agents import run_statements as statements
from homeport.agents.catalog import Agent, read_agent
from homeport.agents.sessions import EXPIRES_AFTER
from homeport.identity import Principal
from homeport.tables import agents


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that this process carries out. ``earlier`` are the newest messages of its session, by id, oldest first: those from before it
    began, or when it was taken over, those of the run itself. ``turns`` and ``tokens`` are what it has taken already."""

    id: UUID
    session_id: UUID
    agent: Agent
    workspace: str
    earlier: list[tuple[int, dict[str, Any]]] = field(repr=False)
    turns: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Past:
    """The last run of a task, as it was left. ``is_free``: no process holds it."""

    id: UUID
    state: str
    is_free: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person was asked about one call of a tool; ``is_used``: it was allowed, and the call was begun."""

    permission: str
    is_used: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be written of a run in one moment: messages, events by kind, what it has taken, and with a ``state`` what becomes of it.

    ``answers`` is how many of the messages are final answers. ``is_quick``: a crash of the machine may take it.
    """

    messages: Sequence[Mapping[str, Any]] = ()
    events: Sequence[tuple[str, Mapping[str, Any]]] = ()
    state: str | None = None
    error: str | None = None
    error_code: str | None = None
    provider: str | None = None
    model: str | None = None
    turns: int = 0
    tool_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    answers: int = 0
    is_quick: bool = False

    @property
    def is_over(self) -> bool:
        """Whether the run ends with it."""
        return self.state in {"completed", "failed", "cancelled"}


class RunRows:
    """Writes the runs of this process. ``worker`` is its name; ``hold`` is for how long a run is its own without being heard of.

    Every method raises Unavailable when the database does not answer.
    """

    def __init__(self, database: Database, hold: timedelta) -> None:
        self.worker = str(uuid4())
        self._database = database
        self._hold = hold

    async def begin(self, run_id: UUID, principal: Principal, session_id: UUID, message: str, task_id: UUID | None) -> Begun | None:
        """Begin a run with a message of the user; None when there is no such session that is open and the principal's.

        Raises psycopg.errors.UniqueViolation when the session has an open run.
        """
        values = {
            "run_id": run_id,
            "session_id": session_id,
            "owner_id": principal.owner_id,
            "task_id": task_id,
            "worker": self.worker,
            "hold": self._hold,
            "expires_after": EXPIRES_AFTER,
            "content": dump_json({"role": "user", "content": message}).decode(),
            **_actor(principal),
        }
        row = await self._fetch(statements.BEGIN, values)
        if row is None:
            return None
        return Begun(run_id, session_id, _agent(row), row["workspace"], [(number, content) for number, content in row["history"] or ()])

    async def write(self, begun: Begun, principal: Principal, entry: Entry) -> int | None:
        """Write an entry. Returns the number of messages of the session (0 unless the run ends with it), or None when the run is not this
        worker's any more: nothing was written."""
        values = {
            "run_id": begun.id,
            "session_id": begun.session_id,
            "worker": self.worker,
            "is_over": entry.is_over,
            "roles": [message["role"] for message in entry.messages],
            "contents": [dump_json(message).decode() for message in entry.messages],
            "kinds": [kind for kind, _ in entry.events],
            "data": [dump_json(data).decode() for _, data in entry.events],
            **{name: getattr(entry, name) for name in _FIELDS},
            **_actor(principal),
        }
        row = await self._fetch(statements.WRITE, values)
        return None if row is None else row["message_count"] or 0

    async def keep(self, run_ids: Sequence[UUID]) -> set[UUID]:
        """Say that these runs are still carried out here; returns those that are this worker's."""
        rows = await self._fetch_all(statements.KEEP, {"run_ids": [*run_ids], "worker": self.worker, "hold": self._hold})
        return {row["id"] for row in rows}

    async def release(self, run_id: UUID) -> None:
        """Leave a run as it is, for another process to take over at once."""
        async with self._database.autocommit() as connection:
            await connection.execute(statements.RELEASE, {"run_id": run_id, "worker": self.worker})

    async def take_over(self, past: Past, session_id: UUID) -> Begun | None:
        """Go on with a run that nobody holds; None when somebody does."""
        row = await self._fetch(statements.TAKE_OVER, {"run_id": past.id, "worker": self.worker, "hold": self._hold})
        if row is None:
            return None
        return Begun(past.id, session_id, _agent(row), row["workspace"], await self.earlier(session_id), row["turns"], row["tokens"])

    async def earlier(self, session_id: UUID, before: int = 2**63 - 1, limit: int = statements.HISTORY) -> list[tuple[int, dict[str, Any]]]:
        """The newest messages of a session before one of them, with their ids, oldest first."""
        rows = await self._fetch_all(statements.EARLIER, {"session_id": session_id, "before": before, "limit": limit})
        return [(row["id"], row["content"]) for row in reversed(rows)]

    async def last_of_task(self, principal: Principal, session_id: UUID, task_id: UUID) -> Past | None:
        """The last run for a task in a session; None when there is none yet."""
        row = await self._fetch(statements.OF_TASK, {"task_id": task_id, "session_id": session_id, "owner_id": principal.owner_id})
        return None if row is None else Past(**row)

    async def asked_for(self, run_id: UUID, call_id: str) -> Asked | None:
        """What a person was asked about a call; None when nobody was."""
        row = await self._fetch(statements.ASKED, {"run_id": run_id, "call_id": call_id})
        return None if row is None else Asked(**row)

    async def state_of(self, run_id: UUID) -> str | None:
        """The state of a run; None when it is gone with its session."""
        row = await self._fetch(statements.STATE, {"run_id": run_id})
        return None if row is None else row["state"]

    async def _fetch(self, statement: str, values: Mapping[str, Any]) -> dict[str, Any] | None:
        rows = await self._fetch_all(statement, values)
        return rows[0] if rows else None

    async def _fetch_all(self, statement: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        async with self._database.autocommit() as connection:
            cursor: psycopg.AsyncCursor[dict[str, Any]] = connection.cursor(row_factory=dict_row)
            await cursor.execute(statement.encode(), values)
            return await cursor.fetchall()


_FIELDS = (
    "state",
    "error",
    "error_code",
    "provider",
    "model",
    "turns",
    "tool_calls",
    "prompt_tokens",
    "completion_tokens",
    "answers",
    "is_quick",
)


def _agent(row: Mapping[str, Any]) -> Agent:
    return read_agent({column.name: row[f"agent_{column.name}"] for column in agents.c})


def _actor(principal: Principal) -> dict[str, UUID | None]:
    """The app and the key that events name. A key may speak for an app."""
    if principal.kind == "app":
        return {"app_id": principal.id, "key_id": None}
    return {"app_id": principal.owner_id if principal.owner_id != principal.id else None, "key_id": principal.id}
