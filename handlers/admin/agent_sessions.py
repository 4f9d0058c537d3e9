"""The conversations that apps and developers have with agents."""

from typing import Any
from uuid import UUID

from homeport.agents import Session
from homeport.clock import format_time
from homeport.home import Home


async def list_sessions(
    home: Home, owner_id: str | None = None, agent: str | None = None, limit: int = 50, cursor: str | None = None
) -> dict[str, Any]:
    """List sessions, newest first."""
    owner = UUID(owner_id) if owner_id else None
    return (await home.sessions.list(owner_id=owner, agent=agent, limit=limit, cursor=cursor)).render(_session)


def _session(session: Session) -> dict[str, Any]:
    return {
        "id": str(session.id),
        "owner_id": str(session.owner_id),
        "agent": session.agent.slug,
        "workspace": session.workspace,
        "thread": session.thread,
        "state": session.state,
        "message_count": session.message_count,
        "last_message_at": format_time(session.last_message_at),
        "last_active_at": format_time(session.last_active_at),
        "created_at": format_time(session.created_at),
    }
