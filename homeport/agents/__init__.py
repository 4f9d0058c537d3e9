"""Agents: models with instructions, tools and limits, the conversations with them, and what they do in those.

Agents     who there is
Sessions   the conversations
Runs       what is done to answer a message; tells Steps
Approvals  what people are asked meanwhile
"""

from homeport.agents.approvals import Approvals
from homeport.agents.catalog import DEFAULT_AGENT, Agent, Agents
from homeport.agents.limits import Limits
from homeport.agents.run_ends import RunEnds
from homeport.agents.run_stream import RunStream
from homeport.agents.runs import Runs
from homeport.agents.sessions import Session, Sessions
from homeport.agents.steps import Answer, Block, Chunk, Silence, Step, Thought
from homeport.agents.stored_approvals import Approval, ApprovalState
from homeport.agents.stored_runs import Message, Run

__all__ = [
    "DEFAULT_AGENT",
    "Agent",
    "Agents",
    "Answer",
    "Approval",
    "ApprovalState",
    "Approvals",
    "Block",
    "Chunk",
    "Limits",
    "Message",
    "Run",
    "RunEnds",
    "RunStream",
    "Runs",
    "Session",
    "Sessions",
    "Silence",
    "Step",
    "Thought",
]
