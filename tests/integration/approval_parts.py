"""The domain of approvals in one process of Homeport, and runs to ask for. Two of them on one URL are two processes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from homeport.agents.approvals import Approvals
from homeport.agents.stored_approvals import Approval
from homeport.events import Event, Events
from homeport.identity import Principal
from homeport.ids import uuid7
from tests.integration.parts import Parts, open_parts

ADD_RUN = """
WITH place AS (
    INSERT INTO workspaces (slug, name) VALUES ('default', 'Default') ON CONFLICT (slug) DO UPDATE SET name = 'Default' RETURNING id
), agent AS (
    INSERT INTO agents (slug, display_name) VALUES ('@agent', 'Agent') ON CONFLICT (slug) DO UPDATE SET display_name = 'Agent' RETURNING id
), session AS (
    INSERT INTO agent_sessions (id, owner_id, agent_id, workspace_id) SELECT :session, :owner, agent.id, place.id FROM agent, place
)
INSERT INTO agent_runs (id, session_id, owner_id, agent, worker, held_until) VALUES (:run, :session, :owner, '@agent', 'test', now())
"""


@dataclass(frozen=True)
class ApprovalParts:
    parts: Parts
    approvals: Approvals
    events: Events

    async def add_run(self, principal: Principal) -> UUID:
        """An open run of the principal's. Two statements, because a foreign key does not see what the same statement adds."""
        run = uuid7()
        insert_session, _, insert_run = ADD_RUN.rpartition(")\nINSERT")
        values: dict[str, Any] = {"session": uuid7(), "owner": principal.owner_id}
        await self.parts.run_sql(insert_session + ") SELECT 1", **values)
        await self.parts.run_sql(f"INSERT{insert_run}", run=run, **values)
        return run

    async def ask(self, principal: Principal, run: UUID | None = None, **values: Any) -> Approval:
        """Ask for a tool, in a run of its own unless one is given."""
        given: dict[str, Any] = {"call_id": "call-1", "arguments": {"text": "x"}, "permission": "mcp.tools.time.echo", "wait_s": 60.0}
        return await self.approvals.ask(
            run_id=run or await self.add_run(principal), principal=principal, agent="@agent", server="time", tool="echo", **given | values
        )

    async def told(self, run: UUID) -> list[Event]:
        """What the log says about a run, oldest first."""
        return [*reversed((await self.events.list(subject=str(run))).items)]


@asynccontextmanager
async def open_approvals(url: str, folder: Path, *, recheck_s: float = 60.0, **settings: Any) -> AsyncIterator[ApprovalParts]:
    async with open_parts(url, folder, **settings) as parts:
        events = Events(parts.database)
        approvals = Approvals(parts.database, parts.notifications, parts.permissions, events, recheck_s=recheck_s)
        await parts.notifications.settle()
        yield ApprovalParts(parts, approvals, events)
