"""The domain of agents in one process of Homeport, with a stand-in for models and a real MCP server. Two on one URL are two processes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from contract.upstream import RunningUpstream
from homeport.agents import Agent, Agents, Answer, Approvals, RunEnds, Runs, Session, Sessions, Step
from homeport.agents.runs import Timing
from homeport.events import Event
from homeport.identity import Principal
from homeport.models import Models
from homeport.secrets import SecretBox
from homeport.settings import Settings
from homeport.tools import ServerDraft, Tools
from homeport.workspaces import Workspaces
from tests.integration.parts import Parts
from tests.integration.tool_parts import ToolParts, open_tools


def script(*steps: dict[str, Any], ask: str = "") -> str:
    """A message that tells the model what to do."""
    return f"script: {orjson.dumps(steps).decode()}\n{ask}"


def call(tool: str, **arguments: Any) -> dict[str, Any]:
    """A call of a tool in a script."""
    return {"tool": tool, "arguments": arguments}


@dataclass(frozen=True)
class AgentParts:
    tool_parts: ToolParts
    models: Models
    agents: Agents
    workspaces: Workspaces
    approvals: Approvals
    sessions: Sessions
    runs: Runs

    @property
    def parts(self) -> Parts:
        """The foundation."""
        return self.tool_parts.parts

    @property
    def tools(self) -> Tools:
        """The registry of tools."""
        return self.tool_parts.tools

    async def app(self, name: str = "App", *granted: str) -> Principal:
        """Register an app that holds these permissions, else those that agents with tools need."""
        app = await self.parts.apps.register(name)
        for permission in granted or ("agent.chat", "mcp.tools"):
            await self.parts.permissions.set_grant(app.id, permission, "granted", "test")
        principal = await self.parts.identity.authenticate_app(str(app.id))
        assert principal is not None
        return principal

    async def add_tools(self, url: str) -> None:
        """Register our MCP server, which is at ``url``, as ``own``."""
        await self.tools.servers.add(ServerDraft("own", url=url))

    async def agent(self, name: str = "Worker", model: str = "script", tools: Sequence[str] = ("own/*",), **values: Any) -> Agent:
        """Make an agent."""
        return await self.agents.create(name, model=model, tools=tools, **values)

    async def session(self, principal: Principal, agent: Agent | None = None, **values: Any) -> Session:
        """Begin a conversation."""
        return await self.sessions.create(principal, agent=agent.slug if agent else None, **values)

    async def answer(self, principal: Principal, session: Session, *steps: dict[str, Any]) -> Answer:
        """Have a script carried out."""
        return await self.runs.answer(principal, str(session.id), script(*steps))

    async def last_run(self, session: Session) -> Any:
        """The newest run of a session."""
        return (await self.runs.list(session_id=str(session.id))).items[0]

    async def said(self, session: Session) -> list[tuple[str, str]]:
        """Roles and texts of the newest run."""
        messages = await self.runs.messages(str((await self.last_run(session)).id))
        return [(message.role, message.content["content"]) for message in messages]

    async def told(self, run_id: UUID) -> list[Event]:
        """What the log says about a run, oldest first."""
        return [*reversed((await self.tool_parts.events.list(subject=str(run_id), limit=200)).items)]


@asynccontextmanager
async def open_agents(url: str, folder: Path, upstream: RunningUpstream, *, timing: Timing | None = None) -> AsyncIterator[AgentParts]:
    """Nothing runs in the background: runs are looked after where a test does so."""
    async with open_tools(url, folder) as tool_parts:
        parts = tool_parts.parts
        settings = Settings(data_dir=folder, ollama_url="off")
        models = Models(settings, parts.database, SecretBox(bytes(32)), environ={})
        if not await models.configured_providers():
            await models.add_provider("stand-in", base_url=upstream.base_url, models=["echo"], is_default=True)
        agents, workspaces = Agents(parts.database), Workspaces(parts.database)
        await agents.ensure_defaults()
        await workspaces.ensure_defaults()
        approvals = Approvals(parts.database, parts.notifications, parts.permissions, tool_parts.events)
        ends = RunEnds(approvals)
        sessions = Sessions(parts.database, models, ends)
        runs = Runs(parts.database, parts.notifications, models, tool_parts.tools, approvals, ends, timing=timing)
        await parts.notifications.settle()
        try:
            yield AgentParts(tool_parts, models, agents, workspaces, approvals, sessions, runs)
        finally:
            await runs.close()
            await models.close()


async def steps_of(stream: AsyncIterator[Step]) -> list[Step]:
    """All steps of a run."""
    return [step async for step in stream]
