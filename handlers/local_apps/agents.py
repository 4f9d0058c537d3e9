"""The agents that an app can name."""

from typing import Any

from homeport.agents import Agent
from homeport.home import Home


async def list_agents(home: Home) -> dict[str, Any]:
    """List all agents."""
    return {"success": True, "agents": [_agent(agent) for agent in await home.agents.list()]}


def _agent(agent: Agent) -> dict[str, Any]:
    return {
        "slug": agent.slug,
        "name": agent.slug,
        "display_name": agent.display_name,
        "description": agent.description,
        "hub_id": agent.hub_id,
    }
