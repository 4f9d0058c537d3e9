"""Where an agent is to work: whether what an order names is there."""

from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from homeport.agents.sessions import NEW_THREAD
from homeport.errors import NotFound
from homeport.tables import agents, threads, workspaces
from homeport.workspaces import DEFAULT_WORKSPACE


async def check_places(connection: AsyncConnection, agent: str | None, workspace: str | None, thread: str | None) -> None:
    """Raise NotFound (AGENT_NOT_FOUND, WORKSPACE_NOT_FOUND, THREAD_NOT_FOUND) for a slug that nothing has. None: it is not named."""
    if agent is not None:
        await _find(connection, select(agents.c.id).where(agents.c.slug == agent), f"There is no agent '{agent[:80]}'.", "AGENT_NOT_FOUND")
    slug = workspace or DEFAULT_WORKSPACE
    found = select(workspaces.c.id).where(workspaces.c.slug == slug)
    await _find(connection, found, f"There is no workspace '{slug[:80]}'.", "WORKSPACE_NOT_FOUND")
    if thread is not None and thread != NEW_THREAD:
        in_workspace = select(threads.c.id).join(workspaces).where(workspaces.c.slug == slug, threads.c.slug == thread)
        await _find(connection, in_workspace, f"There is no thread '{thread[:80]}' in the workspace '{slug[:80]}'.", "THREAD_NOT_FOUND")


async def _find(connection: AsyncConnection, statement: Select[Any], message: str, code: str) -> None:
    if (await connection.execute(statement)).first() is None:
        raise NotFound(message, code=code)
