"""Agents, with all that they are made of."""

from dataclasses import asdict
from typing import Any

from homeport.agents import Agent
from homeport.clock import format_time
from homeport.home import Home

# A field that is null in a change has nothing in it from then on, for which the domain has the empty text.
CLEARED = ("hub_id", "provider", "model")


async def list_agents(home: Home, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """List all agents, oldest first."""
    return (await home.agents.list_page(limit=limit, cursor=cursor)).render(_agent)


async def create_agent(home: Home, body: dict[str, Any]) -> dict[str, Any]:
    """Create an agent."""
    return _agent(await home.agents.create(**body))


async def get_agent(home: Home, agent: str) -> dict[str, Any]:
    """Return one agent."""
    return _agent(await home.agents.get(agent))


async def update_agent(home: Home, agent: str, body: dict[str, Any]) -> dict[str, Any]:
    """Change an agent."""
    changes: dict[str, Any] = {name: "" if value is None and name in CLEARED else value for name, value in body.items()}
    return _agent(await home.agents.update(agent, **changes))


async def remove_agent(home: Home, agent: str) -> dict[str, Any]:
    """Remove an agent and its sessions."""
    return _agent(await home.agents.remove(agent))


def _agent(agent: Agent) -> dict[str, Any]:
    return {
        "slug": agent.slug,
        "display_name": agent.display_name,
        "description": agent.description,
        **({"hub_id": agent.hub_id} if agent.hub_id is not None else {}),
        "instructions": agent.instructions,
        "provider": agent.provider,
        "model": agent.model,
        "tools": agent.tools,
        "limits": asdict(agent.limits),
        "created_at": format_time(agent.created_at),
        "updated_at": format_time(agent.updated_at),
    }
