"""What servers offer: their tools, each with whether it is still what was approved."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.mcp import McpSessions, McpTool
from adapters.postgres import Database, Notifications, notify
from homeport.errors import NotFound
from homeport.tables import mcp_tools
from homeport.tools.fingerprints import fingerprint
from homeport.tools.servers import McpServers
from homeport.tools.stored import TOOLS_CHANNEL, McpServer, StoredTools

# A server that invents new names for ever must not fill the database: what it offers beyond this has to be approved.
MAX_TRUSTED = 5000
# What processes tell each other in front of a server's id: its tools are not what they were, or were approved.
LOOK_AGAIN = "look again at"


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool of a server. ``is_changed``: it is not what was approved, and cannot be used until it is."""

    tool: McpTool
    fingerprint: str
    is_changed: bool


class Offers:
    """Asks servers for their tools, starting those that do not run. What is seen of a tool for the first time is taken as approved.

    Every process has sessions of its own, and keeps what a server offers for some minutes. Where one sees that a tool has changed, or has
    it approved, the others look again before they use the server the next time.
    """

    def __init__(
        self, database: Database, notifications: Notifications, stored: StoredTools, servers: McpServers, sessions: McpSessions
    ) -> None:
        self._database = database
        self._stored = stored
        self._servers = servers
        self._sessions = sessions
        self._seen: dict[UUID, tuple[list[McpTool], dict[str, tuple[McpTool, str]]]] = {}
        self._doubted: set[UUID] = set()
        self._told: dict[UUID, dict[str, str]] = {}
        notifications.subscribe(TOOLS_CHANNEL, self._hear)
        notifications.on_gap(lambda: self._doubted.update(self._seen))

    async def of(self, server: McpServer, *, is_fresh: bool = False) -> dict[str, OfferedTool]:
        """The tools of a server by name, in that order; ``is_fresh`` asks it, and the database, anew. Raises what the sessions raise."""
        is_fresh = is_fresh or server.id in self._doubted
        self._doubted.discard(server.id)
        found = await self._look(server, is_fresh=is_fresh)
        approved = (await (self._stored.get_anew() if is_fresh else self._stored.get())).approved.get(server.id, {})
        if new := {name: print_ for name, (_, print_) in found.items() if name not in approved}:
            approved = await self._trust(server, new, len(approved))
        offered = {name: OfferedTool(tool, print_, approved.get(name) != print_) for name, (tool, print_) in found.items()}
        await self._tell_of_changes(server, {name: each.fingerprint for name, each in offered.items() if each.is_changed})
        return offered

    async def approve(self, server: McpServer) -> dict[str, OfferedTool]:
        """Approve the tools of a server as it offers them now; returns them as they were before. Raises what the sessions raise."""
        before = await self.of(server, is_fresh=True)
        try:
            async with self._database.transaction() as connection:
                await connection.execute(delete(mcp_tools).where(mcp_tools.c.server_id == server.id))
                await _insert(connection, server.id, {name: offered.fingerprint for name, offered in before.items()})
                await notify(connection, TOOLS_CHANNEL, f"{LOOK_AGAIN} {server.id}")
        except IntegrityError as error:
            raise _is_gone(server) from error
        self._stored.forget()
        return before

    def _hear(self, payload: str) -> None:
        if payload.startswith(LOOK_AGAIN):
            self._doubted.add(UUID(payload.removeprefix(LOOK_AGAIN).strip()))

    async def _tell_of_changes(self, server: McpServer, changed: dict[str, str]) -> None:
        """Tell the other processes, once for the same changes: they answer by looking, not by telling it back for ever."""
        if changed == self._told.get(server.id, {}):
            return
        self._told[server.id] = changed
        if changed:
            async with self._database.transaction() as connection:
                await notify(connection, TOOLS_CHANNEL, f"{LOOK_AGAIN} {server.id}")

    async def _look(self, server: McpServer, *, is_fresh: bool) -> dict[str, tuple[McpTool, str]]:
        tools = await self._sessions.list_tools(self._servers.spec_of(server), is_fresh=is_fresh)
        seen = self._seen.get(server.id)
        # The same list as the last time has the same fingerprints.
        if seen is None or seen[0] is not tools:
            seen = self._seen[server.id] = (tools, {tool.name: (tool, fingerprint(tool)) for tool in tools})
        return seen[1]

    async def _trust(self, server: McpServer, new: Mapping[str, str], known: int) -> Mapping[str, str]:
        trusted = dict(list(new.items())[: max(0, MAX_TRUSTED - known)])
        try:
            async with self._database.transaction() as connection:
                await _insert(connection, server.id, trusted)
                await notify(connection, TOOLS_CHANNEL, "approved")
        except IntegrityError as error:
            raise _is_gone(server) from error
        # Another process may have seen another tool of that name first; what it saw counts.
        return (await self._stored.get_anew()).approved.get(server.id, {})


async def _insert(connection: AsyncConnection, server_id: UUID, prints: Mapping[str, str]) -> None:
    if prints:
        # In one order everywhere: two processes that insert the same must not wait for each other.
        rows = [{"server_id": server_id, "name": name, "fingerprint": prints[name]} for name in sorted(prints)]
        await connection.execute(insert(mcp_tools).on_conflict_do_nothing(), rows)


def _is_gone(server: McpServer) -> NotFound:
    return NotFound(f"The MCP server '{server.name}' has just been removed.", code="MCP_SERVER_NOT_FOUND")
