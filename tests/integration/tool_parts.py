"""The domain of tools in one process of Homeport, with real MCP servers as processes. Two of them on one URL are two processes."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.mcp import McpSessions
from adapters.outbound import Outbound
from homeport.events import Event, Events
from homeport.secrets import SecretBox
from homeport.tools import McpServer, ServerDraft, Tools
from tests.integration.parts import Parts, open_parts

STAND_IN = Path(__file__).resolve().parents[2] / "contract" / "mcp_server.py"


@dataclass(frozen=True)
class ToolParts:
    parts: Parts
    tools: Tools
    events: Events
    sessions: McpSessions

    async def add(self, name: str = "time", *args: str, **values: Any) -> McpServer:
        """Register the stand-in."""
        return await self.tools.servers.add(ServerDraft(name, command=sys.executable, args=(str(STAND_IN), *args), **values))

    async def executed(self) -> list[dict[str, Any]]:
        """What was recorded of executions, oldest first."""
        return [event.data for event in reversed(await self.all_events("tool.executed"))]

    async def all_events(self, kind: str | None = None) -> list[Event]:
        """Events, newest first."""
        return (await self.events.list(kind=kind, limit=200)).items


@asynccontextmanager
async def open_tools(url: str, folder: Path, *, key: bytes = bytes(32)) -> AsyncIterator[ToolParts]:
    async with open_parts(url, folder) as parts:
        events = Events(parts.database)
        sessions = McpSessions(folder / "mcp", Outbound(("localhost",)))
        tools = Tools(parts.database, parts.notifications, SecretBox(key), parts.identity, sessions, events, folder / "mcp")
        await parts.notifications.settle()
        watching = asyncio.create_task(tools.servers.run())
        try:
            yield ToolParts(parts, tools, events, sessions)
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            await sessions.close()
