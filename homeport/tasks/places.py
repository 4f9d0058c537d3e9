"""Where an agent is to work: whether what an order names is there."""

from sqlalchemy.ext.asyncio import AsyncConnection

from homeport.agents.sessions import NEW_THREAD, find_agent, find_thread, find_workspace
from homeport.workspaces import DEFAULT_WORKSPACE


async def check_places(connection: AsyncConnection, agent: str | None, workspace: str | None, thread: str | None) -> None:
    """Raise NotFound (AGENT_NOT_FOUND, WORKSPACE_NOT_FOUND, THREAD_NOT_FOUND) for a slug that nothing has. None: it is not named."""
    if agent is not None:
        await find_agent(connection, agent)
    workspace_id = await find_workspace(connection, workspace or DEFAULT_WORKSPACE)
    if thread is not None and thread != NEW_THREAD:
        await find_thread(connection, workspace_id, thread)
