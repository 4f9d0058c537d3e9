"""Agents: models with instructions, tools and limits, the conversations with them, and what they do in those."""

from homeport.agents.catalog import DEFAULT_AGENT, Agent, Agents
from homeport.agents.limits import Limits

__all__ = ["DEFAULT_AGENT", "Agent", "Agents", "Limits"]
